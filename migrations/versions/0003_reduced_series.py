"""The reduced levels of long series, archived iterations, mirrors, and counters that outlive what they counted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A migration is never changed again, so it spells out the types instead of taking those of today's code.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    _create_iteration_levels()
    _create_mirrors()
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.add_column("attempts", sa.Column("archive", sa.Text))


def _create_iteration_levels() -> None:
    op.create_table(
        "iteration_levels",
        sa.Column("attempt_id", KEY, nullable=False),
        sa.Column("level", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("part", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "level", "part", name="pk_iteration_levels"),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name="fk_iteration_levels_attempt_id", ondelete="CASCADE"
        ),
    )


def _create_mirrors() -> None:
    op.create_table(
        "mirrors",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("restarted_after", sa.Integer, nullable=False, server_default="0"),
        sa.Column("iteration", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("holder", sa.Text),
        sa.Column("lease_expires_at", TIME),
        sa.PrimaryKeyConstraint("job_number", "target", name="pk_mirrors"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_mirrors_job_number", ondelete="CASCADE"
        ),
    )
