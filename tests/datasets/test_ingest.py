import importlib
import io
import pickle
import zipfile

import numpy as np
import pytest

from epochd.datasets import sniffing
from epochd.datasets.ingest import READERS, ingest
from epochd.datasets.reading import Limits, Options, Source
from epochd.errors import InvalidDatasetError


def npz():
    file = io.BytesIO()
    np.savez(file, x=np.zeros((2, 3)), y=np.zeros(2))
    return file.getvalue()


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        for name in names:
            content.writestr(name, b"")
    return file.getvalue()


def safetensors():
    head = b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    return len(head).to_bytes(8, "little") + head


def write(tmp_path, content, name):
    path = tmp_path / "upload"
    path.write_bytes(content)
    return Source(path, name)


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("a.csv", b"a,b\n1,2\n", "csv"),
        ("no ending", b"a,b\n1,2\n", "csv"),
        ("a.csv.gz", b"\x1f\x8b\x08\0", "csv"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\0", "jsonl"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "jsonl"),
        ("a.txt", b'\xef\xbb\xbf {"text": "a"}\n', "jsonl"),
        ("a.jsonl", b"\n", "jsonl"),
        ("a.csv", b"PAR1", "parquet"),
        ("a", b"ARROW1\0\0", "arrow"),
        ("a", b"\xff\xff\xff\xff\0\0", "arrow"),
        ("a", npz(), "npz"),
        ("a.npz", b"PK\x03\x04 broken", "npz"),
        ("a", archive("cats/1.png", "dogs/1.png"), "images"),
        ("a.zip", b"PK\x05\x06" + bytes(18), "images"),
        ("a", safetensors(), "safetensors"),
    ],
)
def test_the_content_tells_the_format_before_the_name_does(tmp_path, name, content, format_):
    assert sniffing.sniff(write(tmp_path, content, name)) == format_


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x93NUMPY\x01\0", "numpy.savez"),
        (pickle.dumps({"x": 1}), "can run code"),
        (archive("archive/data.pkl"), "safetensors"),
        (archive("[Content_Types].xml", "xl/workbook.xml"), "CSV"),
        (b"\x89PNG\r\n", "a folder of images for each class"),
        (b"\xff\xd8\xff\xe0", "a folder of images for each class"),
        (b"BZh9", "gzip"),
        (bytes(257) + b"ustar\0", "ZIP"),
        (b"  <!DOCTYPE html><html>", "the link"),
        (b'[{"text": "a"}]', "JSON lines"),
        (b"%PDF-1.7", "CSV"),
    ],
)
def test_strangers_are_told_what_would_be_right(tmp_path, content, words):
    with pytest.raises(InvalidDatasetError, match="Accepted are CSV") as raised:
        sniffing.sniff(write(tmp_path, content, "mine"))
    error = raised.value
    assert (error.errors[0].code, error.file) == ("unknown_format", "mine")
    assert words in error.message


@pytest.mark.parametrize("name", ["a.parquet", "a.npz", "a.zip", "a.safetensors", "a.arrow"])
def test_a_name_that_promises_something_else(tmp_path, name):
    with pytest.raises(InvalidDatasetError, match="does not start like one"):
        sniffing.sniff(write(tmp_path, b"a,b\n1,2\n", name))


@pytest.mark.parametrize("place", READERS.values())
def test_every_format_has_its_reader(place):
    module, function = place.split(".")
    assert callable(getattr(importlib.import_module(f"epochd.datasets.readers.{module}"), function))


def test_what_differs_in_its_names_alone_is_another_data_set(tmp_path):
    digests = []
    for number, text in enumerate(("a,y\n1,cat\n2,dog\n", "a,y\n1,rat\n2,ewe\n", "b,y\n1,cat\n2,dog\n")):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = write(tmp_path, text.encode(), "a.csv")
        digests.append(ingest(source, Options("one"), Limits(), folder).digest)
        again = tmp_path / f"again{number}"
        again.mkdir()
        assert ingest(source, Options("another name"), Limits(), again).digest == digests[-1]
    assert len(set(digests)) == 3
