import datetime as dt
import gzip
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from epochd.datasets.info import Column
from epochd.datasets.ingest import ingest
from epochd.datasets.raw import MISSING_CODE, MISSING_DATE
from epochd.datasets.reading import Limits, Options, Source
from epochd.datasets.stored import open_stored

MIXED = """age;size;city;joined;member;species
1,5;10;Rome;2020-01-31;true;cat
;20;Paris;NA;false;dog
2,5;30;;1969-12-31;TRUE;dog
4;40; Rome ;2020-02-01;?;cat
"""


@pytest.fixture
def read(tmp_path):
    """Ingest content under a name; gives what was said of it, and the arrays."""
    count = iter(range(100))

    def read(content, name="data.csv", **options):
        path, folder = tmp_path / f"upload{next(count)}", tmp_path / f"folder{next(count)}"
        folder.mkdir()
        if isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            content(path)
        done = ingest(Source(path, name), Options("mine", **options), Limits(), folder)
        return done, open_stored(folder)

    return read


def codes(done):
    return [note["code"] for note in done.notes]


def test_a_mixed_table_becomes_numbers_dates_and_codes(read):
    done, raw = read(MIXED)
    assert done.info.columns == (
        Column("age", "number", 1),
        Column("size", "number"),
        Column("city", "category", 1, ("Paris", "Rome")),
        Column("joined", "date", 1),
        Column("member", "boolean", 1),
    )
    numbers = [[1.5, 10, 1], [math.nan, 20, 0], [2.5, 30, 1], [4, 40, math.nan]]
    assert raw.parts["numbers"].dtype == np.float32
    np.testing.assert_array_equal(raw.parts["numbers"], np.array(numbers, np.float32))
    day = 86_400_000_000
    days = [18292 * day, MISSING_DATE, -day, 18293 * day]
    assert (raw.parts["dates"].dtype, raw.parts["dates"][:, 0].tolist()) == (np.int64, days)
    assert (raw.parts["codes"].dtype, raw.parts["codes"][:, 0].tolist()) == (
        np.int32,
        [1, 0, MISSING_CODE, 1],
    )
    assert (raw.y.dtype, raw.y.tolist()) == (np.int64, [0, 1, 1, 0])
    assert (raw.info.task, raw.info.classes, raw.info.class_counts) == (
        "classification",
        ("cat", "dog"),
        (2, 2),
    )
    assert (raw.info.samples, raw.info.shape, raw.info.target_names) == (4, (5,), ("species",))
    assert (done.digest, done.format) == (raw.digest, "csv")


def test_a_preview_shows_the_first_rows_as_they_were_read(read):
    done, _ = read(MIXED)
    assert done.preview["columns"] == ["age", "size", "city", "joined", "member", "species"]
    assert done.preview["rows"][:2] == [
        [1.5, 10, "Rome", "2020-01-31T00:00:00", True, "cat"],
        [None, 20, "Paris", None, False, "dog"],
    ]


FRAME = pl.DataFrame(
    {
        "n": [1.5, None, math.nan],
        "i": [3, 5, 9],
        "c": pl.Series(["b", None, "a"], dtype=pl.Categorical),
        "s": ["1", "2", "1"],
        "d": [dt.date(2020, 1, 31), None, dt.date(1969, 12, 31)],
        "t": pl.Series([dt.datetime(2020, 1, 31, 2), None, None]).dt.replace_time_zone("Europe/Rome"),  # noqa: DTZ001
        "f": [True, None, False],
        "y": [0.5, 1.25, 2.0],
    }
)


