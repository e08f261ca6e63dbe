"""The text of a CSV file block by block, unpacked, and never more of it than is allowed."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import polars as pl

from epochd.datasets.reading import Limits, Source
from epochd.datasets.sniffing import GZIP, ZSTD
from epochd.errors import InvalidDatasetError

BLOCK_BYTES: Final = 2**20
LINE_BYTES: Final = 2**24
"""Longest line that is read: more is no table, or a bomb."""
_ZSTD_LINES: Final = 8192
_ZSTD_BLOCK_BYTES: Final = 2**17
_ZSTD_MAGIC_NUMBER: Final = 0xFD2FB528


def blocks(source: Source, limits: Limits) -> Iterator[bytes]:
    """Whole lines, some 1 MiB at a time; the last line may lack its end.

    Raises InvalidDatasetError: ``damaged_file``, ``wrong_encoding``, ``line_too_long``, ``too_large_unpacked``.
    """
    carry, total = b"", 0
    for block in _unpacked(source, limits):
        total += len(block)
        if total > limits.unpacked_bytes:
            raise too_large(source, limits)
        head, end, tail = block.rpartition(b"\n")
        if end:
            yield carry + head + end
            carry = tail
        else:
            carry += tail
        if len(carry) > LINE_BYTES:
            raise _line_too_long(source)
    if carry:
        yield carry


def head(source: Source, limits: Limits, size: int) -> bytes:
    """Take about the first ``size`` bytes, in whole lines where there are several."""
    start = b""
    for block in blocks(source, limits):
        start += block
        if len(start) >= size:
            break
    cut = start[:size].rpartition(b"\n")
    return start if len(start) <= size or not cut[1] else cut[0] + cut[1]


def too_large(source: Source, limits: Limits) -> InvalidDatasetError:
    """Say that a file unpacks to more than is allowed."""
    return InvalidDatasetError(
        f"{source.name!r} unpacks to more than the {limits.unpacked_bytes} bytes that are allowed.",
        "too_large_unpacked",
        file=source.name,
    )


def damaged(source: Source, why: str) -> InvalidDatasetError:
    """Say that a file is not whole, or not what its first bytes promise."""
    return InvalidDatasetError(
        f"{source.name!r} is damaged or was cut off ({why}); send it again, whole.",
        "damaged_file",
        file=source.name,
    )


def _unpacked(source: Source, limits: Limits) -> Iterator[bytes]:
    with source.path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(GZIP):
            yield from _gunzipped(file, source)
        elif magic.startswith(ZSTD):
            if _zstd_bound(file) > limits.unpacked_bytes + _ZSTD_BLOCK_BYTES:
                raise too_large(source, limits)
            yield from _unzstd(source)
        else:
            yield from iter(lambda: file.read(BLOCK_BYTES), b"")


def _gunzipped(file: BinaryIO, source: Source) -> Iterator[bytes]:
    """Every member of a gzip file, at most ``BLOCK_BYTES`` at a time, so that no bomb goes off."""
    member, packed = zlib.decompressobj(wbits=31), b""
    while packed := packed or file.read(BLOCK_BYTES):
        if member.eof:
            member = zlib.decompressobj(wbits=31)
        try:
            block = member.decompress(packed, BLOCK_BYTES)
        except zlib.error as error:
            raise damaged(source, f"gzip: {error}") from error
        packed = member.unused_data if member.eof else member.unconsumed_tail
        if block:
            yield block
    if not member.eof:
        raise damaged(source, "gzip: it ends before its data does")


def _zstd_bound(file: BinaryIO) -> int:
    """Bytes that all frames unpack to at most, read from the headers of their blocks (RFC 8878, 3.1.1).

    A block never unpacks to more than 128 KiB. What is no frame is left for the decoder to complain about.
    """
    bound = 0
    while (frame := file.read(5)) and len(frame) == 5:  # noqa: PLR2004 - magic number and descriptor
        if int.from_bytes(frame[:4], "little") != _ZSTD_MAGIC_NUMBER:
            break
        single, checksum = frame[4] >> 5 & 1, frame[4] >> 2 & 1
        content = (single, 2, 4, 8)[frame[4] >> 6]
        file.seek((0, 1, 2, 4)[frame[4] & 3] + content + (1 - single), 1)
        bound += _zstd_blocks(file)
        file.seek(4 * checksum, 1)
    return bound


def _zstd_blocks(file: BinaryIO) -> int:
    bound, last = 0, False
    while not last and len(header := file.read(3)) == 3:  # noqa: PLR2004 - a block's header
        value = int.from_bytes(header, "little")
        last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
        bound += _ZSTD_BLOCK_BYTES if kind > 1 else size
        file.seek(1 if kind == 1 else size, 1)
    return bound


def _unzstd(source: Source) -> Iterator[bytes]:
    lines = 0
    try:
        batches = pl.scan_lines(source.path, glob=False).collect_batches(
            chunk_size=_ZSTD_LINES, maintain_order=True, lazy=True, engine="streaming"
        )
        for batch in batches:
            lines += len(batch)
            yield (batch.to_series().str.join("\n").item() + "\n").encode()
    except pl.exceptions.ComputeError as error:
        raise wrong_encoding(source, lines) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(source, f"zstd: {error}") from error


def wrong_encoding(source: Source, line: int, around: bytes = b"", row: int = 0) -> InvalidDatasetError:
    """Say in which line there is something that is not UTF-8, or after which, and guess what it is."""
    where = f"in line {line}" if around else f"after line {line}"
    guess = f" (as Windows-1252 it reads {around.decode('cp1252', 'replace')!r})" if around else ""
    return InvalidDatasetError(
        f"{source.name!r} is not UTF-8 {where}{guess}; save it as UTF-8.",
        "wrong_encoding",
        file=source.name,
        row=row or None,
    )


def _line_too_long(source: Source) -> InvalidDatasetError:
    return InvalidDatasetError(
        f"{source.name!r} has a line of more than {LINE_BYTES} bytes; a table has a line for each sample.",
        "line_too_long",
        file=source.name,
    )
