"""Jobs, attempts, what they record, events, artifacts, workers, and the view ``iteration_metrics``."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is never changed again, so it spells out the types instead of taking those of today's code.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
METRICS = ("train_loss", "learning_rate", "gradient_norm", "samples_per_second")


def upgrade() -> None:
    _create_jobs()
    _create_attempts()
    _create_metrics()
    _create_events()
    _create_artifacts()
    _create_workers()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL_VIEW)
        _compress_with_lz4()
    else:
        op.execute(SQLITE_VIEW)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("stop_reason", sa.Text),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("advice", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_event", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
        sa.Column("iteration", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("progress", sa.JSON),
        sa.Column("metrics", sa.JSON),
        sa.Column("early_stopping", sa.JSON),
        sa.Column("diagnosis", sa.JSON),
        sa.Column("selected_checkpoint", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("worker", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("available_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("cancel_requested_at", TIME),
        sa.Column("cancel_keep", sa.Text),
        sa.Column("cancel_grace_seconds", sa.Float),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_claim", "jobs", ["status", sa.desc("priority"), "number"])
    op.create_index("ix_jobs_name", "jobs", ["name"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("claimed_at", TIME, nullable=False),
        sa.Column("lease_expires_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("outcome", sa.Text),
        sa.Column("first_iteration", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("last_iteration", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_attempts_job_number", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("job_number", "number", name="uq_attempts_job_number_number"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_attempts_finished_at_lease_expires_at", "attempts", ["finished_at", "lease_expires_at"]
    )


def _create_metrics() -> None:
    op.create_table(
        "iteration_blocks",
        sa.Column("attempt_id", KEY, nullable=False),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("first_iteration", sa.BigInteger, nullable=False),
        sa.Column("iterations", sa.Integer, nullable=False),
        sa.Column("iterations_per_epoch", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in METRICS),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "block", name="pk_iteration_blocks"),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name="fk_iteration_blocks_attempt_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "epoch_metrics",
        sa.Column("attempt_id", KEY, nullable=False),
        sa.Column("epoch", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("iteration", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("learning_rate", sa.Float(53), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("is_best", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "epoch", name="pk_epoch_metrics"),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name="fk_epoch_metrics_attempt_id", ondelete="CASCADE"
        ),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("iteration", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_number", "seq", name="pk_events"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_events_job_number", ondelete="CASCADE"
        ),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("job_number", "name", name="pk_artifacts"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_artifacts_job_number", ondelete="CASCADE"
        ),
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("devices", sa.JSON, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )


def _compress_with_lz4() -> None:
    """Take the faster compression where the server has it; the texts shrink as much as by the default one."""
    try:
        with op.get_bind().begin_nested():
            for name in METRICS:
                op.execute(f"ALTER TABLE iteration_blocks ALTER COLUMN {name} SET COMPRESSION lz4")
    except DBAPIError:  # a server before 14, or built without lz4
        return


SQLITE_VIEW = """
CREATE VIEW iteration_metrics AS
SELECT j.id AS job_id,
       a.number AS attempt,
       b.first_iteration + loss.key AS iteration,
       (b.first_iteration + loss.key - 1) / b.iterations_per_epoch + 1 AS epoch,
       loss.value AS train_loss,
       json_extract(b.learning_rate, '$[' || loss.key || ']') AS learning_rate,
       json_extract(b.gradient_norm, '$[' || loss.key || ']') AS gradient_norm,
       json_extract(b.samples_per_second, '$[' || loss.key || ']') AS samples_per_second
FROM jobs AS j
JOIN attempts AS a ON a.job_number = j.number
JOIN iteration_blocks AS b ON b.attempt_id = a.id
JOIN json_each(b.train_loss) AS loss
"""

POSTGRESQL_VIEW = """
CREATE VIEW iteration_metrics AS
SELECT j.id AS job_id,
       a.number AS attempt,
       b.first_iteration + v.position - 1 AS iteration,
       (b.first_iteration + v.position - 2) / b.iterations_per_epoch + 1 AS epoch,
       v.train_loss::double precision AS train_loss,
       v.learning_rate::double precision AS learning_rate,
       v.gradient_norm::double precision AS gradient_norm,
       v.samples_per_second::double precision AS samples_per_second
FROM jobs AS j
JOIN attempts AS a ON a.job_number = j.number
JOIN iteration_blocks AS b ON b.attempt_id = a.id
CROSS JOIN LATERAL ROWS FROM (
    json_array_elements_text(b.train_loss::json),
    json_array_elements_text(b.learning_rate::json),
    json_array_elements_text(b.gradient_norm::json),
    json_array_elements_text(b.samples_per_second::json)
) WITH ORDINALITY AS v(train_loss, learning_rate, gradient_norm, samples_per_second, position)
"""
