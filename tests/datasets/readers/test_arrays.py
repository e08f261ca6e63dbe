import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from epochd.datasets.ingest import ingest
from epochd.datasets.reading import Limits, Options, Source
from epochd.datasets.stored import open_stored
from epochd.errors import InvalidDatasetError

LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def read(tmp_path):
    """Ingest what a call of a library wrote, and give both the answer and the data."""

    def read(content, options=None, limits=None, name="data.npz"):
        path = tmp_path / name
        path.write_bytes(content)
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        ingested = ingest(Source(path, name), Options("mine", **(options or {})), limits or Limits(), folder)
        return ingested, open_stored(folder)

    return read


def npz(*, compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def refused(read, content, *arguments, **named):
    with pytest.raises(InvalidDatasetError) as caught:
        read(content, *arguments, **named)
    return caught.value


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_and_columns_are_a_table_whose_gaps_are_counted(read, compressed):
    x = np.arange(12.0).reshape(6, 2)
    x[3, 1] = np.nan
    ingested, data = read(npz(x=x, y=LABELS, compressed=compressed))
    assert (ingested.info.kind, ingested.info.shape, ingested.info.task) == ("table", (2,), "classification")
    assert [(column.name, column.missing) for column in data.info.columns] == [("x0", 0), ("x1", 1)]
    assert np.array_equal(data.parts["numbers"], x.astype(np.float32), equal_nan=True)
    assert data.y.tolist() == LABELS.tolist()
    assert (data.info.classes, data.info.class_counts) == (("0", "1", "2"), (2, 2, 2))
    assert ingested.preview["rows"][3] == [6.0, None, 0]
    assert {note["code"] for note in ingested.notes} == {
        "kind_inferred",
        "precision_reduced",
        "task_inferred",
    }


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "stored"),
    [
        ((6, 3, 4, 5), np.uint8, "image", (3, 4, 5)),
        ((6, 1, 4, 5), np.float32, "image", (1, 4, 5)),
        ((6, 5, 7, 3), np.uint8, "image", (3, 5, 7)),
        ((6, 4, 5), np.uint8, "image", (1, 4, 5)),
        ((6, 4, 5), np.float32, "array", (4, 5)),
        ((6, 2, 4, 5), np.float64, "array", (2, 4, 5)),
        ((6, 2, 2, 2, 2), np.int16, "array", (2, 2, 2, 2)),
        ((6, 5000), np.float32, "array", (5000,)),
        ((6,), np.int32, "table", (1,)),
    ],
)
def test_the_shape_says_what_samples_are(read, shape, dtype, kind, stored):
    x = (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)
    ingested, data = read(npz(x=x, y=LABELS))
    assert (ingested.info.kind, data.info.shape) == (kind, stored)
    part = data.parts["numbers" if kind == "table" else "x"]
    expected = np.moveaxis(x, -1, 1) if shape == (6, 5, 7, 3) else x.reshape(6, *stored)
    assert np.array_equal(part, expected)
    assert part.dtype == (np.uint8 if (kind, dtype) == ("image", np.uint8) else np.float32)


def test_safetensors_give_the_same_data_as_npz(read):
    x = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)
    one, _ = read(npz(x=x, y=LABELS))
    other, _ = read(safetensors.numpy.save({"x": x, "y": LABELS}), name="data.safetensors")
    assert one.digest == other.digest
    assert (one.format, other.format) == ("npz", "safetensors")


def test_an_order_in_memory_and_the_rows_at_once_change_nothing(read, monkeypatch):
    x = np.random.default_rng(0).normal(size=(500, 3, 5)).astype(">f4")
    y = np.arange(500) % 7
    one, _ = read(npz(x=x, y=y))
    monkeypatch.setattr("epochd.datasets.readers.array_files._BYTES_AT_ONCE", 1000)
    other, data = read(npz(x=np.asfortranarray(x), y=y, compressed=True))
    assert one.digest == other.digest
    assert np.array_equal(data.parts["x"], x)
    assert data.y.tolist() == y.tolist()


