import numpy as np
import pytest

from epochd.datasets import tokenizer
from epochd.datasets.tokenizer import Tokenizer, most_frequent, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, the CAT!", ["the", "cat", ",", "the", "cat", "!"]),
        ("don't rock'n'roll 'quoted'", ["don't", "rock'n'roll", "'", "quoted", "'"]),
        ("Straße — ÉTÉ 3.5", ["straße", "—", "été", "3", ".", "5"]),
        ("我喜欢 Python", ["我", "喜", "欢", "python"]),
        ("\uff21\uff22\uff23 \ufb01n", ["abc", "fin"]),
        ("  \n\t ", []),
    ],
)
def test_words_are_what_a_reader_would_call_them(text, words):
    assert words_of(text, 99) == words


def test_no_more_words_are_read_than_wanted():
    assert words_of("a b c d", 2) == ["a", "b"]


def test_the_most_frequent_words_come_first_then_the_alphabet():
    texts = ["b a c", "c d", "c a"]
    assert most_frequent(texts, sequence_length=9, vocabulary_size=99) == ("c", "a", "b", "d")
    assert most_frequent(texts, sequence_length=9, vocabulary_size=4) == ("c", "a")
    assert most_frequent(texts, sequence_length=1, vocabulary_size=99) == ("c", "b")


def test_counting_forgets_what_is_rare_before_memory_fills(monkeypatch):
    monkeypatch.setattr(tokenizer, "COUNTED_WORDS", 10)
    texts = [f"often once{place}" for place in range(1000)]
    assert most_frequent(iter(texts), sequence_length=9, vocabulary_size=3) == ("often",)


def test_tokens_are_cut_padded_and_unknown():
    tokens = Tokenizer(("the", "cat"), 4).tokens(["the cat sat", "cat the cat the end", ""], 3)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[2, 3, 1, 0], [3, 2, 3, 2], [1, 0, 0, 0]]
