"""Small mini-batches against large ones, measured: the textbook's table with figures.

    python -m bench.batch_sizes [--seeds 5] [--epochs 32] [--sizes 4,16,64,256,1024] [--picture FILE.svg]

The same small convolutional network is trained on the handwritten digits at each batch size: AdamW, the same seeds, the
same number of epochs. Once everything else is alike, the learning rate included; once the learning rate grows with the
square root of the batch size, as is advised for Adam (Malladi et al. 2022, arXiv 2205.10287). A fifth of the samples is
held out and looked at once, after training; of the others a tenth is validated on.

- memory: what one process holds at its peak in a training epoch beyond what it held before the first iteration.
- seconds an epoch: the median of all epochs, validation included.
- epochs and seconds until the validation loss is first as low as `--target`.
- noise of mini-batches: how far their losses jump from one to the next in the later half of training, as a standard
  deviation in per cent of their mean.
- noise: as `GET /v1/metrics/compare` measures it, the deviation of the validation loss about its own trend.
- held-out accuracy: of the weights of the epoch that validated best.
- gap: validation loss less training loss in the last epoch.

Each figure is the mean over the seeds with the standard deviation over the seeds. Each batch size has a process of its
own, one after the other.
"""

import argparse
import math
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import torch

from epochd.contract.spec import JobSpec
from epochd.jobs.progression import Progression
from epochd.jobs.resolve import dataset_info, resolve
from epochd.training import device as devices
from epochd.training.data import Samples, TrainingData
from epochd.training.events import EpochCompleted, IterationsCompleted
from epochd.training.trainer import Trainer
from epochd.worker.prepare import prepare_data, training_config

sys.path.insert(0, str(Path(__file__).parent))  # as when it is started as a script
from accuracy import inner_split, predicted, score
from pictures.small_against_large import picture

DATASET: Final = "digits"
MODEL: Final[dict[str, Any]] = {"name": "cnn", "channels": [32, 64]}
LEARNING_RATE: Final = 0.001
SCALED_FROM: Final = 16
"""The batch size at which the scaled learning rate is that of the others."""
RESET_PEAK: Final = "5"
"""What proc_pid_clear_refs(5) takes to let the peak of resident memory begin anew."""


@dataclass(frozen=True)
class Run:
    """One training: figures, and its validation loss by epoch."""

    epoch_seconds: float
    epochs_to_target: int | None
    seconds_to_target: float | None
    jitter: float
    noise: float
    gap: float
    accuracy: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One batch size over all seeds."""

    batch_size: int
    iterations_per_epoch: int
    memory_bytes: int
    runs: tuple[Run, ...]

    def values(self, name: str) -> list[float]:
        """Give a figure of those runs that have it."""
        return [value for run in self.runs if (value := getattr(run, name)) is not None]

    def mean(self, name: str) -> float | None:
        """Give its mean, or None when a run has none: the mean of the others would flatter."""
        values = self.values(name)
        return statistics.mean(values) if len(values) == len(self.runs) else None

    def spread(self, name: str) -> float:
        """Give its standard deviation over the seeds."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--sizes", default="4,16,64,256,1024")
    parser.add_argument("--target", type=float, default=0.15)
    parser.add_argument("--picture", type=Path, help="Write the picture there, as SVG.")
    arguments = parser.parse_args()
    rows, scaled = [], []
    for size in map(int, arguments.sizes.split(",")):
        alike, adapted = in_own_process(size, arguments.epochs, arguments.target, arguments.seeds)
        rows.append(alike)
        scaled.append(adapted)
        print(f"batch size {size}: done", file=sys.stderr, flush=True)
    for title, part in (("The same learning rate", rows), ("The learning rate scaled", scaled)):
        print("\n".join([f"{title}:", "", *table(part, arguments.target), ""]))
    if arguments.picture is not None:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        arguments.picture.write_text(picture(rows, scaled), encoding="utf-8")


