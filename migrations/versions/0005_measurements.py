"""Measurements: which batch sizes fit and are fast on a device."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A migration is never changed again, so it spells out the types instead of taking those of today's code.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "measurements",
        sa.Column("number", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("train_samples", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("requires", sa.Text),
        sa.Column("sizes", sa.JSON, nullable=False),
        sa.Column("noise_scale", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("worker", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("lease_expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.PrimaryKeyConstraint("number", name="pk_measurements"),
        sa.UniqueConstraint("id", name="uq_measurements_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_measurements_status", "measurements", ["status"])
