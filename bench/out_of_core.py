"""Training on data that stays on the disk: how fast beside the same data in memory, and in how much memory.

    python bench/out_of_core.py [--gigabytes 0.5] [--rounds 3] [--threads N] [--resident MEGABYTES] [--folder /var/tmp]

A Parquet file of random numbers in 100 columns, so large, is taken in as an upload is, and a default `mlp` trains on
90% of it in mini-batches of 512, validating on the rest: once as a job does whose data exceed the memory that a job may
have, and once with all in memory. Each is a process of its own, and they take turns of one epoch, validation included;
the first epoch of each is not counted. Both must end with the same losses and weights, bit for bit.

- anonymous: memory that belongs to the process alone. Pages of mapped files are not part of it: the kernel drops them
  whenever it wants the memory. Sampled every 20 ms; the highest, less what the process had before it opened the data.
- mapped: the highest amount of the file's pages that were mapped at a time.
- --resident: drop the file's pages from memory while training, each time that more are mapped, as on a machine that
  has no more memory than that to spare: how it is when data are larger than memory, and every epoch comes from the
  disk.
"""

import argparse
import ctypes
import hashlib
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS, BATCH_SIZE, VALIDATION, SEED = 100, 512, 0.1, 0
ROWS_AT_ONCE = 250_000
MEMORY, DISK = "in memory", "from disk"
SAMPLED_SECONDS = 0.02
PAGE_OUT = 21
"""MADV_PAGEOUT, which ``mmap`` has no name for."""


@dataclass
class Peak:
    """The most memory that this process had since ``start``, in bytes."""

    start: int = 0
    anonymous: int = 0
    mapped: int = 0


@dataclass
class Epoch:
    """What one epoch took, in seconds of the wall and of CPU, and a digest of its losses."""

    wall: float
    cpu: float
    losses: str


@dataclass
class Measured:
    """The epochs of one variant, how it ended, and its memory."""

    epochs: list[Epoch] = field(default_factory=list)
    weights: str = ""
    peak: Peak = field(default_factory=Peak)


# The data


def write_parquet(path: Path, gigabytes: float) -> int:
    """Random numbers, and a class that depends on them; so many bytes as float32. Gives the number of rows."""
    import polars as pl  # noqa: PLC0415 - those that train go without it
    from polars.io.plugins import register_io_source  # noqa: PLC0415

    rows = int(gigabytes * 1e9 / 4 / COLUMNS)
    schema = pl.Schema({**{f"x{number}": pl.Float32() for number in range(COLUMNS)}, "label": pl.Int64()})

    def frames(*_: Any) -> Iterator[pl.DataFrame]:
        random = np.random.default_rng(SEED)
        weights = random.standard_normal(COLUMNS, dtype=np.float32)
        for start in range(0, rows, ROWS_AT_ONCE):
            x = random.standard_normal((min(ROWS_AT_ONCE, rows - start), COLUMNS), dtype=np.float32)
            columns = dict(
                zip(schema, [*np.ascontiguousarray(x.T), (x @ weights > 0).astype(np.int64)], strict=True)
            )
            yield pl.DataFrame(columns, schema=schema)

    lazy = register_io_source(frames, schema=schema)
    lazy.sink_parquet(path, compression="uncompressed", row_group_size=ROWS_AT_ONCE)
    return rows


def take_in(parquet: Path, folder: Path) -> None:
    """What a server does with an upload, in a process of its own as there."""
    from epochd.datasets.ingest import ingest  # noqa: PLC0415
    from epochd.datasets.reading import Limits, Options, Source  # noqa: PLC0415

    with sampled() as peak:
        seconds = time.perf_counter()
        ingest(Source(parquet, parquet.name), Options("bench", target=("label",)), Limits(), folder)
        print(json.dumps({"seconds": time.perf_counter() - seconds, "peak": asdict(peak)}))


# Memory


