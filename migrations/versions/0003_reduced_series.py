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
    _store_digits_as_they_are()
    _create_iteration_levels()
    _create_mirrors()
    _create_counters()
    op.create_table(
        "directories",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_directories"),
    )
    op.add_column("workers", sa.Column("memory", sa.JSON))
    op.drop_index("ix_jobs_claim", "jobs")
    op.create_index("ix_jobs_claim", "jobs", ["status", sa.desc("priority"), "number", "available_at"])
    op.add_column("attempts", sa.Column("archive", sa.Text))


def _store_digits_as_they_are() -> None:
    # Noise shrinks by a third only, and a server spends more time on that than on everything else.
    if op.get_bind().dialect.name == "postgresql":
        for column in ("train_loss", "gradient_norm", "samples_per_second"):
            op.execute(f"ALTER TABLE iteration_blocks ALTER COLUMN {column} SET STORAGE EXTERNAL")


def _create_counters() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    # They go on from what is there.
    op.execute("""
        INSERT INTO counters (name, value)
        SELECT 'iterations', recorded FROM (
            SELECT sum(last_iteration - first_iteration + 1) AS recorded
            FROM attempts WHERE finished_at IS NOT NULL AND last_iteration >= first_iteration
        ) AS ended WHERE recorded IS NOT NULL
    """)
    op.execute("""
        INSERT INTO counters (name, value)
        SELECT 'attempts_' || outcome, count(*) FROM attempts WHERE outcome IS NOT NULL GROUP BY outcome
    """)


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
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("moment", sa.Float, nullable=False, server_default="0"),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("holder", sa.Text),
        sa.Column("lease_expires_at", TIME),
        sa.PrimaryKeyConstraint("job_number", "target", name="pk_mirrors"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_mirrors_job_number", ondelete="CASCADE"
        ),
    )
