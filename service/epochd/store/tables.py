"""The tables, as the code sees them. ``migrations/`` makes them; a test holds the two together.

Who writes what:

- ``jobs``: the API inserts, amends, asks for a pause or for cancellation, and moves jobs that nobody holds; the
  worker that holds the attempt does the rest.
- ``attempts``: inserted by a claim, renewed by the runner, ended by the worker or by the reaper.
- ``iteration_blocks``, ``epoch_metrics``: the runner's recorder, fenced by its attempt.
- ``attempts.archive``: the worker that moved the iterations into a file; it removes their blocks afterwards.
- ``events``: whoever changes the state of a job, in the same transaction.
- ``artifacts``: the worker, in the transaction that ends the attempt.
- ``iteration_levels``: the recorder as well, each row once, when all its iterations are recorded.
- ``amendments``: the API inserts; the recorder notes when each took effect.
- ``mirrors``: the process that mirrors a job to another tool.
- ``counters``: whoever ends an attempt.
- ``directories``: ``epochd serve``, when it starts.
- ``workers``: each worker its own row; ``models``: each worker those that it has.
- ``measurements``: the API inserts; the worker that takes one does the rest, fenced by ``taken``.
- ``datasets``: the API, when an upload is complete. ``job_datasets``: the API, with the job.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    desc,
)

from epochd.store.types import Json, JsonText, UtcTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
BLOCK_ITERATIONS = 1024
"""Iterations in one aligned block: block b holds iterations b*1024+1 … (b+1)*1024."""

metadata = MetaData(naming_convention=NAMING)

BigKey = BigInteger().with_variant(Integer, "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("number", BigKey, primary_key=True, autoincrement=True),  # age, and the order of lists
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text),
    Column("status", Text, nullable=False),
    Column("stop_reason", Text),
    Column("spec", Json, nullable=False),  # resolved: every default filled in
    Column("plan", Json, nullable=False),
    Column("advice", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("request_digest", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),  # number of the newest attempt
    Column("version", BigInteger, nullable=False, server_default="0"),  # grows with every change
    Column("last_event", BigInteger, nullable=False, server_default="0"),  # seq of the newest event
    # What the recorder last wrote. Polling reads this row alone.
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("iteration", BigInteger, nullable=False, server_default="0"),
    Column("progress", Json),
    Column("metrics", Json),
    Column("early_stopping", Json),
    Column("diagnosis", Json),
    Column("selected_checkpoint", Json),
    Column("error", Json),
    Column("worker", Text),
    Column("device", Text),
    Column("available_at", UtcTime, nullable=False),  # not claimed before: the back-off of a retry
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),  # of the first attempt
    Column("finished_at", UtcTime),
    Column("cancel_requested_at", UtcTime),
    Column("cancel_keep", Text),
    Column("cancel_grace_seconds", Float),
    Column("pause_requested_at", UtcTime),  # of a running job only
    Column("initial_spec", Json),  # what training began with; null: the spec, which nothing has amended since
    Column(
        "amendments", Integer, nullable=False, server_default="0"
    ),  # asked for so far: number of the newest
    Column("recorded_at", UtcTime),  # when the running attempt last recorded its progress
    Column(
        "retried_after", Integer, nullable=False, server_default="0"
    ),  # attempts up to here: failures forgiven
    Column("restarted_after", Integer, nullable=False, server_default="0"),  # … and here: not resumed from
    Column("requires", Text),  # the operator's model it trains; null: any worker can
    Column("starts_from", Text),  # id of the job whose weights it begins with
    # The order in which jobs are claimed; with available_at it also tells, unread rows aside, how many there are.
    Index("ix_jobs_claim", "status", desc("priority"), "number", "available_at"),
    Index(None, "name"),
    Index(None, "starts_from"),
    sqlite_autoincrement=True,  # a number never comes again, not even that of a deleted job
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigKey, primary_key=True, autoincrement=True),
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # 1, 2, 3, … within the job
    Column("worker", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("claimed_at", UtcTime, nullable=False),
    Column("lease_expires_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),  # null: running; whoever sets it owns the end of the attempt
    Column("outcome", Text),  # succeeded, failed, cancelled, paused, released, lost
    # Recorded are first_iteration … last_iteration; nothing yet while last_iteration is smaller.
    Column("first_iteration", BigInteger, nullable=False, server_default="1"),
    Column("last_iteration", BigInteger, nullable=False, server_default="0"),
    Column("error", Json),
    Column("restored", Json),  # {"epoch", "iteration", "attempt", "saved_at", "skipped"}; null: nothing there
    Column("writes", BigInteger, nullable=False, server_default="0"),  # number of the recorder's newest write
    Column(
        "archive", Text
    ),  # the Parquet file its iterations were moved to, relative to the artifacts directory
    UniqueConstraint("job_number", "number"),
    Index(None, "finished_at", "lease_expires_at"),
    sqlite_autoincrement=True,
)

iteration_blocks = Table(
    "iteration_blocks",
    metadata,
    Column("attempt_id", ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    Column("block", BigInteger, primary_key=True),
    # The first value's iteration: the block's first, except in the block in which a resumed attempt began.
    Column("first_iteration", BigInteger, nullable=False),
    Column("iterations", Integer, nullable=False),  # recorded so far in this block, 1 … 1024
    Column("iterations_per_epoch", BigInteger, nullable=False),
    # Each column is the text of a JSON array with one number (or null) an iteration: written once by the
    # recorder, spliced unread into answers, and open to json_each() at any SQL prompt.
    Column("train_loss", Text, nullable=False),
    Column("learning_rate", Text, nullable=False),
    Column("gradient_norm", Text, nullable=False),
    Column("samples_per_second", Text, nullable=False),
    # Earlier versions wrote extremes and means here, which nobody reads: the levels have them, and for any width.
    # Empty since then, and still there, because SQLite would write a whole database anew to be rid of it.
    Column("summary", Json, nullable=False, default={}),
)

iteration_levels = Table(
    "iteration_levels",
    metadata,
    Column("attempt_id", ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    Column("level", Integer, primary_key=True, autoincrement=False),
    # Row p of a level covers an aligned span of iterations, all of which the attempt has recorded.
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),  # levels.py knows how to read it
)

epoch_metrics = Table(
    "epoch_metrics",
    metadata,
    Column("attempt_id", ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("iteration", BigInteger, nullable=False),  # last iteration of the epoch
    Column("metrics", Json, nullable=False),
    Column("learning_rate", Float(53), nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("is_best", Boolean, nullable=False),  # none was better so far; the newest such one is the best
)

events = Table(
    "events",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False),
    # The attempt, and its last recorded iteration, when it happened: a stream knows by them which iterations
    # precede the event.
    Column("attempt", Integer, nullable=False),
    Column("iteration", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("data", Json, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("path", Text, nullable=False),  # relative to the artifacts directory
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

amendments = Table(
    "amendments",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, … within the job
    Column("field", Text, nullable=False),  # learning_rate, epochs, early_stopping
    Column("value", JsonText),  # the field's new value, which may be null
    Column("requested_at", UtcTime, nullable=False),
    # The newest completed ones when it took effect. A resumed attempt applies it there again.
    Column("epoch", Integer),
    Column("iteration", BigInteger),
    Column("applied_at", UtcTime),  # null: it has not taken effect
)

mirrors = Table(
    "mirrors",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("target", Text, primary_key=True),  # tensorboard, mlflow
    Column("run", Text),  # what the target calls it; null: nothing was sent yet
    # Sent so far, since the retry from scratch that ``restarted_after`` is of: iterations and epochs up to here.
    Column("restarted_after", Integer, nullable=False, server_default="0"),
    Column("iteration", BigInteger, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),  # the newest whose curve that is
    Column(
        "moment", Float, nullable=False, server_default="0"
    ),  # given to that iteration: seconds since 1970
    Column("version", BigInteger, nullable=False, server_default="-1"),  # of the job, when all of it was sent
    Column("holder", Text),  # who sends it now
    Column("lease_expires_at", UtcTime),
)

directories = Table(
    "directories",
    metadata,
    Column("name", Text, primary_key=True),  # artifacts
    Column("mark", Text, nullable=False),  # what is in its file .epochd
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),  # never smaller than before, whatever is deleted
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("devices", Json, nullable=False),
    Column("models", Json),  # names of the operator's models that it has
    Column("memory", Json),  # of each device, as last seen: {"cuda:0": {"used": bytes, "total": bytes}}
    Column("slots", Integer, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("number", BigKey, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),  # of the arrays that it was unpacked to: sha256:…
    Column(
        "folder", Text, nullable=False
    ),  # where they are, below the data sets' directory; several may share it
    Column("bytes", BigInteger, nullable=False),  # what they take on disk
    Column("info", Json, nullable=False),  # datasets.catalogue.DatasetInfo
    Column("source", Json, nullable=False),  # what came: its format, bytes, digest, file name or address
    Column("preview", Json, nullable=False),
    Column("notes", Json, nullable=False),  # what was inferred, and what its owner should know
    Column("idempotency_key", Text, unique=True),
    Column("request_digest", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "folder"),
    sqlite_autoincrement=True,
)

job_datasets = Table(
    "job_datasets",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("dataset_number", ForeignKey("datasets.number", ondelete="CASCADE"), primary_key=True),
    Index(None, "dataset_number"),
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Json, nullable=False),  # parameters' JSON schema, tasks, inputs, package, version
    Column("published_at", UtcTime, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("number", BigKey, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),  # queued, running, succeeded, failed
    Column("spec", Json, nullable=False),  # resolved, as of a job; its epochs and batch size mean nothing
    Column("train_samples", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),  # to measure for
    Column("requires", Text),  # the operator's model it trains; null: any worker can
    Column("sizes", Json, nullable=False),  # training.batch_size_choice.BatchSizeMeasured, ascending
    Column("noise_scale", Json),  # training.batch_size_choice.NoiseScale
    Column("error", Json),
    Column("worker", Text),
    Column("device", Text),
    Column("taken", Integer, nullable=False),  # how often a worker has begun it
    Column("lease_expires_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Index(None, "status"),
    sqlite_autoincrement=True,
)
