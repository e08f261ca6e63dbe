import io
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from epochd.datasets.ingest import ingest
from epochd.datasets.reading import Limits, Options, Source
from epochd.datasets.stored import open_stored
from epochd.errors import InvalidDatasetError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width=6, height=4, mode="RGB", seed=0, kind="PNG", **options):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return encoded(Image.fromarray(pixels, mode), kind, **options)


def archive(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


def classes(**extra):
    return {"cat/1.png": picture(seed=1), "cat/2.png": picture(seed=2), "dog/1.png": picture(seed=3), **extra}


@pytest.fixture
def read(tmp_path):
    def read(content, options=None, limits=None, name="pets.zip"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else archive(content))
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        ingested = ingest(Source(path, name), Options("mine", **(options or {})), limits or Limits(), folder)
        return ingested, open_stored(folder)

    return read


def refused(read, content, *arguments, **named):
    with pytest.raises(InvalidDatasetError) as caught:
        read(content, *arguments, **named)
    return caught.value


def test_a_folder_is_a_class_and_pixels_are_kept(read):
    ingested, data = read(classes())
    info = ingested.info
    assert (info.kind, info.shape, info.classes, info.class_counts) == (
        "image",
        (3, 4, 6),
        ("cat", "dog"),
        (2, 1),
    )
    assert data.y.tolist() == [0, 0, 1]
    expected = np.asarray(Image.open(io.BytesIO(picture(seed=3)))).transpose(2, 0, 1)
    assert np.array_equal(data.parts["x"][2], expected)
    assert data.parts["x"].dtype == np.uint8
    assert ingested.preview["rows"] == [["cat/1.png", "cat"], ["cat/2.png", "cat"], ["dog/1.png", "dog"]]


def test_the_order_in_the_archive_and_its_compression_change_nothing(read):
    one, _ = read(archive(classes()))
    other, _ = read(archive(dict(reversed(classes().items())), zipfile.ZIP_DEFLATED))
    assert one.digest == other.digest


def test_folders_around_and_what_systems_leave_behind_are_left_out(read):
    around = {f"pets/all/{name}": content for name, content in classes().items()}
    rubbish = {"__MACOSX/pets/._1.png": b"x", "pets/.DS_Store": b"x", "pets/all/cat/Thumbs.db": b"x"}
    ingested, _ = read({**around, **rubbish, "pets/all/README.txt": b"hello", "pets/all/cat/": b""})
    assert ingested.digest == read(classes())[0].digest
    assert [note["code"] for note in ingested.notes] == ["files_ignored"]


def test_the_size_is_that_of_most_within_64_or_the_one_asked_for(read):
    mixed = classes(**{"dog/2.png": picture(9, 9)})
    ingested, data = read(mixed)
    assert data.info.shape == (3, 4, 6)
    assert ingested.notes[0]["code"] == "images_resized"
    assert read(mixed, {"image_size": (8, 5)})[1].info.shape == (3, 8, 5)
    large = {"a/1.jpg": picture(400, 200, kind="JPEG"), "b/1.jpg": picture(400, 200, kind="JPEG")}
    assert read(large)[1].info.shape == (3, 32, 64)


def test_one_colour_stays_that_colour_in_every_mode(read):
    red = Image.new("RGB", (200, 100), (255, 0, 0))
    clear = Image.new("RGBA", (200, 100), (0, 0, 0, 0))
    members = {
        "a/plain.png": encoded(red), "a/palette.png": encoded(red.quantize(4)),
        "a/cmyk.jpg": encoded(red.convert("CMYK"), "JPEG", quality=95),
        "a/alpha.png": encoded(red.convert("RGBA")), "b/clear.png": encoded(clear),
        "b/clear_palette.png": encoded(red.quantize(2), transparency=0),
    }  # fmt: skip
    _, data = read(members, {"image_size": (4, 4)})
    for pixels in data.parts["x"][:4]:
        assert np.abs(pixels.astype(int) - np.array([255, 0, 0]).reshape(3, 1, 1)).max() < 10
    assert (data.parts["x"][4:] == 255).all()


def test_grey_images_have_one_channel_and_16_bits_are_scaled(read):
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))
    members = {
        "a/1.png": encoded(deep),
        "b/1.png": picture(8, 8, "L"),
        "b/2.png": encoded(Image.new("1", (8, 8), 1)),
    }
    _, data = read(members)
    assert data.info.shape == (1, 8, 8)
    assert data.parts["x"][0].flatten().tolist() == [value * 1000 >> 8 for value in range(64)]
    assert (data.parts["x"][2] == 255).all()