@pytest.mark.parametrize(
    ("y", "options", "expected"),
    [
        (np.linspace(0, 1, 6), {}, ("regression", None)),
        (np.arange(6), {}, ("regression", None)),
        (np.array([5, 7, 5, 7, 5, 7]), {}, ("classification", ("5", "7"))),
        (np.array([5, 7, 5, 7, 5, 7]), {"task": "regression"}, ("regression", None)),
        (np.array([0.5, 2, 0.5, 2, 2, 2]), {"task": "classification"}, ("classification", ("0.5", "2"))),
        (np.array([True, False] * 3), {}, ("classification", ("false", "true"))),
        (np.array(["b", "ä", "b", "a", "a", "b"]), {}, ("classification", ("a", "b", "ä"))),
        (np.array([b"10", b"9"] * 3), {}, ("classification", ("9", "10"))),
    ],
)
def test_the_task_is_told_from_the_targets_or_given(read, y, options, expected):
    _, data = read(npz(x=np.eye(6), y=y), options)
    assert (data.info.task, data.info.classes) == expected
    if data.info.classes is not None:
        names = [data.info.classes[label] for label in data.y]
        shown = [name.decode() if isinstance(name, bytes) else name for name in y.tolist()]
        assert names == [str(name).lower() if y.dtype == bool else f"{name:g}" if y.dtype.kind in "if" else name
                         for name in shown]  # fmt: skip
    else:
        assert np.allclose(data.y[:, 0], y)


def test_several_targets_and_arrays_by_their_names(read):
    y = np.arange(12.0).reshape(6, 2)
    ingested, data = read(npz(a=np.eye(6), b=y, c=y), {"features": ("a",), "target": ("b",)})
    assert (data.info.targets, data.info.target_names) == (2, ("b0", "b1"))
    assert np.array_equal(data.y, y)
    assert "'a'" in next(note["message"] for note in ingested.notes if note["code"] == "unused_arrays")


X = np.zeros((6, 2))
NAN, INFINITE, HUGE = X.copy(), X.copy(), X.copy()
NAN[4, 1], INFINITE[4, 1], HUGE[4, 1] = np.nan, np.inf, 1e300