def memory() -> tuple[int, int]:
    """Bytes of this process that no file backs, and those that one does."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


@contextmanager
def sampled(
    arrays: "list[np.memmap[Any, Any]] | None" = None, resident: float | None = None
) -> Iterator[Peak]:
    """Watch this process's memory; drop the pages of ``arrays`` whenever more than ``resident`` bytes are mapped."""
    ended, start = threading.Event(), memory()[0]
    peak = Peak(start, start)
    base = memory()[1]

    def watch() -> None:
        while not ended.wait(SAMPLED_SECONDS):
            anonymous, mapped = memory()
            peak.anonymous = max(peak.anonymous, anonymous)
            peak.mapped = max(peak.mapped, mapped - base)
            if resident is not None and mapped - base > resident:
                drop(arrays or [])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def drop(arrays: "list[np.memmap[Any, Any]]", how: int = PAGE_OUT) -> None:
    """Have the kernel drop mapped pages; they are read from the disk when they are touched again.

    With MADV_DONTNEED this process gives them up, and they may stay in memory.
    """
    # Not mmap.madvise: that keeps the interpreter to itself for as long as it takes.
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    for array in arrays:
        begin = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        length = array.ctypes.data + array.nbytes - begin
        if madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), how):
            raise OSError(ctypes.get_errno(), "madvise")


# Training, in a process of its own


def train(folder: Path, variant: str, threads: int | None, resident: float | None) -> None:
    """Train an epoch for each line that comes in, and tell about it; about everything when no more come."""
    from epochd.datasets.mapped import read_at_random  # noqa: PLC0415
    from epochd.datasets.stored import open_stored  # noqa: PLC0415
    from epochd.training import device as devices  # noqa: PLC0415

    devices.configure(threads)
    raw = open_stored(folder)
    maps = [array for array in raw.parts.values() if isinstance(array, np.memmap)]
    if variant == DISK:
        read_at_random(raw, None if resident is None else int(resident))
    if resident is not None:
        drop(maps)
    with sampled(maps, resident) as peak:
        trainer = make_trainer(raw, variant)
        if variant == MEMORY:  # it needs the file no more; pages that it maps could not be dropped by anyone
            drop(maps, mmap.MADV_DONTNEED)
        for epoch in epochs(trainer):
            print(json.dumps(asdict(epoch)), flush=True)
        print(json.dumps({"weights": digest(trainer), "peak": asdict(peak)}), flush=True)


def make_trainer(raw: Any, variant: str) -> Any:
    """Split and preprocess as a job does, and keep the samples where the variant does."""
    from epochd.datasets.encoding import encoded  # noqa: PLC0415
    from epochd.datasets.preprocessing import Preprocessing  # noqa: PLC0415
    from epochd.training.config import DataShape, ModelConfig, TrainingConfig  # noqa: PLC0415
    from epochd.training.data import DiskSamples, Samples, TrainingData, split_indices  # noqa: PLC0415
    from epochd.training.trainer import Trainer  # noqa: PLC0415

    splits = split_indices(np.asarray(raw.y), "classification", VALIDATION, SEED)
    preprocessing = Preprocessing.fit(raw, splits[0], encoded(raw.info, "one_hot"))
    reading = preprocessing.reading(raw)

    def samples(rows: Any) -> DiskSamples | Samples:
        y = np.asarray(raw.y)[rows]
        if variant == MEMORY:
            return Samples(reading.apply(rows), y)
        return DiskSamples(lambda indices: reading.apply(rows[indices]), y, preprocessing.input_shape)

    shape = DataShape("table", preprocessing.input_shape, raw.info.outputs)
    config = TrainingConfig("classification", ModelConfig("mlp", shape), epochs=10**6, batch_size=BATCH_SIZE)
    train, validation = (samples(rows) for rows in splits)
    return Trainer(config, TrainingData(train, validation))


def epochs(trainer: Any) -> Iterator[Epoch]:
    """An epoch for each line that comes in."""
    from epochd.training.events import EpochCompleted, IterationsCompleted  # noqa: PLC0415

    events, losses = trainer.run(), hashlib.sha256()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for event in events:
            if isinstance(event, IterationsCompleted):
                losses.update(event.train_loss.tobytes())
            elif isinstance(event, EpochCompleted):
                losses.update(json.dumps(event.metrics).encode())
                break
        yield Epoch(time.perf_counter() - wall, time.process_time() - cpu, losses.hexdigest())
    events.close()


def digest(trainer: Any) -> str:
    """SHA-256 of the weights, in hex."""
    tensors = trainer.model.state_dict().values()
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


# Taking turns


