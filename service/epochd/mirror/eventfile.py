"""TensorBoard's event files, as far as scalars, texts and hyperparameters need them.

A file is a sequence of records (length, CRC, data, CRC), each an ``Event`` as protocol buffers write it. There are few
enough kinds to write them by hand: whole columns at once, tens of times faster than a message a value, and without a
library that takes longer to import than a job to train. Formats: tensorflow/core/util/event.proto,
tensorflow/core/framework/summary.proto, tensorboard/plugins/hparams/plugin_data.proto and TFRecord.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from epochd.mirror.targets import Series

Bytes = npt.NDArray[np.uint8]
Bounds = npt.NDArray[np.int64]
"""A row a record: where its data begin and end."""

_FIXED64, _BYTES, _FIXED32 = 1, 2, 5
_HEADER: Final = 12
_FOOTER: Final = 4
_STEP: Final = 10
"""Where the step begins, after the time and its own key."""
_CASTAGNOLI: Final = 0x82F63B78
_MASK: Final = 0xA282EAD8
_DT_STRING: Final = 7
CHUNK_BYTES: Final = 2**21
SUCCESS: Final = 1
"""Of a session's end, as the hyperparameters' plug-in counts."""


def version(time: float) -> bytes:
    """Write the record that every file begins with."""
    return _record(_event(time, 0, 3, b"brain.Event:2"))


def scalars(series: Series) -> bytes:
    """Write a record a value."""
    tag = _field(1, series.key.encode())
    parts = []
    for length in np.unique(sizes := _varint_sizes(series.steps)):
        here = sizes == length
        parts.append(_scalars(tag, int(length), series.steps[here], series.values[here], series.times[here]))
    return b"".join(parts)  # steps ascend, and so do their lengths


def text(tag: str, step: int, time: float, markdown: str) -> bytes:
    """Write a text for the plug-in of texts."""
    shape = _field(2, _field(2, _number(1, 1)))
    tensor = _number(1, _DT_STRING) + shape + _field(8, markdown.encode())
    value = _field(1, tag.encode()) + _field(8, tensor) + _field(9, _plugin("text", b""))
    return _record(_event(time, step, 5, _field(1, value)))


def session_start(tag: str, time: float, started: float, values: Mapping[str, Any]) -> bytes:
    """Write a run's hyperparameters."""
    entries = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, _hyperparameter(value)))
        for key, value in values.items()
    )
    return _hparams(tag, time, 3, entries + _double(5, started))


def session_end(tag: str, time: float, ended: float) -> bytes:
    """Write that a run with hyperparameters has succeeded."""
    return _hparams(tag, time, 4, _number(1, SUCCESS) + _double(2, ended))


def newest_steps(path: Path) -> dict[str, int]:
    """Read the newest step of each tag, as far as TensorBoard reads a file: up to its first damaged record.

    A chunk of the file at a time is in memory, or a record that is longer.
    """
    steps: dict[str, int] = {}
    left = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            data = left + chunk
            sound, is_whole = _sound(data)
            for tag, step in _newest(data, sound):
                steps[tag] = max(steps.get(tag, 0), step)
            left = data[sound[-1][1] + _FOOTER :] if len(sound) else data
            if not is_whole or not _may_begin(left):
                break
    return steps


def _may_begin(data: bytes) -> bool:
    """Whether more of the file may make a record of this: a damaged length is not waited for."""
    head = np.frombuffer(data[:_HEADER], np.uint8)[None, :]
    return len(data) < _HEADER or bool(_has_checksum(head[:, :8], head[:, 8:])[0])


def _scalars(tag: bytes, size: int, steps: Any, values: Any, times: Any) -> bytes:
    """Write records that are all of one length: their steps take ``size`` bytes."""
    value = tag + _key(2, _FIXED32) + bytes(4)
    event = _key(1, _FIXED64) + bytes(8) + _key(2, 0) + bytes(size) + _field(5, _field(1, value))
    rows = np.tile(np.frombuffer(_record(event), np.uint8), (len(steps), 1))
    rows[:, _HEADER + 1 : _HEADER + 9] = times.astype("<f8")[:, None].view(np.uint8)
    rows[:, _HEADER + 10 : _HEADER + 10 + size] = _varints(steps, size)
    with np.errstate(over="ignore"):  # beyond what a float holds is infinite
        rows[:, -_FOOTER - 4 : -_FOOTER] = values.astype("<f4")[:, None].view(np.uint8)
    rows[:, -_FOOTER:] = _checksums(rows[:, _HEADER:-_FOOTER]).astype("<u4")[:, None].view(np.uint8)
    return rows.tobytes()


def _event(time: float, step: int, field: int, content: bytes) -> bytes:
    return _double(1, time) + _number(2, step) + _field(field, content)


