"""Thrift's compact protocol, as far as the footer of a Parquet file needs it.

A struct is a dict from a field's number to its type and value; a list is the type of its elements and these.
"""

from typing import Any, Final, NamedTuple

TRUE: Final = 1
FALSE: Final = 2
BYTE: Final = 3
I16: Final = 4
I32: Final = 5
I64: Final = 6
DOUBLE: Final = 7
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12

_INTEGERS: Final = (I16, I32, I64)
_LONG: Final = 15
"""The first nibble of a list of so many elements or more, whose number follows."""


class Field(NamedTuple):
    """A field of a struct."""

    type: int
    value: Any


Struct = dict[int, Field]


class List(NamedTuple):
    """A list; ``type`` is that of all elements."""

    type: int
    elements: list[Any]


def parse(data: bytes) -> Struct:
    """Read a struct.

    Raises:
        ValueError: it holds a type that is not among those above.

    """
    return _Reader(data).struct()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._integer()
            fields[number] = Field(kind, kind == TRUE if kind in (TRUE, FALSE) else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == BINARY:
            return self._take(self._varint())
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            return self._list()
        if kind in (TRUE, FALSE, BYTE):  # a boolean in a list is a byte, too
            return self._take(1)
        if kind == DOUBLE:
            return self._take(8)
        raise ValueError(f"a footer of Parquet holds no Thrift type {kind}")

    def _list(self) -> List:
        head = self._byte()
        size = head >> 4
        size = self._varint() if size == _LONG else size
        return List(head & 15, [self._value(head & 15) for _ in range(size)])

    def _integer(self) -> int:
        coded = self._varint()
        return (coded >> 1) ^ -(coded & 1)

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


def dump(struct: Struct) -> bytes:
    """Write a struct."""
    written = bytearray()
    before = 0
    for number, field in sorted(struct.items()):
        kind = (TRUE if field.value else FALSE) if field.type in (TRUE, FALSE) else field.type
        delta = number - before
        written += bytes([delta << 4 | kind]) if 0 < delta < _LONG else bytes([kind]) + _integer(number)
        written += b"" if kind in (TRUE, FALSE) else _value(kind, field.value)
        before = number
    return bytes(written + b"\0")


def _value(kind: int, value: Any) -> bytes:
    if kind in _INTEGERS:
        return _integer(value)
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return dump(value)
    if kind == LIST:
        return _list(value)
    return bytes(value)


def _list(value: List) -> bytes:
    size = len(value.elements)
    head = (
        bytes([size << 4 | value.type]) if size < _LONG else bytes([_LONG << 4 | value.type]) + _varint(size)
    )
    return head + b"".join(_value(value.type, element) for element in value.elements)


def _integer(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else ~(value << 1))


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:  # noqa: PLR2004 - seven bits
        written.append(value & 127 | 128)
        value >>= 7
    return bytes(written + bytes([value]))
