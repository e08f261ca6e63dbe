"""What a file is, told from its first bytes, and where these say little, from its name."""

from pathlib import Path
from typing import Final

from epochd.datasets.readers import archive
from epochd.datasets.reading import Source
from epochd.errors import InvalidDatasetError

CSV: Final = "csv"
PARQUET: Final = "parquet"
ARROW: Final = "arrow"
NPZ: Final = "npz"
SAFETENSORS: Final = "safetensors"
IMAGES: Final = "images"
JSON_LINES: Final = "jsonl"

ACCEPTED: Final = (
    "CSV (plain, gzip or zstd), Parquet, Arrow, NPZ, safetensors, a ZIP of images, or JSON lines"
)

GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
ZIP: Final = b"PK"
HEAD_BYTES: Final = 4096

_MAGIC: Final = (
    (b"PAR1", PARQUET),
    (b"ARROW1", ARROW),
    (b"\xff\xff\xff\xff", ARROW),  # the stream format: each message starts with this marker
)
_SUFFIXES: Final = {
    ".csv": CSV,
    ".tsv": CSV,
    ".txt": CSV,
    ".data": CSV,
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".arrow": ARROW,
    ".arrows": ARROW,
    ".ipc": ARROW,
    ".feather": ARROW,
    ".npz": NPZ,
    ".safetensors": SAFETENSORS,
    ".zip": IMAGES,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
}
_COMPRESSED: Final = (".gz", ".gzip", ".zst", ".zstd")
# What people send, and what would be right.
_STRANGERS: Final = (
    (b"\x93NUMPY", "a single NumPy array", "save both arrays with numpy.savez(file, x=…, y=…)"),
    (b"\x80\x02", "a pickle", "pickles are never opened, as they can run code; save arrays as NPZ"),
    (b"\x80\x03", "a pickle", "pickles are never opened, as they can run code; save arrays as NPZ"),
    (b"\x80\x04", "a pickle", "pickles are never opened, as they can run code; save arrays as NPZ"),
    (b"\x80\x05", "a pickle", "pickles are never opened, as they can run code; save arrays as NPZ"),
    (b"\x89PNG", "a single image", "send a ZIP with a folder of images for each class"),
    (b"\xff\xd8\xff", "a single image", "send a ZIP with a folder of images for each class"),
    (b"\x89HDF", "an HDF5 file", "save it as NPZ or Parquet"),
    (b"SQLite format 3", "an SQLite database", "save the table as CSV or Parquet"),
    (b"BZh", "compressed with bzip2", "compress it with gzip or zstd, or not at all"),
    (b"\xfd7zXZ", "compressed with xz", "compress it with gzip or zstd, or not at all"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "send a ZIP"),
    (b"Rar!", "a RAR archive", "send a ZIP"),
    (b"FEA1", "in Feather's first version", "save it as Arrow (Feather 2) or Parquet"),
    (b"ORC", "an ORC file", "save it as Parquet"),
    (b"Obj\x01", "an Avro file", "save it as Parquet"),
    (b"%PDF", "a PDF document", "save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save the sheet as CSV"),
)
_TAR_AT: Final = 257


def sniff(source: Source) -> str:
    """Tell a file's format, one of the names above.

    Raises InvalidDatasetError: ``empty_file``, or ``unknown_format`` for what is no data set that can be read here.
    """
    with source.path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise InvalidDatasetError(f"{source.name!r} is empty (0 bytes).", "empty_file", file=source.name)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(ZIP):
        return _zip(source)
    if _is_safetensors(head):
        return SAFETENSORS
    _refuse_strangers(source, head)
    return _text(source, head)


def suffix(name: str) -> str:
    """Take the ending of a file's name that tells its format, that of a compression left out."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _is_safetensors(head: bytes) -> bool:
    # The length of a JSON object in eight bytes, and the object.
    return len(head) > 8 and head[8:9] == b"{" and b"\0" in head[:8]  # noqa: PLR2004


def _zip(source: Source) -> str:
    try:
        names = archive.names(source)
    except InvalidDatasetError:
        # The reader says what is wrong with it.
        return NPZ if suffix(source.name) == ".npz" else IMAGES
    if "[Content_Types].xml" in names:
        raise _unknown(source, "an Office document", "save the sheet as CSV")
    if "data.pkl" in {name.rpartition("/")[2] for name in names}:
        raise _unknown(
            source, "a checkpoint of torch.save, which holds pickles", "save tensors x and y as safetensors"
        )
    return NPZ if names and all(name.endswith(".npy") for name in names) else IMAGES


def _refuse_strangers(source: Source, head: bytes) -> None:
    for magic, what, instead in _STRANGERS:
        if head.startswith(magic):
            raise _unknown(source, what, instead)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        raise _unknown(source, "a tar archive", "send a ZIP")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _unknown(source, "a page of HTML or XML", "send the table itself; was the link that of a page?")
    if start.startswith(b"["):
        raise _unknown(source, "one JSON array", 'send JSON lines: {"text": …, "label": …} on a line each')


def _text(source: Source, head: bytes) -> str:
    named = _SUFFIXES.get(suffix(source.name), CSV)
    if named in (CSV, JSON_LINES):
        if head.startswith((GZIP, ZSTD)):
            return named
        looks_json = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        return JSON_LINES if looks_json else named
    raise InvalidDatasetError(
        f"{source.name!r} is named like {_article(named)} file but does not start like one: it is damaged, or "
        f"something else. Accepted are {ACCEPTED}.",
        "unknown_format",
        file=source.name,
    )


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" or name == NPZ else f"a {name}"


def _unknown(source: Source, what: str, instead: str) -> InvalidDatasetError:
    end = "" if instead.endswith("?") else "."
    return InvalidDatasetError(
        f"{source.name!r} is {what}, which is not read here: {instead}{end} Accepted are {ACCEPTED}.",
        "unknown_format",
        file=source.name,
    )
