"""Iterations a second: this engine against the usual ways to train with PyTorch, and the least that a step takes.

    python bench/engine.py [--quick] [--threads N] [--rounds 5] [--seconds 1.5] [--cpu-time]
                           [--only digits,table,images,batches]

Every variant trains the same model from the same initial weights on the same samples in the same order, with AdamW,
and keeps every iteration's loss; the losses are compared, and a variant whose first ones are not the engine's is
marked. The variants take turns, and the table shows medians over the rounds. Not timed: imports, making the model
and the data, and a first run of each that warms up and tells how many iterations fill ``--seconds``. No validation.

- epochd, as a job: the engine with all that a running job does beside: every iteration, epoch and event committed to a
  SQLite file, and checkpoints.
- epochd, engine: ``Trainer.run()`` alone.
- PyTorch, textbook: ``DataLoader``, ``zero_grad``, ``backward``, ``step``, ``loss.item()``.
- Lightning, Hugging Face Trainer, skorch: without logger, progress bar, checkpoints and printed log. Those that are
  not installed are left out: pip install -c constraints.txt -e '.[bench]'
- PyTorch, bare step: forward, backward and update on one fixed mini-batch, with the fused optimizer and images
  channels-last; no data, nothing recorded.
"""

import argparse
import statistics
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from peers import ours, plain
from peers.workload import Run, Train, Workload, batch_sizes, clock, workloads

from epochd.training import device as devices

JOB, ENGINE, TEXTBOOK, BARE = "epochd, as a job", "epochd, engine", "PyTorch, textbook", "PyTorch, bare step"
PEERS = {
    "Lightning": ("lightning", "peers.lightning_loop"),
    "Hugging Face Trainer": ("transformers", "peers.huggingface"),
    "skorch": ("skorch", "peers.skorch_net"),
}
OWN: dict[str, Train] = {JOB: ours.job, ENGINE: ours.engine, TEXTBOOK: plain.textbook, BARE: plain.bare}
WARM_UP_ITERATIONS = 60
COMPARED_LOSSES = 20


def variants() -> dict[str, Train]:
    """All that are installed, in the order of the table."""
    found = dict(OWN)
    bare = found.pop(BARE)
    for name, (package, module) in PEERS.items():
        if find_spec(package) is None:
            print(f"{name} is left out: the package {package} is not installed.")
        else:
            found[name] = import_module(module).train
    return found | {BARE: bare}


def lengths(workload: Workload, trains: dict[str, Train], seconds: float) -> dict[str, int]:
    """How many iterations of each variant take about so long."""
    found = {}
    for name, train in trains.items():
        train(workload, 3)
        run = train(workload, WARM_UP_ITERATIONS if seconds > 0.5 else WARM_UP_ITERATIONS // 3)
        found[name] = max(round(seconds * run.iterations / run.seconds), COMPARED_LOSSES)
    return found


def measure(
    workload: Workload, trains: dict[str, Train], rounds: int, seconds: float
) -> dict[str, list[Run]]:
    """The runs of each variant; they take turns, so that a busy moment does not meet one alone."""
    iterations = lengths(workload, trains, seconds)
    runs: dict[str, list[Run]] = {name: [] for name in trains}
    for _ in range(rounds):
        for name, train in trains.items():
            runs[name].append(train(workload, iterations[name]))
    return runs


def has_engine_order(losses: list[float], reference: list[float]) -> bool:
    """Whether the first losses are the engine's, within what rounding makes of them in so many iterations."""
    return not losses or np.allclose(losses[:COMPARED_LOSSES], reference[:COMPARED_LOSSES], rtol=1e-3)


def report(workload: Workload, runs: dict[str, list[Run]]) -> None:
    """Print the table of a workload: medians of times, and of the ratios round by round."""
    times = {name: [run.seconds / run.iterations for run in found] for name, found in runs.items()}
    against = [name for name in (TEXTBOOK, "Lightning", BARE) if name in runs]
    heads = "".join(f"{'÷ ' + name.removeprefix('PyTorch, '):>13s}" for name in against)
    print(f"\n{workload.name}, batch size {workload.batch_size}")
    print(f"  {'':24s}{'us/iteration':>14s}{'samples/s':>13s}{heads}")
    for name, own in times.items():
        ratios = (statistics.median(b / a for a, b in zip(own, times[base], strict=True)) for base in against)
        columns = "".join(f"{ratio:12.2f}x" for ratio in ratios)
        median = statistics.median(own)
        mark = "" if has_engine_order(runs[name][0].losses, runs[ENGINE][0].losses) else "  other losses"
        print(f"  {name:24s}{median * 1e6:14.1f}{workload.batch_size / median:13,.0f}{columns}{mark}")
    cost = statistics.median(1 - a / b for a, b in zip(times[ENGINE], times[JOB], strict=True))
    print(f"  recording and checkpoints cost {cost:.1%} of the engine's throughput")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three rounds of 0.3 seconds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of one run of one variant")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="digits,table,images,batches")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU seconds of all threads instead of the wall's: for a busy machine",
    )
    arguments = parser.parse_args()
    clock.of_cpu = arguments.cpu_time
    devices.configure(arguments.threads)
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    seconds = arguments.seconds or (0.3 if arguments.quick else 1.5)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {rounds} rounds")
    trains = variants()
    wanted = arguments.only.split(",")
    for name, workload in workloads().items():
        if name in wanted:
            report(workload, measure(workload, trains, rounds, seconds))
    if "batches" in wanted:
        for workload in batch_sizes():
            report(workload, measure(workload, OWN, rounds, seconds))


if __name__ == "__main__":
    main()
