"""The shape of one sample as a model gets it: known from the description of a data set alone, before any split."""

from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from epochd.datasets.info import Column, DatasetInfo, Kind

Encoding = Literal["one_hot", "codes"]

MAX_ONE_HOT: Final = 64
"""So many values of a category have a column of their own, the most frequent ones of the training split."""
MAX_CODES: Final = 10_000
"""So many values of a category have a code of their own, the most frequent ones of the training split."""
VOCABULARY_SIZE: Final = 10_000
SEQUENCE_LENGTH: Final = 128
CYCLES_OF_A_DAY: Final = 2
"""The year and the week; a date with a time has the day besides."""
BYTES_PER_VALUE: Final = 4


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample as a model gets it: float32 or, for text, int32 of ``input_shape``.

    A table is ``(width,)``: standardised numbers, indicators of missing values, date features, and for each category
    a one-hot group or, in the last ``len(categories)`` columns, a code; ``categories`` says how many codes each has,
    and is empty where there are none. Code 0 is a value that is missing or was not seen in training.
    A text is ``(words,)``: 0 is padding, 1 an unknown word; ``vocabulary`` is the number of words, both included, and 0
    for any other kind.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    categories: tuple[int, ...] = ()
    vocabulary: int = 0

    @property
    def bytes_per_sample(self) -> int:
        """What one sample takes in memory."""
        return BYTES_PER_VALUE * prod(self.input_shape)


def encoded(
    info: DatasetInfo,
    encoding: Encoding,
    *,
    vocabulary_size: int = VOCABULARY_SIZE,
    sequence_length: int = SEQUENCE_LENGTH,
) -> Encoded:
    """Say what a model gets of a data set. The last two arguments are for texts alone."""
    if info.kind == "text":
        return Encoded("text", (sequence_length,), vocabulary=vocabulary_size)
    if info.kind != "table" or not info.columns:
        return Encoded(info.kind, info.shape)
    categories = [column for column in info.columns if column.type == "category"]
    widths = [positions(column, encoding) for column in categories]
    codes = tuple(widths) if encoding == "codes" else ()
    return Encoded("table", (_numeric_width(info.columns) + (len(codes) if codes else sum(widths)),), codes)


def positions(column: Column, encoding: Encoding) -> int:
    """How many values of a category are told apart, with 0 for all others."""
    most = MAX_CODES if encoding == "codes" else MAX_ONE_HOT
    return min(len(column.categories or ()), most) + 1


def date_features(column: Column) -> int:
    """The columns that a date becomes: the time itself, and sine and cosine of each cycle."""
    return 1 + 2 * (CYCLES_OF_A_DAY + column.has_time)


def _numeric_width(columns: tuple[Column, ...]) -> int:
    """Numbers, indicators and date features together."""
    return sum(_columns_of(column) + (column.missing > 0) for column in columns if column.type != "category")


def _columns_of(column: Column) -> int:
    return date_features(column) if column.type == "date" else 1
