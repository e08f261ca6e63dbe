"""How batch sizes do on this device: memory and speed by real iterations, and the gradient noise scale."""

import gc
import math
import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from epochd.errors import OutOfMemoryError
from epochd.training import device as devices
from epochd.training.allocator import give_freed_memory_back
from epochd.training.architecture import needs_two_samples
from epochd.training.batch_size_choice import BatchSizeMeasured, NoiseScale, candidates
from epochd.training.config import OptimizerConfig, TrainingConfig
from epochd.training.data import MiniBatch, TrainingData
from epochd.training.learner import CONVOLUTIONAL, Learner
from epochd.training.memory_peak import MemoryPeak
from epochd.training.noise_scale import FEWEST, estimate
from epochd.training.streaming import on_device

WARM_UP = 2
"""Iterations before the first that is timed: they allocate the memory and choose the kernels."""
BLOCK_SECONDS = 0.01
"""About how long the blocks of iterations are that are timed together: a clock read costs nothing beside it."""
BLOCKS = 30
"""After so many blocks a median says enough."""
NOISE_SHARE = 0.3
"""The part of the time that is kept for the noise scale."""
NOISE_WARM_UP = 100
"""Iterations of training before the noise scale is measured: that of the initial weights is far smaller than later."""
NOISE_WARM_UP_BATCH = 64
SMALL_BATCH, SMALL_BATCHES = 16, 16
"""Samples in the small batches, and how many small ones make up a big one."""
MEASUREMENTS = 64
"""Pairs of a small and a big batch at most."""


def measure(
    config: TrainingConfig, data: TrainingData, *, available_bytes: int | None, seconds: float
) -> Generator[BatchSizeMeasured | NoiseScale]:
    """Measure the powers of two from 1 up to the training samples, ascending, then the noise scale.

    Each size trains a new model by the configuration's own optimizer, precision and augmentation on full
    mini-batches; ``config.batch_size`` is not read. A size is yielded as soon as it is known, and nothing of it is held
    meanwhile. The first that lacks memory is the last: it raised an error, or was not run since by the growth between
    the two before it, it would take more than ``available_bytes`` (counted as ``peak_memory_bytes``; None: no limit).
    Later sizes are left out, too, once ``seconds`` are up, which only a single iteration can overrun; without time or
    memory for the noise scale there is none.

    The caller's random state and threads are as before at each yield. Raises what making a Learner raises, but for
    memory.
    """
    started = time.perf_counter()
    sizes_end = started + seconds * (1 - NOISE_SHARE)
    found: list[BatchSizeMeasured] = []
    release_memory()
    for size in candidates(len(data.train), 2 if needs_two_samples(config.model) else 1):
        if found and _next_seconds(found[-1]) > sizes_end - time.perf_counter():
            break
        reason = _too_large(found, size, available_bytes)
        one = (
            BatchSizeMeasured(size, fits=False, reason=reason)
            if reason
            else _tried(config, data, size, sizes_end)
        )
        yield one
        if not one.fits:
            break
        found.append(one)
    if found:
        noise = _noise(config, data, started + seconds, found[-1].batch_size)
        if noise is not None:
            yield noise


def _next_seconds(last: BatchSizeMeasured) -> float:
    """How long the next size will take at least: twice as many samples, in a warm-up and one timed iteration."""
    return (
        0.0 if not last.samples_per_second else (WARM_UP + 1) * 2 * last.batch_size / last.samples_per_second
    )


def _too_large(found: list[BatchSizeMeasured], size: int, available_bytes: int | None) -> str | None:
    """Why a size is not worth a try: memory is a constant and so much for each sample."""
    peaks = [(one.batch_size, one.peak_memory_bytes) for one in found if one.peak_memory_bytes is not None]
    if available_bytes is None or not peaks:
        return None
    last_size, last = peaks[-1]
    before_size, before = peaks[-2] if len(peaks) > 1 else (0, last)
    expected = last + max(last - before, 0) * (size - last_size) // (last_size - before_size)
    if expected <= available_bytes:
        return None
    return (
        f"it would take about {expected / 2**20:.0f} MiB, by what {last_size} took; "
        f"{available_bytes / 2**20:.0f} MiB are available."
    )


def _tried(config: TrainingConfig, data: TrainingData, size: int, end: float) -> BatchSizeMeasured:
    """Train at one size, for a fair part of the time until ``end``."""
    # One share more than sizes: making models and giving memory back takes time beside the iterations.
    left = max(len(data.train).bit_length() - size.bit_length() + 1, 1) + 1
    now = time.perf_counter()
    try:
        return _timed(_sized(config, size), data, now + max(end - now, 0.0) / left)
    except OutOfMemoryError as error:
        reason = str(error)
    finally:
        release_memory()
    return BatchSizeMeasured(size, fits=False, reason=reason)


def _sized(config: TrainingConfig, size: int) -> TrainingConfig:
    return replace(config, batch_size=size, drop_last=True)


def _timed(config: TrainingConfig, data: TrainingData, end: float) -> BatchSizeMeasured:
    size = config.batch_size
    peak = MemoryPeak(devices.resolve_device(config.device))
    learner = Learner(config, replace(data, validation=None))
    with _Iterations(learner, config) as iterations:
        iterations.run(WARM_UP)
        length, speeds = 1, [1 / iterations.run(1)]
        while time.perf_counter() < end and len(speeds) <= BLOCKS:
            length = max(min(round(BLOCK_SECONDS * statistics.median(speeds)), 1000), 1)
            speeds.append(length / iterations.run(length))
    samples_per_second = size * statistics.median(speeds[1:] or speeds)
    samples = len(data.train) // size * size
    return BatchSizeMeasured(
        size, True, peak.bytes(), samples_per_second, samples / samples_per_second, iterations.count - WARM_UP
    )


