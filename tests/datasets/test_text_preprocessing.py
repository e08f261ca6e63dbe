import json

import numpy as np
import pytest

from epochd.datasets.encoding import encoded
from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing import Preprocessing
from epochd.datasets.preprocessing.rows import ALL
from epochd.datasets.raw import RawData

TEXTS = ["good film", "bad film", "très good", "", "unseen words here and more"]
INFO = DatasetInfo("reviews", "classification", 5, (), ("bad", "good"), 0, "", "text")


def reviews(texts=TEXTS):
    parts = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, parts)])
    text = np.frombuffer(b"".join(parts), np.uint8)
    return RawData(
        INFO, {"text": text, "offsets": offsets}, np.array([1, 0, 1, 0, 1][: len(texts)]), "sha256:"
    )


def fit(rows=ALL, **how):
    return Preprocessing.fit(reviews(), rows, encoded(INFO, "one_hot", sequence_length=3, **how))


def test_a_text_is_the_tokens_of_its_words():
    preprocessing = fit(np.arange(4))
    assert preprocessing.as_dict()["words"] == ["film", "good", "bad", "très"]
    x = preprocessing.apply(reviews())
    assert x.dtype == np.int32
    assert x.tolist() == [[3, 2, 0], [4, 2, 0], [5, 3, 0], [1, 0, 0], [1, 1, 1]]
    assert (preprocessing.mean, preprocessing.scale) == (None, None)


def test_the_vocabulary_has_at_most_so_many_tokens():
    preprocessing = fit(vocabulary_size=4)
    assert preprocessing.apply(reviews()).max() == 3


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3), np.array([4, 0, 0])])
def test_a_row_is_the_same_whichever_are_read_with_it(rows):
    preprocessing = fit()
    assert np.array_equal(preprocessing.apply(reviews(), rows), preprocessing.apply(reviews())[rows])


def test_what_was_stored_applies_the_same_tokens():
    preprocessing = fit(np.arange(4))
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.as_dict())))
    assert again.as_dict() == preprocessing.as_dict()
    assert np.array_equal(again.apply(reviews()), preprocessing.apply(reviews()))
    assert again.inputs(reviews(["bad très unheard"]))["tokens"].tolist() == [[4, 5, 1]]


def test_texts_of_a_program_are_read_alike():
    preprocessing = fit()
    assert np.array_equal(preprocessing.apply_records(TEXTS), preprocessing.apply(reviews()))