@pytest.mark.parametrize(
    ("name", "write", "format_"),
    [
        ("a.parquet", FRAME.write_parquet, "parquet"),
        ("a.arrow", FRAME.write_ipc, "arrow"),
        ("a.arrows", FRAME.write_ipc_stream, "arrow"),
        ("named wrongly.csv", FRAME.write_parquet, "parquet"),
    ],
)
def test_typed_files_keep_their_types(read, name, write, format_):
    done, raw = read(write, name)
    assert done.format == format_
    assert [(each.name, each.type, each.missing, each.has_time) for each in raw.info.columns] == [
        ("n", "number", 2, False),
        ("i", "number", 0, False),
        ("c", "category", 1, False),
        ("s", "category", 0, False),
        ("d", "date", 1, False),
        ("t", "date", 2, True),
        ("f", "boolean", 1, False),
    ]
    np.testing.assert_array_equal(raw.parts["numbers"][:, 0], np.array([1.5, math.nan, math.nan], np.float32))
    assert raw.parts["codes"].tolist() == [[1, 0], [MISSING_CODE, 1], [0, 0]]
    assert raw.parts["dates"][0].tolist() == [1_580_428_800_000_000, 1_580_432_400_000_000]  # 01:00 in UTC
    assert (raw.info.task, raw.info.targets, raw.y.tolist()) == ("regression", 1, [[0.5], [1.25], [2.0]])


def test_every_format_of_the_same_table_gives_the_same_arrays(read):
    text = FRAME.select("n", "i", "y").fill_nan(None)
    ways = {
        "a.csv": text.write_csv,
        "a.csv.gz": lambda path: path.write_bytes(gzip.compress(text.write_csv().encode())),
        "a.csv.zst": lambda path: text.lazy().sink_csv(path, compression="zstd"),
        "a.tsv": lambda path: text.write_csv(path, separator="\t"),
        "a.txt": lambda path: text.write_csv(path, separator="|", include_bom=True, line_terminator="\r\n"),
        "quoted.csv": lambda path: text.write_csv(path, quote_style="always"),
        "a.parquet": text.write_parquet,
        "a.arrows": text.write_ipc_stream,
    }
    seen = {
        name: (done.digest, raw.info.columns) for name, way in ways.items() for done, raw in [read(way, name)]
    }
    assert len(set(seen.values())) == 1, seen


