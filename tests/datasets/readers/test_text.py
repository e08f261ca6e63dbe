import gzip
import json
from itertools import pairwise

import polars as pl
import pytest

from epochd.datasets.ingest import ingest
from epochd.datasets.reading import Limits, Options, Source
from epochd.datasets.stored import open_stored
from epochd.errors import InvalidDatasetError


@pytest.fixture
def read(tmp_path):
    def read(content, options=None, limits=None, name="data.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        ingested = ingest(Source(path, name), Options("mine", **(options or {})), limits or Limits(), folder)
        return ingested, open_stored(folder)

    return read


def lines(*samples):
    return "\n".join(json.dumps(sample, ensure_ascii=False) for sample in samples) + "\n"


def texts(data):
    whole, offsets = data.parts["text"].tobytes(), data.parts["offsets"]
    return [whole[start:end].decode() for start, end in pairwise(offsets)]


GOOD = ({"text": "gut", "label": "pos"}, {"text": "schlecht ¿ ja\nwirklich", "label": "neg"},
        {"text": "日本", "label": "pos"})  # fmt: skip


def test_texts_and_labels_come_as_they_were_sent(read):
    ingested, data = read(lines(*GOOD))
    assert texts(data) == [sample["text"] for sample in GOOD]
    assert (data.info.kind, data.info.task, data.info.classes) == ("text", "classification", ("neg", "pos"))
    assert data.y.tolist() == [1, 0, 1]
    assert data.info.class_counts == (1, 2)
    assert ingested.preview == {"columns": ["text", "label"],
                                "rows": [[sample["text"], sample["label"]] for sample in GOOD]}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        lines(*GOOD).rstrip(),
        lines(*GOOD).replace("\n", "\r\n"),
        "\ufeff" + lines(*GOOD),
        lines(*GOOD).replace("\n", "\n\n  \n"),
        gzip.compress(lines(*GOOD).encode()),
    ],
    ids=["no last line break", "windows", "byte order mark", "blank lines", "gzip"],
)
def test_how_lines_end_changes_nothing(read, content):
    assert read(content)[0].digest == read(lines(*GOOD))[0].digest


def test_many_lines_are_written_block_by_block(read):
    samples = [
        {"text": f"sample {number} " + "x" * (number % 977), "label": number % 3} for number in range(9000)
    ]
    _, data = read(lines(*samples))
    assert texts(data) == [sample["text"] for sample in samples]
    assert data.y.tolist() == [sample["label"] for sample in samples]


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ([1, 2.5, 3], {}, ("regression", None)),
        ([1, 2, 3, 4], {}, ("regression", None)),
        ([0, 1, 0, 1], {}, ("classification", ("0", "1"))),
        ([0, 1, 0, 1], {"task": "regression"}, ("regression", None)),
        ([True, False, True], {}, ("classification", ("false", "true"))),
        (["10", "9", "10"], {}, ("classification", ("9", "10"))),
    ],
)
def test_the_task_is_told_from_the_labels_or_given(read, labels, options, expected):
    _, data = read(lines(*({"text": "a", "label": label} for label in labels)), options)
    assert (data.info.task, data.info.classes) == expected


def test_other_keys_can_be_named(read):
    samples = [{"body": "a", "stars": 1.5, "id": 1}, {"body": "b", "stars": 2.5, "id": 2}]
    ingested, data = read(lines(*samples), {"features": ("body",), "target": ("stars",)})
    assert (texts(data), data.y[:, 0].tolist(), data.info.target_names) == (
        ["a", "b"],
        [1.5, 2.5],
        ("stars",),
    )
    assert [note["code"] for note in ingested.notes] == ["task_inferred", "unused_keys"]


OK = '{"text": "a", "label": "b"}\n'


@pytest.mark.parametrize(
    ("content", "code", "row", "column", "says"),
    [
        ("\n \n", "empty_file", None, None, "no lines"),
        (OK + '{"text": "a", "label"', "bad_json", 2, None, "Line 2 is not a JSON object"),
        (OK + '\n{"text": "a", "label": NaN}', "bad_json", 2, None, "Line 3 is not"),
        (OK + "[1, 2]\n", "bad_json", 2, None, "Line 2 is an array"),
        (OK + '{"label": "b"}\n', "missing_key", 2, "text", "its keys are: 'label'"),
        (OK + '{"text": "a"}\n', "missing_key", 2, "label", "has no 'label'"),
        (OK + '{"text": "  ", "label": "b"}\n', "empty_text", 2, "text", "is empty"),
        (OK + '{"text": 5, "label": "b"}\n', "wrong_type", 2, "text", "must be a string"),
        (OK + '{"text": "a", "label": {}}\n', "wrong_type", 2, "label", "is an object"),
        (OK + '{"text": "a", "label": null}\n', "missing_target", 2, "label", "is empty"),
        (OK + '{"text": "a", "label": ""}\n', "missing_target", 2, "label", "is empty"),
        (OK + '{"text": "a", "label": 5}\n', "mixed_labels", 2, "label", "is the number 5"),
        (OK * 5, "one_class", None, "label", "All 5 samples are of the one class 'b'"),
        (OK.encode() + '{"text": "ä", "label": "b"}\n'.encode("latin-1"), "wrong_encoding", 2, None, "0xe4"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(read, content, code, row, column, says):
    with pytest.raises(InvalidDatasetError) as caught:
        read(content)
    error = caught.value
    assert (error.errors[0].code, error.row, error.column, error.file) == (code, row, column, "data.jsonl")
    assert says in error.message


def test_regression_needs_numbers(read):
    with pytest.raises(
        InvalidDatasetError, match="Row 1: 'label' is 'b'; regression needs a number"
    ) as caught:
        read(OK, {"task": "regression"})
    assert caught.value.errors[0].code == "non_numeric_target"


def test_another_encoding_is_named(read):
    with pytest.raises(InvalidDatasetError) as caught:
        read(lines(*GOOD).encode("utf-16"), {"format": "jsonl"})
    assert caught.value.errors[0].code == "wrong_encoding"


def test_a_bomb_is_refused_while_it_unpacks(read):
    bomb = gzip.compress(b" " * 2**24)
    with pytest.raises(InvalidDatasetError) as caught:
        read(bomb, limits=Limits(unpacked_bytes=2**20))
    assert caught.value.errors[0].code == "too_large_unpacked"


def test_polars_reads_the_same(read, tmp_path):
    _, data = read(lines(*GOOD))
    assert pl.read_ndjson(tmp_path / "data.jsonl")["text"].to_list() == texts(data)