@pytest.mark.parametrize(
    ("arrays", "options", "code", "row", "says"),
    [
        ({"y": LABELS}, {}, "missing_array", None, "There is no array 'x' in the file; there are: 'y'"),
        ({"x": X, "y": LABELS}, {"target": ("z",)}, "missing_array", None, "no array 'z'"),
        ({"x": X, "y": LABELS}, {"target": ("y", "x")}, "one_array_only", None, "Name one array"),
        ({"x": X, "y": LABELS}, {"target": ("x",)}, "target_is_feature", None, "both features and target"),
        ({"x": X, "y": LABELS[:5]}, {}, "row_mismatch", None, "'x' has 6 rows and 'y' has 5"),
        ({"x": X[:0], "y": LABELS[:0]}, {}, "empty_file", None, "is empty"),
        ({"x": np.float64(1), "y": LABELS}, {}, "no_samples_axis", None, "'x' is a single number"),
        ({"x": X, "y": np.zeros(6, int)}, {}, "one_class", None, "All 6 samples are of the one class '0'"),
        ({"x": X, "y": np.zeros(6)}, {}, "constant_target", None, "All 6 targets are equal"),
        ({"x": X, "y": np.zeros((6, 2, 2))}, {}, "target_shape", None, "shape (6, 2, 2)"),
        ({"x": X, "y": X}, {"task": "classification"}, "target_shape", None, "needs one label"),
        ({"x": X, "y": NAN[:, 1]}, {}, "missing_target", 5, "Row 5: 'y' is not a number"),
        ({"x": X, "y": INFINITE[:, 1]}, {}, "infinite_target", 5, "infinite"),
        ({"x": X, "y": HUGE[:, 1]}, {}, "target_out_of_range", 5, "scale it down"),
        ({"x": X, "y": np.array(["a", "b", " ", "a", "a", "a"])}, {}, "missing_target", 3, "is empty"),
        ({"x": X, "y": np.array(["a", "b"] * 3)}, {"task": "regression"}, "non_numeric_target", 1, "needs a number"),
        ({"x": X, "y": np.array([b"\xff"] * 6)}, {}, "wrong_encoding", 1, "not UTF-8"),
        ({"x": INFINITE, "y": LABELS}, {}, "infinite_value", 5, "Row 5 of 'x' has the value inf at [1]"),
        ({"x": HUGE, "y": LABELS}, {}, "infinite_value", 5, "1e+300"),
        ({"x": NAN.reshape(6, 1, 1, 2), "y": LABELS}, {}, "missing_value", 5, "arrays have no gaps"),
        ({"x": X.astype(complex), "y": LABELS}, {}, "non_numeric_array", None, "complex"),
        ({"x": X.astype("U"), "y": LABELS}, {}, "non_numeric_array", None, "strings"),
        ({"x": X.astype("M8[s]"), "y": LABELS}, {}, "non_numeric_array", None, "dates"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(read, arrays, options, code, row, says):
    error = refused(read, npz(**arrays), options)
    assert (error.errors[0].code, error.row, error.file) == (code, row, "data.npz")
    assert says in error.message


def test_too_many_classes(read):
    y = np.arange(20_002) // 2
    error = refused(read, npz(x=np.zeros((20_002, 1)), y=y), {"task": "classification"})
    assert error.errors[0].code == "too_many_classes"
    words = refused(read, npz(x=np.zeros((20_002, 1)), y=y.astype("U")))
    assert words.errors[0].code == "too_many_classes"


class Harm:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_objects_are_never_unpickled(read):
    error = refused(read, npz(x=X, y=np.array([Harm()] * 6, object)))
    assert (error.errors[0].code, error.file) == ("pickled_objects", "y.npy")
    error = refused(read, pickle.dumps(Harm()))
    assert error.errors[0].code == "unknown_format"


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"no array at all",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (6, 1000000000000)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (6, 2)}") + b"\0" * 95,
        header("{'descr': '<f8', 'shape': (6, 2)}"),
        header("__import__('os').abort()"),
        header("(" * 5000),
    ],
)
def test_an_array_that_is_not_what_its_header_says(read, member):
    error = refused(read, zipped(x=member, y=b""))
    assert (error.errors[0].code, error.file) == ("damaged_file", "x.npy")


def test_every_cut_and_every_changed_byte_is_an_answer(read):
    whole = npz(x=np.arange(12.0).reshape(6, 2), y=LABELS, compressed=True)
    for length in range(1, len(whole), 7):
        assert refused(read, whole[:length]).errors[0].code in {"damaged_file", "unknown_format"}
    changed = 0
    for position in range(0, len(whole), 11):
        content = bytearray(whole)
        content[position] ^= 0x55
        try:
            read(bytes(content))
        except InvalidDatasetError:
            changed += 1
    assert changed > 20


def test_a_bomb_is_refused_before_it_is_unpacked(read):
    content = npz(x=np.zeros((6, 100_000)), y=LABELS, compressed=True)
    assert len(content) < 20_000
    error = refused(read, content, limits=Limits(unpacked_bytes=2**20))
    assert error.errors[0].code == "too_large_unpacked"


def test_tensors_that_numpy_does_not_have_and_files_that_end_early(read):
    content = safetensors.numpy.save({"x": X, "y": LABELS})
    error = refused(read, content[:-1], name="data.safetensors")
    assert error.errors[0].code == "damaged_file"
    brain = safetensors.numpy.save({"x": np.zeros((6, 2), np.float16), "y": LABELS}).replace(
        b'"F16"', b'"BF16"'
    )
    length = int.from_bytes(brain[:8], "little") + 1
    error = refused(read, length.to_bytes(8, "little") + brain[8:], name="data.safetensors")
    assert error.errors[0].code == "unsupported_type"
    assert "BF16" in error.message
