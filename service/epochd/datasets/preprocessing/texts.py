"""Texts: the tokens of their words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from epochd.datasets.encoding import Encoded
from epochd.datasets.preprocessing.rows import Array, Rows, count, row_at, spans
from epochd.datasets.preprocessing.steps import Inputs, ReadInputs
from epochd.datasets.raw import RawData
from epochd.datasets.tokenizer import Tokenizer, most_frequent

VALUES_OF_A_TEXT: Final = 1024
"""A typical text's bytes: how many texts are read at a time."""


@dataclass(frozen=True)
class TextSteps:
    """``inputs`` is ``{"tokens": int32 (n, sequence_length)}``."""

    words: tuple[str, ...]
    vocabulary: int
    sequence_length: int
    dtype = np.int32

    @classmethod
    def fit(cls, raw: RawData, rows: Rows, encoded: Encoded) -> Self:
        """Take the most frequent words of the training split."""
        (length,) = encoded.input_shape
        words = most_frequent(texts_of(raw, rows), sequence_length=length, vocabulary_size=encoded.vocabulary)
        return cls(words, encoded.vocabulary, length)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(tuple(values["words"]), values["vocabulary"], values["input_shape"][0])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"mean": None, "scale": None, "words": list(self.words), "vocabulary": self.vocabulary}

    def reading(self, raw: RawData) -> ReadInputs:
        """Any texts will do."""
        return lambda rows: {"tokens": self.tokenizer.tokens(texts_of(raw, rows), count(rows, len(raw)))}

    def encode(self, inputs: Inputs, out: Array) -> None:
        """Tokens stay as they are."""
        out[:] = inputs["tokens"]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Knows the words."""
        return Tokenizer(self.words, self.sequence_length)


def texts_of(raw: RawData, rows: Rows) -> Iterator[str]:
    """The texts of ``rows``, one at a time."""
    text, offsets = np.asarray(raw.parts["text"]), np.asarray(raw.parts["offsets"])
    for _, span in spans(rows, len(raw), VALUES_OF_A_TEXT):
        for place in range(count(span, len(raw))):
            row = row_at(span, place)
            yield bytes(text[offsets[row] : offsets[row + 1]]).decode()
