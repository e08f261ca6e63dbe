"""What pause, retry, amendment and resumption need to know about jobs and attempts, and the amendments."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A migration is never changed again, so it spells out the types instead of taking those of today's code.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    # Each is nullable or has a constant default: both databases add it without writing a single row.
    for column in (
        sa.Column("pause_requested_at", TIME),
        sa.Column("initial_spec", sa.JSON),
        sa.Column("amendments", sa.Integer, nullable=False, server_default="0"),
        sa.Column("recorded_at", TIME),
        sa.Column("retried_after", sa.Integer, nullable=False, server_default="0"),
        sa.Column("restarted_after", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
    op.add_column("attempts", sa.Column("restored", sa.JSON))
    op.add_column("attempts", sa.Column("writes", sa.BigInteger, nullable=False, server_default="0"))
    _create_amendments()


def _create_amendments() -> None:
    op.create_table(
        "amendments",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("epoch", sa.Integer),
        sa.Column("iteration", sa.BigInteger),
        sa.Column("applied_at", TIME),
        sa.PrimaryKeyConstraint("job_number", "number", name="pk_amendments"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_amendments_job_number", ondelete="CASCADE"
        ),
    )
