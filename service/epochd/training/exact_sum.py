"""A sum of float32 losses times samples without a rounding error: however it is divided, it is the same. No torch."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

MANTISSA_BITS = 24
INT64_BITS = 63
SCALE_BITS = 172
"""The sum is kept as an integer of 2^-172: the smallest float32, 2^-149, has 23 more bits when normalised."""


class ExactSum:
    """Adds up losses, each times the number of its samples.

    Blocks of iterations end by the clock, so a sum that is rounded block by block would depend on how busy the
    machine was. This one is exact until its mean is taken.
    """

    def __init__(self) -> None:
        self._total = 0

    def add(self, losses: Float32Array, samples: Int64Array) -> None:
        """Add ``losses`` * ``samples``, columns (n,) of finite losses and of counts; 2^39 samples at most."""
        lowest, highest = float(losses.min()), float(losses.max())
        exponent = math.frexp(lowest)[1]
        span = math.frexp(highest)[1] - exponent
        bits = MANTISSA_BITS + span + int(samples.sum()).bit_length()
        if lowest > 0 and bits <= INT64_BITS:
            scaled = losses.astype(np.float64) * math.ldexp(1.0, MANTISSA_BITS - exponent)
            self._add_scaled(int(scaled.astype(np.int64) @ samples), exponent)
        else:
            self._add_by_exponent(losses, samples)

    def _add_by_exponent(self, losses: Float32Array, samples: Int64Array) -> None:
        """The same for losses too far apart for one scale; slower."""
        fractions, exponents = np.frexp(losses)
        mantissas = np.ldexp(fractions, MANTISSA_BITS).astype(np.int64)
        for exponent in set(exponents.tolist()):
            chosen = exponents == exponent
            self._add_scaled(int(mantissas[chosen] @ samples[chosen]), exponent)

    def _add_scaled(self, mantissa: int, exponent: int) -> None:
        self._total += mantissa << (exponent - MANTISSA_BITS + SCALE_BITS)

    def mean(self, samples: int) -> float:
        """The sum by ``samples``, rounded once, to the nearest float64."""
        return self._total / (samples << SCALE_BITS)

    def state_dict(self) -> dict[str, Any]:
        """The sum as an integer of 2^-172."""
        return {"total": self._total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._total = state["total"]
