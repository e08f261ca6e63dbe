"""Every table that cannot be trained on, and the answer that says why, where, and what would be right."""

import gzip
import io

import polars as pl
import pytest

from epochd.datasets.ingest import ingest
from epochd.datasets.reading import Limits, Options, Source
from epochd.errors import InvalidDatasetError

GOOD = "x,z,y\n1,2,a\n3,4,b\n5,6,a\n"


def refused(tmp_path, content, name="data.csv", limits=None, **options):
    path, folder = tmp_path / "upload", tmp_path / "folder"
    folder.mkdir()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidDatasetError) as raised:
        ingest(Source(path, name), Options("mine", **options), limits or Limits(), folder)
    error = raised.value
    assert error.file == name
    return error


@pytest.mark.parametrize(
    ("content", "code", "row", "column", "words"),
    [
        ("", "empty_file", None, None, "0 bytes"),
        ("\n\n \n", "empty_file", None, None, "no text"),
        ("x,y\n", "no_rows", None, None, "header=false"),
        ("x,y\n1,a\n2\n3,b\n", "ragged_rows", 2, None, "1 fields, the header has 2"),
        ("x,y\n1,a\n\n2,b,c\n", "ragged_rows", 2, None, "3 fields"),
        ('x,y\n"1",a\n2,"b\nb",c\n', "ragged_rows", 2, None, "3 fields"),
        ("1,0\n2,1\n3\n", "ragged_rows", 3, None, "row 1 has 2"),
        ("x,y\n1,a\n2,caf\xe9\n".encode("latin-1"), "wrong_encoding", 2, None, "2,café"),
        (GOOD.encode("utf-16"), "wrong_encoding", None, None, "UTF-16"),
        ("x,y\n1,a\n2,\0\n", "nul_byte", 2, None, "line 3"),
        ("x,y\r1,a\r2,b\r", "line_endings", None, None, "line feeds"),
        ('x,y\n1,a\n2,"b\n', "bad_quotes", 2, None, "doubled"),
        ('x,y\n1,a\n"2"3,b\n', "bad_quotes", 2, None, "doubled"),
        ('x,y\n1,a\n2,b"c\n3,d\n4,e" f\n', "bad_quotes", None, None, "doubled"),
        ("x,x,y\n1,2,a\n3,4,b\n", "duplicate_columns", None, "x", "columns 1, 2"),
        ("x,y\n1,a\n2,a\n", "one_class", None, "y", "'a' in every row"),
        ("x,y\n1,a\n2,\n3,b\n", "missing_target", 2, "y", "1 of 3 rows"),
        ("x,y\n1,2020-01-01\n2,2020-01-02\n", "date_target", None, "y", "a number or a class"),
        ("x,y\n1,0\ninf,1\n", "infinite_value", 2, "x", "finite"),
        ("x,y\n1,0\n-1e39,1\n", "infinite_value", 2, "x", "3.40e+38"),
        ("x,y\n1,0.5\n2,inf\n", "infinite_value", 2, "y", "finite"),
        ("y\n1\n2\n", "no_features", None, None, "Separators looked for"),
        ("x,y\nNA,a\n,b\n", "no_features", None, None, "'x' has no value"),
    ],
)
def test_bad_csv(tmp_path, content, code, row, column, words):
    error = refused(tmp_path, content)
    assert (error.errors[0].code, error.row, error.column) == (code, row, column), error.message
    assert words in error.message


@pytest.mark.parametrize(
    ("options", "code", "param", "row", "column", "words"),
    [
        ({"target": ("label",)}, "unknown_target", "target", None, "label", "It has: 'x', 'z', 'y'"),
        ({"target": ("Z",)}, "unknown_target", "target", None, "Z", "no column 'Z'"),
        ({"target": ("y", "y")}, "repeated_target", "target", None, "y", "twice"),
        ({"features": ("x", "zz")}, "unknown_feature", "features", None, "zz", "Did you mean 'z'?"),
        ({"features": ("x", "x")}, "repeated_feature", "features", None, "x", "twice"),
        ({"features": ("x", "y")}, "target_is_feature", "features", None, "y", "leave it out"),
        ({"target": ("x", "y", "z")}, "no_features", "file", None, None, "no column beside"),
        ({"task": "regression"}, "non_numeric_target", "file", 1, "y", "row 1 of 'data.csv' has 'a'"),
        ({"target": ("x", "y")}, "non_numeric_target", "file", 1, "y", "numbers"),
        (
            {"target": ("x", "z"), "task": "classification"},
            "several_targets",
            "target",
            None,
            None,
            "task=regression",
        ),
        ({"format": "excel"}, "unknown_format", "format", None, None, "csv, parquet, arrow"),
        ({"format": "parquet"}, "damaged_file", "file", None, None, "send it again"),
    ],
)
def test_options_that_do_not_fit_the_file(tmp_path, options, code, param, row, column, words):
    error = refused(tmp_path, GOOD, **options)
    (entry,) = error.errors
    assert (entry.code, entry.param, error.row, error.column) == (code, param, row, column), error.message
    assert words in error.message


def test_a_label_that_is_no_number_far_into_the_file(tmp_path):
    rows = [f"{i % 9},{i % 1000 / 7}" for i in range(80_000)]
    rows[70_000] = "1,high"
    error = refused(tmp_path, "x,y\n" + "\n".join(rows), task="regression")
    assert (error.errors[0].code, error.row, error.column) == ("non_numeric_target", 70_001, "y")
    assert "'high'" in error.message