class Child:
    """A process that trains one variant when it is told to."""

    def __init__(self, variant: str, arguments: list[str]) -> None:
        command = [sys.executable, __file__, "--child", variant, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.measured = Measured()

    def epoch(self) -> None:
        """Train one."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.measured.epochs.append(Epoch(**self._answer()))

    def end(self) -> Measured:
        """Have it end, and tell how."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        ending = self._answer()
        self.measured.weights, self.measured.peak = ending["weights"], Peak(**ending["peak"])
        self._process.wait()
        return self.measured

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A process of the benchmark ended before its time.")
        return json.loads(line)


def measure(folder: Path, rounds: int, arguments: list[str]) -> dict[str, Measured]:
    """Both variants, taking turns."""
    children = {variant: Child(variant, ["--folder", str(folder), *arguments]) for variant in (MEMORY, DISK)}
    for _ in range(rounds + 1):
        for child in children.values():
            child.epoch()
    return {variant: child.end() for variant, child in children.items()}


def report(found: dict[str, Measured], rows: int, gigabytes: float) -> None:
    """Print the table."""
    print(f"  {'':12s}{'samples/s':>12s}{'CPU us/sample':>15s}{'anonymous MB':>14s}{'mapped MB':>11s}")
    for variant, measured in found.items():
        counted, peak = measured.epochs[1:], measured.peak
        speed = rows / statistics.median(epoch.wall for epoch in counted)
        cpu = statistics.median(epoch.cpu for epoch in counted) / rows * 1e6
        anonymous, mapped = (peak.anonymous - peak.start) / 1e6, peak.mapped / 1e6
        print(f"  {variant:12s}{speed:12,.0f}{cpu:15.2f}{anonymous:14,.0f}{mapped:11,.0f}")
    turns = list(zip(found[MEMORY].epochs[1:], found[DISK].epochs[1:], strict=True))
    walls = [disk.wall / held.wall for held, disk in turns]
    cpus = [disk.cpu / held.cpu for held, disk in turns]
    print(f"  an epoch from disk takes {statistics.median(walls):.2f} times as long as in memory", end=" ")
    print(f"({min(walls):.2f} to {max(walls):.2f}), and {statistics.median(cpus):.2f} times the CPU")
    same = all(
        held.losses == disk.losses for held, disk in zip(*(one.epochs for one in found.values()), strict=True)
    )
    same = same and found[MEMORY].weights == found[DISK].weights
    print(
        f"  losses, metrics and weights: {'the same, bit for bit' if same else 'DIFFERENT'}; {gigabytes} GB"
    )


def in_folder(folder: Path, options: argparse.Namespace) -> None:
    """Make the data there, and measure."""
    seconds = time.perf_counter()
    rows = write_parquet(folder / "data.parquet", options.gigabytes)
    size = (folder / "data.parquet").stat().st_size / 1e9
    print(f"{rows:,} rows, {size:.2f} GB of Parquet, written in {time.perf_counter() - seconds:.0f} s")
    stored = folder / "stored"
    stored.mkdir()
    command = [sys.executable, __file__, "--child", "take in", "--folder", str(folder)]
    taken = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    anonymous = (taken["peak"]["anonymous"] - taken["peak"]["start"]) / 1e6
    print(f"taken in: {size * 1e3 / taken['seconds']:,.0f} MB/s, {anonymous:,.0f} MB anonymous")
    (folder / "data.parquet").unlink()
    arguments = [] if options.threads is None else ["--threads", str(options.threads)]
    report(measure(stored, options.rounds, arguments), rows, options.gigabytes)
    if options.resident is not None:
        print(f"\nNo more than {options.resident:,.0f} MB of the file in memory:")
        report(measure(stored, 1, [*arguments, "--resident", str(options.resident)]), rows, options.gigabytes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of the samples as float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--resident", type=float, help="megabytes of the file to leave in memory, in a second table"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where a temporary folder is made; it goes at the end"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "take in":
        take_in(options.folder / "data.parquet", options.folder / "stored")
    elif options.child is not None:
        resident = options.resident * 1e6 if options.resident is not None and options.child == DISK else None
        train(options.folder, options.child, options.threads, resident)
    else:
        print(f"{os.cpu_count()} CPUs")
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            in_folder(Path(folder), options)


if __name__ == "__main__":
    main()
