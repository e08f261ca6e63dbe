"""Iterations a second: this engine against the usual PyTorch loop and the least that PyTorch must do.

    python bench/throughput.py [--rounds 7] [--epochs 20] [--batch-sizes 32,64,256] [--threads N]

All variants train the same MLP (64-128-10, AdamW) from the same initial weights on the same digits-sized
data with the same batch size and validate once an epoch; they take turns, and the table shows medians over
the rounds. Start-up (imports, data placement, building the model, one warm-up training) is left out.

- recorded: the engine as a job runs it, every iteration, epoch and event committed to a SQLite file.
- engine: ``Trainer.run()`` alone; each loss, learning rate, gradient norm and rate, train accuracy, best weights,
  diagnosis.
- textbook: ``DataLoader``, ``zero_grad``, ``loss.item()`` and the learning rate into lists.
- lower bound: forward, backward and step over mini-batches sliced beforehand; nothing shuffled or recorded.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.submit import submit
from epochd.store import jobs, metrics
from epochd.store.database import Database
from epochd.store.migrate import upgrade
from epochd.training import device as devices
from epochd.training.config import ModelConfig, OptimizerConfig, TrainingConfig
from epochd.training.data import Samples
from epochd.training.trainer import Trainer, TrainingData
from epochd.worker.order import AttemptOrder
from epochd.worker.recorder import Recorder

FEATURES, CLASSES, TRAIN_SAMPLES, VALIDATION_SAMPLES = 64, 10, 1438, 359


@dataclass(frozen=True)
class Setting:
    """What every variant trains."""

    config: TrainingConfig
    data: TrainingData

    @property
    def iterations(self) -> int:
        return -(-TRAIN_SAMPLES // self.config.batch_size) * self.config.epochs


def make_setting(batch_size: int, epochs: int) -> Setting:
    random = np.random.default_rng(0)
    config = TrainingConfig(
        task="classification",
        model=ModelConfig("mlp", (FEATURES,), CLASSES, hidden_sizes=(128,)),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=0.01),
    )

    def samples(count: int) -> Samples:
        x = random.standard_normal((count, FEATURES), dtype=np.float32)
        return Samples(x, random.integers(0, CLASSES, count))

    return Setting(config, TrainingData(samples(TRAIN_SAMPLES), samples(VALIDATION_SAMPLES)))


def engine(setting: Setting) -> float:
    """Seconds that the engine takes, its events thrown away."""
    trainer = Trainer(setting.config, setting.data)
    started = time.perf_counter()
    with closing(trainer.run()) as events:
        for _ in events:
            pass
    return time.perf_counter() - started


def recorded(setting: Setting) -> float:
    """Seconds that the engine takes while a worker's recorder commits all that it yields to SQLite."""
    trainer = Trainer(setting.config, setting.data)
    with tempfile.TemporaryDirectory() as folder, closing(_database(folder)) as db:
        order = _order(db, setting)
        started = time.perf_counter()
        with Recorder(db, order, "cpu") as recorder, closing(trainer.run()) as events:
            for event in events:
                recorder.record(event)
        seconds = time.perf_counter() - started
        _check_complete(db, order, setting)
    return seconds


def _database(folder: str) -> Database:
    url = f"sqlite:///{folder}/bench.db"
    upgrade(url)
    return Database(url)


def _order(db: Database, setting: Setting) -> AttemptOrder:
    """Queue and claim a job, as a caller and a worker would."""
    config = setting.config
    body = {"dataset": "digits", "epochs": config.epochs, "batch_size": config.batch_size}
    submit(db, JobSpec.model_validate(body))
    taken = claim(db, worker="bench", device="cpu", lease_seconds=60)
    assert taken is not None
    return AttemptOrder.of(
        taken, database_url=db.url, artifacts_dir=Path(), lease_seconds=60, log_level="warning"
    )


def _check_complete(db: Database, order: AttemptOrder, setting: Setting) -> None:
    with db.read() as tx:
        job = jobs.get(tx, order.job_id)
        assert metrics.last_iteration(tx, job) == setting.iterations == job.iteration


def textbook(setting: Setting) -> float:
    """Seconds that the loop of the tutorials takes."""
    model, optimizer, loss_function = _plain(setting)
    train, validation = (
        TensorDataset(torch.from_numpy(samples.x), torch.from_numpy(samples.y))
        for samples in _splits(setting)
    )
    loader = DataLoader(train, batch_size=setting.config.batch_size, shuffle=True)
    validation_loader = DataLoader(validation, batch_size=len(validation))
    losses, learning_rates, validation_losses = [], [], []
    started = time.perf_counter()
    for _ in range(setting.config.epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            learning_rates.append(optimizer.param_groups[0]["lr"])
        model.eval()
        with torch.no_grad():
            for x, y in validation_loader:
                validation_losses.append(loss_function(model(x), y).item())
    return time.perf_counter() - started


def lower_bound(setting: Setting) -> float:
    """Seconds for forward, backward and step alone."""
    model, optimizer, loss_function = _plain(setting)
    (x, y), validation = (
        (torch.from_numpy(samples.x), torch.from_numpy(samples.y)) for samples in _splits(setting)
    )
    size = setting.config.batch_size
    mini_batches = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
    started = time.perf_counter()
    for _ in range(setting.config.epochs):
        for features, targets in mini_batches:
            optimizer.zero_grad()
            loss_function(model(features), targets).backward()
            optimizer.step()
        with torch.no_grad():
            loss_function(model(validation[0]), validation[1])
    return time.perf_counter() - started


def _splits(setting: Setting) -> Iterator[Samples]:
    assert setting.data.validation is not None
    yield from (setting.data.train, setting.data.validation)


def _plain(setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer, nn.Module]:
    """A model with the engine's initial weights, in tensors of its own, and torch's optimizer."""
    trained = Trainer(setting.config, setting.data)
    model = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, CLASSES))
    model.load_state_dict(trained.model.state_dict())
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01), nn.CrossEntropyLoss()


VARIANTS: dict[str, Callable[[Setting], float]] = {
    "recorded": recorded,
    "engine": engine,
    "textbook": textbook,
    "lower bound": lower_bound,
}
"""Each trains a setting once and gives the seconds that its loop took. A further variant is one more line."""


def measure(setting: Setting, rounds: int) -> dict[str, float]:
    """Median seconds of each variant; they take turns, so that a busy moment does not meet one alone."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_number in range(rounds + 1):
        for name, train in VARIANTS.items():
            took = train(setting)
            if round_number > 0:  # the first round warms up
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(setting: Setting, medians: dict[str, float]) -> None:
    for name, seconds in medians.items():
        microseconds = seconds / setting.iterations * 1e6
        rate = setting.config.epochs * TRAIN_SAMPLES / seconds
        against_textbook = medians["textbook"] / seconds
        against_bound = medians["lower bound"] / seconds
        print(
            f"{setting.config.batch_size:10d}  {name:24s}{microseconds:14.1f}{rate:14,.0f}"
            f"{against_textbook:14.2f}x{against_bound:16.2f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-sizes", default="32,64,256")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    devices.configure(arguments.threads)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {arguments.rounds} rounds\n"
    )
    print(
        f"{'batch size':>10s}  {'variant':24s}{'us/iteration':>14s}{'samples/s':>14s}"
        f"{'vs textbook':>15s}{'vs lower bound':>17s}"
    )
    for batch_size in map(int, arguments.batch_sizes.split(",")):
        setting = make_setting(batch_size, arguments.epochs)
        report(setting, measure(setting, arguments.rounds))


if __name__ == "__main__":
    main()