def test_photographs_are_turned_as_the_camera_was(read):
    image = Image.new("RGB", (16, 8), "white")
    image.paste("black", (0, 0, 16, 4))  # dark above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: dark on the right
    content = encoded(image, "JPEG", exif=exif, quality=95)
    _, data = read({"a/1.jpg": content, "b/1.jpg": content})
    assert data.info.shape == (3, 16, 8)
    assert data.parts["x"][0, 0, :, 0].min() > 200
    assert data.parts["x"][0, 0, :, 7].max() < 50


FILES = {"images/b.png": picture(seed=1), "images/a.png": picture(seed=2), "images/c.png": picture(seed=3)}


@pytest.mark.parametrize(
    "rows",
    [
        "file,label\nimages/b.png,x\nimages/a.png,y\nimages/c.png,x\n",
        "\ufefflabel,filename\r\nx,b.png\r\ny,a.png\r\nx,c.png\r\n",
        "b.png,x\na.png,y\nc.png,x",
    ],
)
def test_a_list_gives_labels_and_order(read, rows):
    _, data = read({**FILES, "labels.csv": rows})
    assert (data.info.classes, data.y.tolist()) == (("x", "y"), [0, 1, 0])
    expected = np.asarray(Image.open(io.BytesIO(FILES["images/b.png"]))).transpose(2, 0, 1)
    assert np.array_equal(data.parts["x"][0], expected)


def test_a_list_may_hold_numbers(read):
    listed = "file,label,age\nb.png,0,1.5\na.png,1,2.5\nc.png,0,4\n"
    _, data = read({**FILES, "labels.csv": listed}, {"target": ("age",)})
    assert (data.info.task, data.y[:, 0].tolist()) == ("regression", [1.5, 2.5, 4.0])
    _, data = read({**FILES, "labels.csv": listed}, {"target": ("age", "label")})
    assert (data.info.targets, data.y.shape, data.info.target_names) == (2, (3, 2), ("age", "label"))


@pytest.mark.parametrize(
    ("rows", "options", "code", "row", "says"),
    [
        ("file,label\nb.png,x\na.png,y\nc.png,x\nd.png,x\n", {}, "missing_file", 4, "names 'd.png'"),
        ("file,label\nb.png,x\n../../etc/passwd,y\n", {}, "missing_file", 2, "not in the archive"),
        ("file,label\nb.png,x\nb.png,y\n", {}, "duplicate_row", 2, "Rows 1 and 2"),
        ("file,label\nb.png,x\na.png,\nc.png,x\n", {}, "missing_target", 2, "has no 'label'"),
        ("file,label\nb.png,x\na.png\nc.png,x\n", {}, "missing_target", 2, "has no 'label'"),
        ("file,label\nb.png,x,1\na.png,y\nc.png,x\n", {}, "ragged_rows", None, "cannot be read as CSV"),
        ("file,label\n", {}, "no_rows", None, "no rows"),
        ("", {}, "empty_file", None, "is empty"),
        ("file\nb.png\n", {}, "missing_column", None, "needs two"),
        ("file,label\nb.png,x\n", {"target": ("age",)}, "unknown_target", None, "no column 'age'"),
        (
            "file,label\nb.png,1\na.png,y\nc.png,2\n",
            {"task": "regression"},
            "non_numeric_target",
            2,
            "is 'y'",
        ),
        (b"file,label\nb.png,x\na.png,\xe4\n", {}, "wrong_encoding", 2, "line 3"),
    ],
)
def test_what_is_wrong_in_a_list_is_said_with_its_row(read, rows, options, code, row, says):
    error = refused(read, {**FILES, "labels.csv": rows}, options)
    assert (error.errors[0].code, error.row, error.file) == (code, row, "labels.csv")
    assert says in error.message


def test_a_file_that_the_list_leaves_out_is_named(read):
    error = refused(read, {**FILES, "labels.csv": "file,label\nb.png,x\na.png,y\n"})
    assert (error.errors[0].code, error.file) == ("unlabelled_file", "images/c.png")


WHOLE = picture(300, 300)
JPEG = picture(300, 300, kind="JPEG")


