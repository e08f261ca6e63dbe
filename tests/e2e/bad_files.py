"""Files and forms that are no data set, each with the answer that it gets."""

import gzip
import io
import zipfile
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from PIL import Image

MAX_UPLOAD_BYTES = 2_000_000
MAX_UNPACKED_BYTES = 20_000_000


@dataclass(frozen=True)
class Bad:
    """What is sent, and the answer: its status, the code of its first error, and that error's place.

    ``says`` are parts of the message: what a person needs to find the place, and what would be right.
    """

    what: str
    file_name: str
    content: bytes
    code: str
    says: tuple[str, ...]
    fields: dict[str, str | list[str]] = field(default_factory=dict)
    status: int = 422
    file: str | None = ""
    """By default the file that was sent."""
    row: int | None = None
    column: str | None = None


def _zip(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def _png() -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def _parquet() -> bytes:
    target = io.BytesIO()
    pl.DataFrame({"x": [1.5, 2.5], "y": ["u", "v"]}).write_parquet(target)
    return target.getvalue()


PNG = _png()
TABLE = b"x,y\n" + b"1.5,u\n2.5,v\n" * 10
TEXTS = b'{"text": "good", "label": "u"}\n{"text": "bad", "label": "v"}\n'
TWO = np.array([0, 1])


def _csv(what: str, content: bytes, code: str, *says: str, **more: object) -> Bad:
    return Bad(what, "t.csv", content, code, says, **more)  # type: ignore[arg-type]


def _archive(what: str, code: str, *says: str, files: dict[str, bytes], **more: object) -> Bad:
    return Bad(what, "t.zip", _zip(**files), code, says, **more)  # type: ignore[arg-type]


def _lines(what: str, content: bytes, code: str, *says: str, **more: object) -> Bad:
    return Bad(what, "t.jsonl", content, code, says, **more)  # type: ignore[arg-type]


TABLES = [
    _csv("an empty file", b"", "empty_file", "'t.csv' is empty"),
    _csv("a header without rows", b"x,y\n", "no_rows", "add rows"),
    _csv("one class only", b"x,y\n1,u\n2,u\n", "one_class", "'u' in every row", "at least two", column="y"),
    _csv("a target that is no column", TABLE, "unknown_target", "'z'", "It has: 'x', 'y'",
         fields={"target": "z"}, column="z"),
    _csv("a feature that is no column", TABLE, "unknown_feature", "'z'", "It has: 'x', 'y'",
         fields={"features": ["z"]}, column="z"),
    _csv("the target among the features", TABLE, "target_is_feature", "leave it out",
         fields={"target": "y", "features": ["x", "y"]}, column="y"),
    _csv("a row that is too long", b"x,y\n1,u\n2,v,3\n", "ragged_rows", "Row 2", "has 3 fields", row=2),
    _csv("a row that is too short", b"a,x,y\n1,2,u\n3,4\n5,6,v\n", "ragged_rows", "Row 2", "has 2 fields", row=2),
    _csv("text that is not UTF-8", "x,y\n1,grün\n2,rot\n".encode("latin-1"), "wrong_encoding", "line 2",
         "save it as UTF-8", row=1),
    _csv("UTF-16", "x,y\n1,u\n2,v\n".encode("utf-16"), "wrong_encoding", "UTF-16", "save it as UTF-8"),
    _csv("a NUL byte", b"x,y\n1,u\n2\0,v\n", "nul_byte", "line 3", row=2),
    _csv("quotes that do not match", b'x,y\n"1,u\n2,v\n', "bad_quotes", "row 1", "doubled", row=1),
    _csv("a word in the target of a regression", b"x,y\n1,1.5\n2,abc\n", "non_numeric_target", "row 2", "'abc'",
         "'y'", "task=classification", fields={"task": "regression"}, row=2, column="y"),
    _csv("a target without a value", b"x,y\n1,u\n2,\n3,v\n", "missing_target", "row 2", "'y'", row=2, column="y"),
    _csv("a value that is not finite", b"x,y\n1,u\ninf,v\n", "infinite_value", "Row 2", "'x'", row=2, column="x"),
    _csv("two columns of one name", b"x,x,y\n1,2,u\n3,4,v\n", "duplicate_columns", "columns 1, 2", column="x"),
    Bad("a bomb of gzip", "t.csv.gz", gzip.compress(TABLE + b"1,u\n" * 6_000_000), "too_large_unpacked",
        (str(MAX_UNPACKED_BYTES),)),
    Bad("gzip that was cut off", "t.csv.gz", gzip.compress(TABLE)[:-12], "damaged_file", ("cut off", "whole")),
    Bad("Parquet that was cut off", "t.parquet", _parquet()[:-9], "damaged_file", ("cut off", "whole")),
]  # fmt: skip
ARRAYS = [
    Bad("pickled objects", "t.npz", _npz(x=np.array([{}, {}]), y=TWO), "pickled_objects",
        ("never unpickled",), file="x.npy"),
    Bad("x and y of different length", "t.npz", _npz(x=np.ones((3, 2)), y=TWO), "row_mismatch",
        ("'x' has 3", "'y' has 2"), column="y"),
    Bad("no y", "t.npz", _npz(x=np.ones((3, 2))), "missing_array", ("'y'", "there are: 'x'"), column="y"),
    Bad("NPZ that was cut off", "t.npz", _npz(x=np.ones((9, 2)), y=TWO)[:300], "damaged_file", ("cut short",)),
    Bad("safetensors that was cut off", "t.safetensors", b"\x40" + bytes(7) + b'{"x":{"dtype":"F32"',
        "damaged_file", ("cut short",)),
]  # fmt: skip
IMAGES = [
    _archive("a path that climbs out", "unsafe_path", "climbs out", files={"../a/1.png": PNG, "b/2.png": PNG},
             file="../a/1.png"),
    _archive("an absolute path", "unsafe_path", "relative", files={"/a/1.png": PNG, "b/2.png": PNG},
             file="/a/1.png"),
    _archive("a truncated image", "truncated_image", "b/2.png", "whole",
             files={"a/1.png": PNG, "b/2.png": PNG[: len(PNG) // 2]}, file="b/2.png"),
    _archive("a file that is no image", "not_an_image", "PNG or JPEG",
             files={"a/1.png": PNG, "b/2.png": b"hello"}, file="b/2.png"),
    _archive("one folder only", "one_class", "'a'", "two or more", files={"a/1.png": PNG, "a/2.png": PNG},
             column="label"),
    _archive("images in no folder", "no_class_folder", "labels.csv", files={"1.png": PNG, "2.png": PNG},
             file="1.png"),
    _archive("a bomb in an image's name", "decompression_bomb", "18000000",
             files={"a/1.png": PNG, "b/2.png": bytes(18_000_000)}, file="b/2.png"),
    _archive("a row without its file", "missing_file", "Row 2", "2.png", row=2, column="file",
             files={"1.png": PNG, "labels.csv": b"file,label\n1.png,u\n2.png,v\n"}, file="labels.csv"),
    _archive("a file without its row", "unlabelled_file", "3.png", "add one", file="3.png",
             files={"1.png": PNG, "2.png": PNG, "3.png": PNG,
                    "labels.csv": b"file,label\n1.png,u\n2.png,v\n"}),
    Bad("a ZIP that was cut off", "t.zip", _zip(**{"a/1.png": PNG, "b/2.png": PNG})[:-40], "damaged_file",
        ("cut short", "again")),
]  # fmt: skip
OTHERS = [
    _lines("a line that is no JSON", TEXTS + b'{"text": "b",\n', "bad_json", "Line 3", row=3),
    _lines("a line without a label", TEXTS + b'{"text": "b"}\n', "missing_key", "Line 3", "'label'", row=3,
           column="label"),
    _lines("an empty text", TEXTS + b'{"text": " ", "label": "u"}\n', "empty_text", "Line 3", row=3,
           column="text"),
    _lines("words and numbers as labels", TEXTS + b'{"text": "c", "label": 3}\n', "mixed_labels", "Row 3",
           row=3, column="label"),
    Bad("a pickle", "t.pkl", b"\x80\x04\x95abc", "unknown_format", ("never opened", "NPZ")),
    Bad("a single image", "t.png", PNG, "unknown_format", ("send a ZIP",)),
    _csv("a page of the web", b"<!doctype html><html></html>", "unknown_format", "page?", "Accepted are"),
    _csv("a field that is misspelt", TABLE, "unknown_parameter", "did you mean 'target'", fields={"taget": "y"},
         file=None),
    _csv("a size that is none", TABLE, "wrong_type", "48x64", fields={"image_size": "big"}, file=None),
    _csv("a name that is taken", TABLE, "dataset_name_taken", "'iris'", fields={"name": "iris"}, status=409,
         file=None),
    _csv("more bytes than allowed", bytes(MAX_UPLOAD_BYTES + 1), "upload_too_large", str(MAX_UPLOAD_BYTES),
         status=413, file=None),
]  # fmt: skip
BAD = [*TABLES, *ARRAYS, *IMAGES, *OTHERS]
