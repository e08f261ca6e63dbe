"""A data set as it was measured: arrays that nothing was fitted on yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import DatasetInfo

Array = npt.NDArray[Any]

MISSING_CODE: Final = -1
"""In ``codes``: the sample has no value."""
MISSING_DATE: Final = np.iinfo(np.int64).min
"""In ``dates``: the sample has no value."""


@dataclass(frozen=True)
class RawData:
    """Samples, in memory or mapped from files, which are then read as they are touched.

    ``parts`` depends on ``info.kind``:

    - ``table``: ``numbers`` float32 (n, k), NaN where a value is missing, booleans as 0 and 1; ``dates`` int64 (n, d),
      microseconds since 1970 in UTC; ``codes`` int32 (n, c), indexes of ``Column.categories``. Each has the columns of
      its types in the order of ``info.columns``, and may have none.
    - ``image``: ``x`` uint8 or float32 (n, channels, height, width).
    - ``array``: ``x`` float32 (n, *shape).
    - ``text``: ``text`` uint8 (bytes,), UTF-8 of all samples, and ``offsets`` int64 (n + 1,): sample i is
      ``text[offsets[i]:offsets[i + 1]]``.

    ``y`` is int64 (n,), a label for each sample, or float32 (n, targets). ``digest`` is SHA-256 over all of it:
    ``sha256:…``.
    """

    info: DatasetInfo
    parts: Mapping[str, Array]
    y: Array
    digest: str

    def __len__(self) -> int:
        return len(self.y)