@pytest.mark.parametrize(
    ("members", "code", "file"),
    [
        ({"cat/bad.png": WHOLE[: len(WHOLE) // 2]}, "truncated_image", "cat/bad.png"),
        ({"cat/bad.jpg": JPEG[: len(JPEG) // 2]}, "truncated_image", "cat/bad.jpg"),
        ({"cat/bad.png": WHOLE[:20]}, "truncated_image", "cat/bad.png"),
        ({"cat/bad.png": b""}, "truncated_image", "cat/bad.png"),
        ({"cat/bad.png": b"<html>not found</html>"}, "not_an_image", "cat/bad.png"),
        ({"cat/bad.txt": b"hello"}, "not_an_image", "cat/bad.txt"),
        ({"cat/bad.gif": picture(kind="GIF")}, "unsupported_image", "cat/bad.gif"),
        ({"cat/bad.webp": picture(kind="WEBP")}, "unsupported_image", "cat/bad.webp"),
        ({"cat/small/1.png": WHOLE}, "nested_folders", "cat/small/1.png"),
        ({"1.png": WHOLE}, "no_class_folder", "1.png"),
        ({"../1.png": WHOLE}, "unsafe_path", "../1.png"),
        ({"cat/../../1.png": WHOLE}, "unsafe_path", "cat/../../1.png"),
        ({"cat\\..\\..\\1.png": WHOLE}, "unsafe_path", "cat\\..\\..\\1.png"),
        ({"/etc/1.png": WHOLE}, "unsafe_path", "/etc/1.png"),
        ({"C:\\1.png": WHOLE}, "unsafe_path", "C:\\1.png"),
        ({"labels.csv": b"a", "cat/labels.csv": b"b"}, "duplicate_file", "labels.csv"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(read, members, code, file):
    error = refused(read, classes(**members))
    assert (error.errors[0].code, error.file) == (code, file)


def test_one_class_or_none(read):
    assert refused(read, {"cat/1.png": WHOLE, "cat/2.png": WHOLE}).errors[0].code == "one_class"
    error = refused(read, {"hello.txt": b"hello"})
    assert (error.errors[0].code, error.file) == ("empty_file", "pets.zip")


def special(mode, name="cat/link.png"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = (mode | 0o777) << 16
        target.writestr(info, b"/etc/passwd")
    return file.getvalue()


def test_links_and_devices_are_refused(read):
    assert refused(read, special(stat.S_IFLNK)).errors[0].code == "link_in_archive"
    assert refused(read, special(stat.S_IFIFO)).errors[0].code == "special_file"


def test_encrypted_and_unusual_archives_are_refused(read):
    content = bytearray(archive(classes()))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    error = refused(read, bytes(content))
    assert (error.errors[0].code, error.file) == ("encrypted_archive", "cat/1.png")
    assert refused(read, archive(classes(), zipfile.ZIP_LZMA)).errors[0].code == "unsupported_compression"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(read):
    file = io.BytesIO(archive(classes()))
    with zipfile.ZipFile(file, "a") as target:
        target.writestr("cat/1.png", WHOLE)
    error = refused(read, file.getvalue())
    assert (error.errors[0].code, error.file) == ("duplicate_file", "cat/1.png")


def test_bombs_are_refused_before_they_are_unpacked(read):
    bomb = archive(classes(**{"cat/bomb.png": bytes(32 * 2**20)}), zipfile.ZIP_DEFLATED)
    error = refused(read, bomb)
    assert (error.errors[0].code, error.file) == ("decompression_bomb", "cat/bomb.png")
    assert refused(read, bomb, limits=Limits(unpacked_bytes=2**20)).errors[0].code == "too_large_unpacked"
    wide = {"a/1.png": encoded(Image.new("1", (20_000, 20_000))), "b/1.png": picture()}
    error = refused(read, wide)
    assert (error.errors[0].code, error.file) == ("too_many_pixels", "a/1.png")
    assert refused(read, classes(), limits=Limits(pixels=10)).errors[0].code == "too_many_pixels"
    error = refused(read, classes(), {"image_size": (4096, 4096)}, Limits(unpacked_bytes=2**20))
    assert error.errors[0].code == "too_large_unpacked"


def test_a_list_of_labels_that_is_too_large_is_not_unpacked(read):
    content = archive({**FILES, "labels.csv": bytes(2**28 + 1)}, zipfile.ZIP_DEFLATED)
    error = refused(read, content)
    assert (error.errors[0].code, error.file) == ("too_large_unpacked", "labels.csv")


def test_a_list_of_files_that_is_too_long_is_not_even_read(read):
    content = bytearray(archive(classes()))
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (2**31).to_bytes(4, "little")
    error = refused(read, bytes(content), {"format": "images"})
    assert error.errors[0].code == "too_many_entries"


def test_every_cut_and_every_changed_byte_is_an_answer(read):
    whole = archive({"a/1.png": picture(), "b/1.jpg": picture(kind="JPEG")}, zipfile.ZIP_DEFLATED)
    for length in range(1, len(whole), 97):
        assert refused(read, whole[:length]).errors[0].code in {"damaged_file", "unknown_format"}
    changed = 0
    for position in range(0, len(whole), 13):
        content = bytearray(whole)
        content[position] ^= 0x55
        try:
            read(bytes(content))
        except InvalidDatasetError:
            changed += 1
    assert changed > 20