def _plugin(name: str, content: bytes) -> bytes:
    return _field(1, _field(1, name.encode()) + _field(2, content))


def _hparams(tag: str, time: float, field: int, content: bytes) -> bytes:
    value = _field(1, tag.encode()) + _field(9, _plugin("hparams", _field(field, content)))
    return _record(_event(time, 0, 5, _field(1, value)))


def _hyperparameter(value: Any) -> bytes:
    if isinstance(value, bool):
        return _number(4, int(value))
    return _double(2, float(value)) if isinstance(value, int | float) else _field(3, str(value).encode())


def _key(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, _FIXED64) + struct.pack("<d", value)


def _field(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    steps = np.array([value], dtype=np.int64)
    return _varints(steps, int(_varint_sizes(steps)[0])).tobytes()


def _varint_sizes(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    limits = np.left_shift(np.int64(1), np.arange(7, 63, 7, dtype=np.int64))
    return np.searchsorted(limits, values, side="right") + 1


def _varints(values: npt.NDArray[np.int64], size: int) -> Bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the highest bit set."""
    shifted = values[:, None] >> (7 * np.arange(size, dtype=np.int64))
    return (shifted & 0x7F | np.where(np.arange(size) < size - 1, 0x80, 0)).astype(np.uint8)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    return bytes(_checksums(np.frombuffer(data, np.uint8)[None, :]).astype("<u4").tobytes())


def _table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _CASTAGNOLI, table >> 1).astype(np.uint32)
    return table


_CRC_TABLE = _table()


def _checksums(rows: Bytes) -> npt.NDArray[np.uint32]:
    """The masked CRC-32C of each row."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = _CRC_TABLE[(crc ^ column) & 0xFF] ^ crc >> np.uint32(8)
    crc = ~crc
    return (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK)


def _sound(data: bytes) -> tuple[Bounds, bool]:
    """Where the data of the records begin and end, up to the first that is torn or damaged; whether none is damaged."""
    found, position = [], 0
    while position + _HEADER + _FOOTER <= len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        end = position + _HEADER + length
        if end + _FOOTER > len(data):
            break
        found.append((position + _HEADER, end))
        position = end + _FOOTER
    bounds = np.array(found, dtype=np.int64).reshape(-1, 2)
    first = _first_damaged(data, bounds)
    return bounds[:first], first == len(bounds)


def _first_damaged(data: bytes, bounds: Bounds) -> int:
    first = len(bounds)
    for mine, rows in _by_length(data, bounds):
        right = _has_checksum(rows[:, :8], rows[:, 8:_HEADER])
        right &= _has_checksum(rows[:, _HEADER:-_FOOTER], rows[:, -_FOOTER:])
        first = min(first, *mine[~right].tolist(), first)
    return first


def _by_length(data: bytes, bounds: Bounds) -> Iterator[tuple[npt.NDArray[np.int64], Bytes]]:
    """Give the records of each length at once: their places, and all their bytes as rows."""
    everything = np.frombuffer(data, np.uint8)
    lengths = bounds[:, 1] - bounds[:, 0]
    for length in np.unique(lengths):
        mine = np.flatnonzero(lengths == length)
        yield mine, everything[bounds[mine, :1] + np.arange(-_HEADER, length + _FOOTER)]


def _newest(data: bytes, bounds: Bounds) -> Iterator[tuple[str, int]]:
    """Give tags and steps of events, the newest step of each tag among them: of those in a row the last."""
    for _, rows in _by_length(data, bounds):
        events = rows[:, _HEADER:-_FOOTER]
        if events.shape[1] <= _STEP:  # none that was written here
            continue
        sizes = (events[:, _STEP:20] < 0x80).argmax(axis=1) + 1  # noqa: PLR2004 - the highest bit says that more follows
        for size in np.unique(sizes):
            same = events[sizes == size]
            texts = same[:, _STEP + size : -4]
            is_last = np.append((texts[1:] != texts[:-1]).any(axis=1), True)
            yield from filter(None, (_tag_and_step(event.tobytes()) for event in same[is_last]))


def _has_checksum(rows: Bytes, checksums: Bytes) -> npt.NDArray[np.bool_]:
    return np.asarray(_checksums(rows) == np.ascontiguousarray(checksums).view("<u4")[:, 0])


def _tag_and_step(event: bytes) -> tuple[str, int] | None:
    """Read an event that was written here: time, step, and a summary of one value, which begins with its tag."""
    step, position = _read_varint(event, _STEP)
    if event[position : position + 1] != _key(5, _BYTES):
        return None
    for _ in range(2):  # into the summary, and its value
        _, position = _read_varint(event, position + 1)
    length, position = _read_varint(event, position + 1)
    return event[position : position + length].decode(errors="replace"), step


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follows
            break
    return value, position