class _Iterations:
    """Iterations of a training, as its Trainer runs them, one epoch after the other. Within ``with`` alone."""

    def __init__(self, learner: Learner, config: TrainingConfig) -> None:
        self.count = 0
        self._learner, self._rate = learner, config.optimizer.learning_rate
        self._slots = torch.zeros(2, device=learner.device)
        self._mini_batches = self._endless()
        self._threads = devices.threads(learner.threads)

    def __enter__(self) -> Self:
        self._threads.__enter__()
        self._learner.swap_randomness()
        self._learner.model.train()
        return self

    def __exit__(self, *_: object) -> None:
        self._mini_batches.close()
        self._learner.swap_randomness()
        self._threads.__exit__(None, None, None)

    def _endless(self) -> Generator[MiniBatch]:
        epoch = 0
        while True:
            epoch += 1
            self._learner.begin_epoch(epoch)
            with closing(self._learner.mini_batches.chunks(epoch)) as chunks:
                for chunk in chunks:
                    yield from chunk.mini_batches

    def run(self, count: int) -> float:
        """Train on so many mini-batches; gives the seconds, what the device had still to do included."""
        augmentation = self._learner.augmentation
        started = time.perf_counter()
        with devices.memory_errors():
            for _ in range(count):
                x, y = next(self._mini_batches)
                self.count += 1
                inputs = x if augmentation is None else augmentation(x, 1, self.count)
                self._learner.update(inputs, y, self._rate, self._slots[0], self._slots[1])
                _require_whole(self._learner)
            if self._learner.device.type == "cuda":
                torch.cuda.synchronize(self._learner.device)
        return max(time.perf_counter() - started, 1e-9)


def _noise(config: TrainingConfig, data: TrainingData, end: float, largest: int) -> NoiseScale | None:
    """The noise scale after a short training, or None for want of time, samples, memory or finite gradients."""
    small = min(SMALL_BATCH, largest, max(len(data.train) // SMALL_BATCHES, 1))
    if needs_two_samples(config.model):
        small = max(small, 2)
    try:
        weights = _trained(_sized(config, min(NOISE_WARM_UP_BATCH, largest)), data, end)
        norms = list(_squared_norms(_sized(config, small), data, weights, end))
    except OutOfMemoryError:
        return None
    finally:
        release_memory()
    if len(norms) < FEWEST or not all(math.isfinite(value) for pair in norms for value in pair):
        return None
    return estimate([one for one, _ in norms], [one for _, one in norms], small, small * SMALL_BATCHES)


def _trained(config: TrainingConfig, data: TrainingData, end: float) -> Tensor:
    """The weights after NOISE_WARM_UP iterations at the full learning rate, or half of the time."""
    learner = Learner(config, replace(data, validation=None))
    half = (time.perf_counter() + end) / 2
    with _Iterations(learner, config) as iterations:
        while iterations.count < NOISE_WARM_UP and time.perf_counter() < half:
            iterations.run(1)
    return learner.flat.values.detach().clone()


def _squared_norms(
    config: TrainingConfig, data: TrainingData, weights: Tensor, end: float
) -> Iterator[tuple[float, float]]:
    """Squared gradient norms at fixed ``weights``: the mean over small batches, and of the big batch they make up.

    Samples are drawn with replacement: the batches of an epoch are not independent, and their mean has less noise than
    the estimate presumes.
    """
    config = replace(config, optimizer=OptimizerConfig("sgd"), gradient_clip_norm=None)
    learner = Learner(config, replace(data, validation=None))
    with torch.no_grad():
        learner.flat.values.copy_(weights)
    samples = on_device(
        data.train, config.task, learner.device, channels_last=config.model.name in CONVOLUTIONAL
    )
    random = torch.Generator().manual_seed(devices.mixed_seed("noise", config.seed))
    for _ in range(MEASUREMENTS):
        if time.perf_counter() >= end:
            return
        order = torch.randint(len(data.train), (config.batch_size * SMALL_BATCHES,), generator=random)
        with closing(samples.gather(order, config.batch_size)) as batches:
            yield _pair(learner, batches)


def _pair(learner: Learner, batches: Iterator[MiniBatch]) -> tuple[float, float]:
    slots = torch.zeros(2, device=learner.device)
    total = torch.zeros_like(learner.flat.gradient, dtype=torch.float64)
    squares = torch.zeros((), dtype=torch.float64, device=learner.device)
    learner.swap_randomness()
    try:
        with devices.threads(learner.threads), devices.memory_errors():
            learner.model.train()
            for x, y in batches:
                learner.update(x, y, 0.0, slots[0], slots[1])  # the rate 0: the weights stay
                _require_whole(learner)
                gradient = learner.flat.gradient.double()
                total += gradient
                squares += gradient.square().sum()
    finally:
        learner.swap_randomness()
    return float(squares) / SMALL_BATCHES, float((total / SMALL_BATCHES).square().sum())


def _require_whole(learner: Learner) -> None:
    """Raise OutOfMemoryError where a training would go on in micro-batches: that size does not fit."""
    size = learner.micro_batches.size
    if size is not None:
        raise OutOfMemoryError(
            f"The mini-batch does not fit into memory; at most {size} samples at a time might."
        )


def release_memory() -> None:
    """Give back what a size has used: to torch's allocator, to the C library, and from both to the system."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    give_freed_memory_back()
