"""What a job leaves behind, as far as it is determined by its spec, and how it comes out undisturbed."""

import math
import shutil
import time

import orjson
from safetensors.torch import load_file

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.jobs.resolve import resolve
from epochd.jobs.submit import submit
from epochd.settings import Settings
from epochd.store import artifacts, events, jobs, metrics, migrate
from epochd.store.database import Database
from epochd.training.events import EpochCompleted
from epochd.training.trainer import Trainer
from epochd.worker.order import AttemptOrder, Folders
from epochd.worker.prepare import prepare_data, training_config
from epochd.worker.runner import run_attempt

TRAINING = {
    "dataset": "digits",
    "epochs": 10,
    "batch_size": 16,
    "model": {"name": "mlp", "hidden_sizes": [64], "dropout": 0.2, "batch_norm": True},
    "schedule": {
        "name": "reduce_on_plateau", "patience": 3, "factor": 0.7, "min_learning_rate": 1e-5, "warmup_iterations": 100,
    },
    "early_stopping": {"patience": 100_000},
    "drop_last": True,
    "max_attempts": 10,
}  # fmt: skip
"""Stateful in every way."""
LASTS_SECONDS = 6.0

MEASURED = {"seconds", "samples_per_second"}
ANNOUNCED = {"epoch.completed", "early_stopping.updated", "diagnosis.changed"}


def outcome_of(database, data_dir, row):
    """All that the service tells of a finished job, but for times."""
    with database.read() as tx:
        columns = orjson.loads(metrics.iterations_json(tx, row, limit=1_000_000))["columns"]
        epochs, _ = metrics.epochs(tx, row, limit=1_000_000)
        log = events.after(tx, row.number, 0, 1_000_000)
        files = {file.name: data_dir / "artifacts" / file.path for file in artifacts.of_job(tx, row.number)}
    announced = [
        (event.type, event.iteration, _determined(event.data)) for event in log if event.type in ANNOUNCED
    ]
    return {
        "iterations": _determined(columns),
        "epochs": [
            {
                "epoch": one.epoch,
                "iteration": one.iteration,
                "metrics": one.metrics,
                "learning_rate": one.learning_rate,
                "is_best": one.is_best,
            }
            for one in epochs
        ],
        "announced": announced,
        "stop_reason": row.stop_reason,
        "selected": row.selected_checkpoint,
        "shown": (row.epoch, row.iteration, row.metrics, row.early_stopping, row.diagnosis),
        "weights": {
            name: tensor.tolist()
            for name, tensor in (
                load_file(files["model.safetensors"]) if "model.safetensors" in files else {}
            ).items()
        },
    }


def _determined(values):
    return {name: value for name, value in values.items() if name not in MEASURED}


def long_training():
    """Give TRAINING as many epochs as take this machine a few seconds: time to be disturbed."""
    spec = resolve(JobSpec.model_validate(TRAINING))
    data = prepare_data(spec)
    trainer = Trainer(training_config(spec, data.info, "cpu"), data.training)
    ends = [time.process_time() for event in trainer.run() if isinstance(event, EpochCompleted)]
    # From the third epoch on: the first ones load what is loaded once.
    seconds = (ends[-1] - ends[1]) / (len(ends) - 2)
    return {**TRAINING, "epochs": math.ceil(LASTS_SECONDS / seconds)}


def train_alone(folder, spec, change=lambda order: order):
    """Train a job in this process, undisturbed, on a database of its own; return what it left behind."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'twin.db'}"
    migrate.upgrade(url)
    database = Database(url)
    row = submit(database, JobSpec.model_validate(spec)).row
    taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
    folders = Folders.of(Settings(data_dir=folder))
    order = change(AttemptOrder.of(taken, database_url=url, folders=folders, lease_seconds=60))
    complete(database, taken.attempt_id, run_attempt(order), retry_delay_seconds=0)
    with database.read() as tx:
        row = jobs.get(tx, row.id)
    result = outcome_of(database, folder, row)
    database.close()
    shutil.rmtree(folder)
    return result
