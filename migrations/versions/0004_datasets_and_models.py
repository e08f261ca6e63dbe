"""Uploaded data sets, the models that workers publish, and what a job needs of both."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A migration is never changed again, so it spells out the types instead of taking those of today's code.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    _create_datasets()
    _create_job_datasets()
    op.create_table(
        "models",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.JSON, nullable=False),
        sa.Column("published_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.add_column("workers", sa.Column("models", sa.JSON))
    op.add_column("jobs", sa.Column("requires", sa.Text))
    op.add_column("jobs", sa.Column("starts_from", sa.Text))
    op.create_index("ix_jobs_starts_from", "jobs", ["starts_from"])


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("number", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("preview", sa.JSON, nullable=False),
        sa.Column("notes", sa.JSON, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_datasets"),
        sa.UniqueConstraint("id", name="uq_datasets_id"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
        sa.UniqueConstraint("idempotency_key", name="uq_datasets_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_datasets_folder", "datasets", ["folder"])


def _create_job_datasets() -> None:
    op.create_table(
        "job_datasets",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("dataset_number", KEY, nullable=False),
        sa.PrimaryKeyConstraint("job_number", "dataset_number", name="pk_job_datasets"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_job_datasets_job_number", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["dataset_number"], ["datasets.number"], name="fk_job_datasets_dataset_number", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_job_datasets_dataset_number", "job_datasets", ["dataset_number"])