def in_own_process(*asked: Any) -> tuple[Row, Row]:
    """Measure a batch size where nothing was trained before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, asked)


def measure(batch_size: int, epochs: int, target: float, seeds: int) -> tuple[Row, Row]:
    """Train for each seed at both learning rates; the memory is that of a training of its own before."""
    devices.configure(1)
    memory, iterations = measured_memory(batch_size)

    def row(rate: float) -> Row:
        runs = (train(resolved(batch_size, epochs, seed, rate), target) for seed in range(seeds))
        return Row(batch_size, iterations, memory, tuple(runs))

    return row(LEARNING_RATE), row(LEARNING_RATE * math.sqrt(batch_size / SCALED_FROM))


def resolved(batch_size: int, epochs: int, seed: int, rate: float = LEARNING_RATE) -> JobSpec:
    """What a caller would send."""
    sent = {
        "dataset": DATASET,
        "model": MODEL,
        "optimizer": {"name": "adamw", "learning_rate": rate},
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    return resolve(JobSpec.model_validate(sent))


def measured_memory(batch_size: int) -> tuple[int, int]:
    """Give what two epochs take beyond what the process held before, and the iterations of one epoch."""
    spec = resolved(batch_size, 2, 0)
    trainer = trainer_of(spec)[0]
    Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
    before = psutil.Process().memory_info().rss
    ends = [event.iteration for event in trainer.run() if isinstance(event, EpochCompleted)]
    return peak_bytes() - before, ends[0]


def peak_bytes() -> int:
    """Give the most resident memory since the peak was reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def trainer_of(spec: JobSpec) -> tuple[Trainer, Samples]:
    """Give a trainer, and the samples that are held out."""
    data: TrainingData = prepare_data(spec).training
    assert isinstance(data.train, Samples)
    assert isinstance(data.validation, Samples)
    config = training_config(spec, dataset_info(spec), "cpu")
    return Trainer(config, inner_split(data.train, spec.seed)), data.validation


def train(spec: JobSpec, target: float) -> Run:
    """Train once, and look at the held-out samples at the end."""
    trainer, held_out = trainer_of(spec)
    seen = Progression("validation_loss", "min", target, spec.epochs)
    events = list(trainer.run())
    epochs = [event for event in events if isinstance(event, EpochCompleted)]
    losses = [event.train_loss for event in events if isinstance(event, IterationsCompleted)]
    for one in epochs:
        seen.take(one.epoch, one.iteration, one.seconds, one.metrics)
    trainer.final_selection()
    last, validated = epochs[-1].metrics, [one.metrics["validation_loss"] for one in epochs]
    return Run(
        epoch_seconds=statistics.median(one.seconds for one in epochs),
        epochs_to_target=seen.reached[0] if seen.reached else None,
        seconds_to_target=seen.reached[2] if seen.reached else None,
        jitter=jitter(np.concatenate(losses)),
        noise=seen.noise or 0.0,
        gap=(last["validation_loss"] or 0.0) - (last["train_loss"] or 0.0),
        accuracy=score(predicted(trainer, held_out), held_out),
        losses=tuple(loss for loss in validated if loss is not None),
    )


def jitter(losses: Any) -> float:
    """Give the deviation of mini-batch losses about their trend in the later half, in per cent of their mean."""
    later = losses[len(losses) // 2 :].astype(np.float64)
    deviation = math.sqrt(np.square(np.diff(later, 2)).mean() / 6)  # as Progression.noise
    return float(100 * deviation / later.mean())


def table(rows: Sequence[Row], target: float) -> list[str]:
    """Write the table in Markdown."""
    titles = [
        "batch size", "iterations an epoch", "memory", "seconds an epoch", f"epochs to {target}",
        f"seconds to {target}", "noise of mini-batches", "noise", "held-out accuracy", "gap",
    ]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + " ---: |" * len(titles)]
    return lines + ["| " + " | ".join(cells(row)) + " |" for row in rows]


def cells(row: Row) -> list[str]:
    return [
        str(row.batch_size),
        str(row.iterations_per_epoch),
        f"{row.memory_bytes / 1e6:.0f} MB",
        written(row, "epoch_seconds", ".3f"),
        written(row, "epochs_to_target", ".0f"),
        written(row, "seconds_to_target", ".2f"),
        f"{row.mean('jitter'):.0f} %",
        written(row, "noise", ".4f"),
        written(row, "accuracy", ".3f"),
        written(row, "gap", ".3f"),
    ]


def written(row: Row, name: str, form: str) -> str:
    mean = row.mean(name)
    return "not by all" if mean is None else f"{mean:{form}} ± {row.spread(name):{form}}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
