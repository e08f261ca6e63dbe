"""What the iterations recorded, kept on the device until a block of them is fetched at once."""

import time

import numpy as np
import torch

from epochd.training.events import IterationsCompleted

BLOCK_ITERATIONS = 1024
FETCH_SECONDS = 0.1


class IterationLog:
    """Columns of the iterations since the last fetch.

    The caller writes iteration k's loss and gradient norm into ``losses[position]`` and
    ``norms[position]``, scalars on the device, and then calls ``add``. Nothing is synchronised before
    ``fetch``.
    """

    def __init__(self, device: torch.device) -> None:
        self._columns = torch.zeros(2, BLOCK_ITERATIONS, device=device)
        self.losses, self.norms = (column.unbind() for column in self._columns)
        self._synchronous = device.type == "cpu"
        self._fetched_any = False
        self._clear()

    def _clear(self) -> None:
        self.position = 0
        self._learning_rates: list[float] = []
        self._samples: list[int] = []
        self._times: list[float] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Time the next iteration from now on: whatever the caller did until now is not training."""
        self._since = time.perf_counter()

    def add(self, learning_rate: float, samples: int) -> bool:
        """Close an iteration; True when it is time to fetch."""
        now = time.perf_counter()
        self._learning_rates.append(learning_rate)
        self._samples.append(samples)
        self._times.append(now)
        self.position += 1
        return (
            self.position == BLOCK_ITERATIONS or now - self._since >= FETCH_SECONDS or not self._fetched_any
        )

    def fetch(self, epoch: int, first_iteration: int) -> tuple[IterationsCompleted, list[int]]:
        """The block of iterations since the last fetch, and how many samples each had.

        The block ends with the first iteration whose loss is not finite, if there is one. Synchronises the
        device.
        """
        losses, norms = self._columns[:, : self.position].cpu().numpy().copy()
        finite = np.isfinite(losses)
        count = self.position if finite.all() else int(finite.argmin()) + 1
        samples = self._samples[:count]
        norms[~np.isfinite(norms)] = np.nan
        block = IterationsCompleted(
            epoch=epoch,
            first_iteration=first_iteration,
            train_loss=losses[:count],
            learning_rate=np.array(self._learning_rates[:count], dtype=np.float32),
            gradient_norm=norms[:count],
            samples_per_second=self._rates(np.array(samples, dtype=np.float64)),
        )
        self._fetched_any = True
        self._clear()
        return block, samples

    def _rates(
        self, samples: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        if not self._synchronous:
            # The device runs behind the calls that feed it: only the whole block has a duration.
            seconds = time.perf_counter() - self._since
            return np.full(len(samples), sum(self._samples) / max(seconds, 1e-9), dtype=np.float32)
        durations = np.diff(np.array(self._times[: len(samples)]), prepend=self._since)
        return (samples / np.maximum(durations, 1e-9)).astype(np.float32)
