"""Texts as numbers: words, and the vocabulary of the training split."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

PADDING: Final = 0
UNKNOWN: Final = 1
FIRST_WORD: Final = 2
COUNTED_WORDS: Final = 1_000_000
"""Beyond so many different words those seen once so far are forgotten, so that counting takes bounded memory."""

# A run of letters and digits with inner apostrophes, or any other visible character by itself. Scripts that are
# written without spaces (Chinese, Japanese) are read character by character.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*|[^\w\s]")

Tokens = npt.NDArray[np.int32]


def words_of(text: str, most: int) -> list[str]:
    """The first ``most`` words of a text, in lower case, compatible characters made the same (NFKC)."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()
    return [found.group() for found in islice(_WORD.finditer(plain), most)]


def most_frequent(texts: Iterable[str], *, sequence_length: int, vocabulary_size: int) -> tuple[str, ...]:
    """The words of a vocabulary, the most frequent first; of equally frequent ones the first in the alphabet.

    Only what is read of a text counts. Exact up to COUNTED_WORDS different words.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text, sequence_length))
        if len(counts) > COUNTED_WORDS:
            counts = Counter({word: count for word, count in counts.items() if count > 1})
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(word for word, _ in ordered[: vocabulary_size - FIRST_WORD])


class Tokenizer:
    """Turns texts into rows of tokens: word i of the vocabulary is i + 2."""

    def __init__(self, words: Sequence[str], sequence_length: int) -> None:
        self._length = sequence_length
        self._tokens = {word: place for place, word in enumerate(words, start=FIRST_WORD)}

    def tokens(self, texts: Iterable[str], samples: int) -> Tokens:
        """int32 (samples, sequence_length): longer texts are cut, shorter ones padded at their end.

        An empty text is one unknown word, so that no row is padding alone.
        """
        rows = np.zeros((samples, self._length), dtype=np.int32)
        find = self._tokens.get
        for row, text in zip(rows, texts, strict=True):
            found = [find(word, UNKNOWN) for word in words_of(text, self._length)] or [UNKNOWN]
            row[: len(found)] = found
        return rows