def test_a_target_with_one_number(tmp_path):
    error = refused(tmp_path, "x,y\n1,5\n2,5\n", task="regression")
    assert (error.errors[0].code, error.column) == ("constant_target", "y")


def test_too_many_classes(tmp_path):
    text = "x,y\n" + "".join(f"{i % 5},class{i}\n" for i in range(10_001))
    error = refused(tmp_path, text)
    assert (error.errors[0].code, error.column) == ("too_many_classes", "y")
    assert "more than 10000 classes" in error.message


def test_too_many_categories_in_a_feature_that_was_asked_for(tmp_path):
    text = "x,z,y\n" + "".join(f"v{i},{i % 5},{i % 2}\n" for i in range(10_001))
    error = refused(tmp_path, text, features=("x", "z"))
    assert (error.errors[0].code, error.errors[0].param, error.column) == (
        "too_many_categories",
        "features",
        "x",
    )


def test_too_many_columns(tmp_path):
    names = ",".join(f"x{i}" for i in range(10_001))
    error = refused(tmp_path, f"{names}\n{names}\n", header=True)
    assert error.errors[0].code == "too_many_columns"
    assert "NPZ" in error.message


def parquet(frame):
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([[1], [2]], "nested"),
        ([{"a": 1}, {"a": 2}], "nested"),
        ([b"a", b"b"], "not of a type that can be read"),
    ],
)
def test_columns_that_are_no_values(tmp_path, values, what):
    frame = pl.DataFrame({"x": [1, 2], "odd": values, "y": ["a", "b"]})
    error = refused(tmp_path, parquet(frame), "a.parquet")
    assert (error.errors[0].code, error.column) == ("unsupported_column", "odd")
    assert what in error.message
    (tmp_path / "other").mkdir()
    options = Options("mine", features=("x",))
    assert (
        ingest(Source(tmp_path / "upload", "a.parquet"), options, Limits(), tmp_path / "other").info.samples
        == 2
    )


def test_typed_tables_answer_like_csv(tmp_path):
    frame = pl.DataFrame({"x": [1.0, float("inf")], "y": ["a", "b"]})
    error = refused(tmp_path, parquet(frame), "a.parquet")
    assert (error.errors[0].code, error.row, error.column) == ("infinite_value", 2, "x")


def test_a_typed_table_without_rows(tmp_path):
    error = refused(tmp_path, parquet(pl.DataFrame({"x": [1.0], "y": ["a"]}).clear()), "a.parquet")
    assert error.errors[0].code == "no_rows"


def ipc(frame, *, stream):
    file = io.BytesIO()
    (frame.write_ipc_stream if stream else frame.write_ipc)(file)
    return file.getvalue()


FRAME = pl.DataFrame({"x": range(5000), "y": [1.5 * i for i in range(5000)]})


def zstd(text):
    file = io.BytesIO()
    lines = pl.LazyFrame({"line": text.removesuffix("\n").split("\n")})
    lines.sink_csv(file, compression="zstd", include_header=False, quote_style="never")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(FRAME.write_csv().encode())),
        ("a.csv.zst", zstd(FRAME.write_csv())),
        ("a.parquet", parquet(FRAME)),
        ("a.arrow", ipc(FRAME, stream=False)),
        ("a.arrows", ipc(FRAME, stream=True)),
    ],
)
def test_files_that_were_cut_off(tmp_path, name, content):
    error = refused(tmp_path, content[: len(content) // 2], name)
    assert error.errors[0].code == "damaged_file"
    assert "send it again" in error.message


def test_a_gzip_file_with_a_flipped_byte(tmp_path):
    content = bytearray(gzip.compress(FRAME.write_csv().encode()))
    content[len(content) // 2] ^= 0xFF
    assert refused(tmp_path, bytes(content), "a.csv.gz").errors[0].code in {"damaged_file", "wrong_encoding"}


BOMB = "x,y\n" + "1,2\n" * 5_000_000


@pytest.mark.parametrize("pack", [lambda text: gzip.compress(text.encode()), zstd], ids=["gzip", "zstd"])
@pytest.mark.parametrize("content", [BOMB, "0" * 20_000_000], ids=["lines", "one line"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, pack, content):
    packed = pack(content)
    assert len(packed) < 50_000
    error = refused(tmp_path, packed, "a.csv", Limits(unpacked_bytes=10_000_000))
    assert error.errors[0].code == "too_large_unpacked"
    assert "10000000 bytes" in error.message


def test_a_parquet_bomb_is_refused_before_it_is_written(tmp_path):
    frame = pl.DataFrame({"x": [1.0, 2.0] * 500_000}).with_columns(y=pl.int_range(pl.len()) % 2)
    error = refused(tmp_path, parquet(frame), "a.parquet", Limits(unpacked_bytes=3_000_000))
    assert error.errors[0].code == "too_large_unpacked"
    assert not list((tmp_path / "folder").iterdir())


def test_a_line_without_an_end(tmp_path):
    error = refused(tmp_path, gzip.compress(b"0" * 20_000_000), "a.csv.gz")
    assert error.errors[0].code == "line_too_long"
