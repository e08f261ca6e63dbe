"""A form with a file, parsed as it comes: the file goes straight to the disk, digested on the way."""

import hashlib
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from epochd.errors import InvalidRequestError, ParamError, PayloadTooLargeError

MAX_FIELD_BYTES: Final = 2**20
MAX_HEADER_BYTES: Final = 16_384
MAX_PARTS: Final = 100_000
MAX_FILE_NAME: Final = 255
FILE: Final = "file"


class Form:
    """What came: ``fields`` by name, each with its values, and the file.

    ``feed`` and ``finish`` write to the disk, so they are for a thread; they raise ``InvalidRequestError``
    (``malformed_multipart``, ``repeated``, ``unknown_parameter``), ``PayloadTooLargeError`` and OSError.
    """

    def __init__(self, boundary: bytes, file: BinaryIO, max_bytes: int) -> None:
        self.fields: dict[str, list[str]] = {}
        self.file_name: str | None = None
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file, self._max_bytes = file, max_bytes
        self._parts = self._small_bytes = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self._name, self._value = "", bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._identify,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    @property
    def sha256(self) -> str:
        """The digest of the file, in hexadecimal."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> None:
        """Take bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise malformed(f"cannot be read as a form: {error}") from None

    def finish(self) -> None:
        """Note the end of the body."""
        if not self._ended:
            raise malformed("ends before the form does: the last boundary is missing")
        self._file.flush()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise malformed(f"has more than {MAX_PARTS} parts")
        self._headers, self._value = {}, bytearray()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._count(end - start)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._count(end - start)

    def _end_header(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _identify(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise malformed("has a part without a name: Content-Disposition: form-data; name=…")
        self._name = _text(name, "the name of a part")
        if self._name == FILE:
            self._begin_file(options.get(b"filename", b""))
        elif b"filename" in options:
            message = f"is no file; send the file as {FILE!r}"
            raise InvalidRequestError.of(ParamError(self._name[:80], message, "unknown_parameter"))

    def _begin_file(self, given: bytes) -> None:
        if self.file_name is not None:
            raise InvalidRequestError.of(ParamError(FILE, "must be given once", "repeated"))
        # A name for messages and for its ending, never a path; browsers of old sent paths of their own system.
        name = PurePosixPath(given.decode(errors="replace").replace("\\", "/")).name
        clean = "".join(character for character in name if character.isprintable())
        self.file_name = clean[-MAX_FILE_NAME:] or FILE

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._name != FILE:
            self._count(end - start)
            self._value += data[start:end]
            return
        self.bytes += end - start
        if self.bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        piece = memoryview(data)[start:end]
        self._digest.update(piece)
        self._file.write(piece)

    def _count(self, size: int) -> None:
        self._small_bytes += size
        if self._small_bytes > MAX_FIELD_BYTES:
            raise PayloadTooLargeError(
                f"The fields beside the file may have {MAX_FIELD_BYTES} bytes together."
            )

    def _end(self) -> None:
        if self._name != FILE:
            value = _text(bytes(self._value), f"the field {self._name[:80]!r}")
            self.fields.setdefault(self._name, []).append(value)

    def _finish(self) -> None:
        self._ended = True


def malformed(reason: str) -> InvalidRequestError:
    """Say why a body is no form."""
    message = f"the body {reason}"
    return InvalidRequestError(
        message, (ParamError("", message, "malformed_multipart"),), code="malformed_multipart"
    )


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """Say how large a file may be."""
    return PayloadTooLargeError(
        f"A file may have at most {max_bytes} bytes (EPOCHD_MAX_UPLOAD_BYTES).", code="upload_too_large"
    )


def _text(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise malformed(f"is not UTF-8 in {what}") from None
    if "\0" in text:
        raise malformed(f"has a NUL in {what}")
    return text