def test_many_batches_are_one_table(read):
    rows = 200_000
    frame = pl.DataFrame({"x": np.arange(rows) % 1000 / 8, "c": [f"c{i % 3}" for i in range(rows)]})
    frame = frame.with_columns(y=pl.int_range(rows) % 2)
    digests = set()
    for name, write in (
        ("a.csv", frame.write_csv),
        ("a.parquet", lambda path: frame.write_parquet(path, row_group_size=7000)),
        ("a.arrows", lambda path: frame.lazy().sink_ipc(path, record_batch_size=9000)),
    ):
        done, raw = read(write, name)
        assert raw.info.class_counts == (rows // 2, rows // 2)
        np.testing.assert_array_equal(raw.parts["numbers"][:, 0], frame["x"].to_numpy().astype(np.float32))
        np.testing.assert_array_equal(raw.parts["codes"][:, 0], np.arange(rows) % 3)
        np.testing.assert_array_equal(raw.y, np.arange(rows) % 2)
        digests.add(done.digest)
    assert len(digests) == 1


def test_a_column_that_turns_into_text_late_has_all_its_values(read):
    rows = [f"{i % 7},{i % 3}" for i in range(100_000)] + ["seven,1"]
    done, raw = read("x,y\n" + "\n".join(rows))
    (column,) = raw.info.columns
    assert column.categories == ("0", "1", "2", "3", "4", "5", "6", "seven")
    assert raw.parts["codes"][[6, 7, -1], 0].tolist() == [6, 0, 7]
    (note,) = [note for note in done.notes if note["code"] == "mixed_column"]
    assert "row 100001" in note["message"]
    assert "'seven'" in note["message"]


def test_gaps_before_the_first_word_are_no_numbers(read):
    done, _ = read("x,y\n" + ",1\n" * 3 + "red,0\nblue,1\n" * 3)
    assert "mixed_column" not in codes(done)
    done, _ = read("x,y\n" + ",1\n" * 3 + "7,0\nblue,1\n" * 3)
    assert "mixed_column" in codes(done)


def test_a_wide_table(read):
    values = np.random.default_rng(0).normal(size=(30, 600)).astype(np.float32)
    frame = pl.DataFrame(values, schema=[f"x{index}" for index in range(600)])
    _, raw = read(frame.with_columns(y=pl.int_range(30) % 2).write_csv)
    np.testing.assert_array_equal(raw.parts["numbers"], values)


def test_quotes_hold_separators_newlines_and_quotes(read):
    _, raw = read('text,y\n"a, b",0\n"c\nd",1\n"say ""e""",0\n')
    assert raw.info.columns[0].categories == ("a, b", "c\nd", 'say "e"')


@pytest.mark.parametrize("header", ["x,y\n", "\n\n x,y \n\n", '"x","y"\r\n\r\n', ""])
def test_blank_lines_are_no_rows(read, header):
    _, raw = read(header + "1,0\n\n2.5,1\n,\n\n")
    assert raw.parts["numbers"][:, 0].tolist() == [1, 2.5]
    assert raw.info.target_names == (("y",) if header else ("column_2",))


@pytest.mark.parametrize(
    ("text", "header", "columns", "rows"),
    [
        ("a,b,y\n1,2,0\n3,4,1\n", None, ("a", "b"), 2),
        ("1,2,0\n3,4,1\n", None, ("column_1", "column_2"), 2),
        ("a,b,y\nc,d,x\ne,d,y\n", None, ("column_1", "column_2"), 3),
        ("a,b,y\nc,d,x\ne,f,z\n", None, ("a", "b"), 2),
        ("1,2,3\n5,6,0\n7,8,1\n", True, ("1", "2"), 2),
        ("a,b,y\nc,d,x\ne,f,z\n", False, ("column_1", "column_2"), 3),
        (",b,y\n1.5,2,0\n3,4,1\n", None, ("column_1", "b"), 2),
        (",y\n1.5,u\n3,v\n", None, ("column_1",), 2),
        ("row,y\n1.5,u\n3,v\n", None, ("row",), 2),
        (",red,u\n3,blue,v\n4.5,red,u\n", None, ("column_1", "column_2"), 3),
        ("2026-01-31,red,u\n2026-02-01,blue,v\n2026-02-03,grey,w\n", None, ("column_1", "column_2"), 3),
        ("true,red,u\nfalse,blue,v\ntrue,grey,w\n", None, ("column_1", "column_2"), 3),
        ("day,ok,y\n2026-02-01,true,v\n2026-02-03,false,w\n", None, ("day", "ok"), 2),
    ],
)
def test_a_header_is_found_or_given(read, text, header, columns, rows):
    done, raw = read(text, header=header)
    assert (tuple(each.name for each in raw.info.columns), raw.info.samples) == (columns, rows)
    assert ("no_header" in codes(done)) == (header is None and columns[-1] == "column_2")


def test_the_target_is_named_or_last(read):
    assert read("label,x,z\n0,1.5,2\n1,3,5\n")[1].info.target_names == ("label",)
    assert read("x,Class,label\n1.5,0,2\n3,1,5\n")[1].info.target_names == ("label",)
    assert read("a,b,c\n0,1.5,2\n1,3,5\n")[1].info.target_names == ("c",)
    done, raw = read("a,b,c\n0,1.5,2\n1,3,5\n", target=("a",), features=("c",))
    assert (raw.info.target_names, [each.name for each in raw.info.columns]) == (("a",), ["c"])
    assert "target_inferred" not in codes(done)


def test_several_targets_are_a_regression(read):
    _, raw = read("x,y,z\n1,2,3\n4,5,7\n", target=("y", "z"))
    assert (raw.info.task, raw.info.targets, raw.y.tolist()) == ("regression", 2, [[2, 3], [5, 7]])


@pytest.mark.parametrize(
    ("values", "given", "task", "classes"),
    [
        (["10", "9", "9.0"], None, "classification", ("9", "10")),
        (["0.5", "1", "2"], None, "regression", None),
        (["0.5", "1", "2"], "classification", "classification", ("0.5", "1", "2")),
        (["1", "2", "3"], "regression", "regression", None),
        (["true", "False", "true"], None, "classification", ("false", "true")),
        (["x", "1", "x"], None, "classification", ("1", "x")),
        ([str(number) for number in range(21)], None, "regression", None),
    ],
)
def test_the_task_follows_from_the_target(read, values, given, task, classes):
    text = "x,y\n" + "".join(f"{index * index / 2},{value}\n" for index, value in enumerate(values))
    done, raw = read(text, task=given)
    assert (raw.info.task, raw.info.classes) == (task, classes)
    assert ("task_inferred" in codes(done)) == (given is None)
    if classes == ("9", "10"):
        assert (raw.y.tolist(), raw.info.class_counts) == ([1, 0, 0], (2, 1))


def test_columns_that_cannot_help_are_left_out_and_told(read):
    text = "x,same,empty,number,name,long,y\n" + "".join(
        f"{row % 5},1,NA,{row + 100},name{row},{'long' * 100}{row % 2},{row % 2}\n" for row in range(30)
    )
    done, raw = read(text)
    assert [column.name for column in raw.info.columns] == ["x"]
    for code in ("constant_column", "empty_column", "id_column", "text_column"):
        assert code in codes(done)
    _, raw = read(text, features=("x", "same", "number", "empty"))
    assert [column.name for column in raw.info.columns] == ["x", "same", "number"]


@pytest.mark.parametrize(
    ("written", "second", "has_time"),
    [
        ("2020-02-01", 1580515200, False),
        ("2020-02-01 03:04:05", 1580526245, True),
        ("2020-02-01T03:04:05.5", 1580526245.5, True),
        ("2020-02-01T03:04:05Z", 1580526245, True),
        ("2020-02-01T03:04:05+02:00", 1580519045, True),
        ("2020-02-01 03:04", 1580526240, True),
        ("01.02.2020", 1580515200, False),
        ("2020/02/01", 1580515200, False),
        ("02/13/2020", 1581552000, False),
        ("13/02/2020", 1581552000, False),
    ],
)
def test_dates_are_read_in_many_ways(read, written, second, has_time):
    _, raw = read(f"when,x,y\n{written},1.5,0\n,2,1\n")
    assert raw.info.columns[0] == Column("when", "date", 1, None, has_time)
    assert raw.parts["dates"][:, 0].tolist() == [int(second * 1_000_000), MISSING_DATE]


def test_notes_tell_what_may_surprise(read):
    done, raw = read("d,big,y\n01/02/2020,16777219,0\n03/02/2020,5,1\n05/02/2020,7,1\n")
    assert {"ambiguous_dates", "rounded_numbers", "rare_classes"} <= set(codes(done))
    assert raw.parts["dates"][0, 0] == 1_580_515_200_000_000


def test_a_large_file_is_read_in_little_memory(tmp_path):
    """In memory the table would be 366 MiB; what is counted is beyond the libraries."""
    rows, path = 3_000_000, tmp_path / "large.parquet"
    one = pl.DataFrame({f"x{index}": np.arange(1000.0) * (index + 1) for index in range(16)})
    one = one.with_columns(y=pl.int_range(pl.len()) % 2)
    pl.concat([one.lazy()] * (rows // 1000)).sink_parquet(path, row_group_size=100_000)
    (tmp_path / "folder").mkdir()
    program = """
import sys, pathlib
from epochd.datasets.ingest import ingest
from epochd.datasets.reading import Limits, Options, Source
import epochd.datasets.readers.table
def peak():
    return int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
path, before = pathlib.Path(sys.argv[1]), peak()
done = ingest(Source(path, path.name), Options("large"), Limits(), path.parent / "folder")
print(done.info.samples, peak() - before)
"""
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    samples, mebibytes = map(int, ran.stdout.split())
    assert samples == rows
    assert mebibytes < 256
