"""JSON lines of texts and their labels: {"text": "…", "label": "…"}."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from epochd.datasets.info import DatasetInfo
from epochd.datasets.readers.archive import check_unpacked
from epochd.datasets.readers.table_text import blocks
from epochd.datasets.readers.targets import Target, Targets
from epochd.datasets.reading import Contents, Limits, Options, Source
from epochd.datasets.stored import StoredWriter
from epochd.errors import InvalidDatasetError

MAX_LINE_BYTES: Final = 16 * 2**20
PREVIEW_ROWS: Final = 5
PREVIEW_CHARACTERS: Final = 200
_LINES_AT_ONCE: Final = 4096
_BYTES_AT_ONCE: Final = 4 * 2**20
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")

Label = str | int | float


@dataclass(frozen=True, slots=True)
class Keys:
    """Where text and label stand in an object."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A text in UTF-8 and its label; ``row`` counts from 1, ``others`` are keys that nobody asked for."""

    row: int
    text: bytes
    label: Label
    others: frozenset[str]


def read_json_lines(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Read a text and a label a line, under the keys that ``features`` and ``target`` name; blank lines are left out.

    Labels are words, for classification, or numbers.
    """
    keys = _keys(options)
    targets = Targets(writer, options, keys.label)
    texts = _Texts(writer, limits)
    preview: list[list[Any]] = []
    others: set[str] = set()
    for batch in _batches(_samples(blocks(source, limits), keys)):
        texts.add([sample.text for sample in batch])
        _add_labels(targets, batch)
        preview += [_shown(sample) for sample in batch[: PREVIEW_ROWS - len(preview)]]
        others.update(*(sample.others for sample in batch[:PREVIEW_ROWS]))
    if not targets.rows:
        raise InvalidDatasetError(f"{source.name} has no lines.", "empty_file", file=source.name)
    target = targets.finish()
    contents = {"columns": [keys.text, keys.label], "rows": preview}
    return Contents(_info(options, keys, texts, target), "jsonl", contents, [*target.notes, *_unused(others)])


def _samples(content: Iterator[bytes], keys: Keys) -> Iterator[Sample]:
    row = 0
    for number, line in enumerate(_lines(content), start=1):
        if stripped := line.strip():
            row += 1
            yield _sample(stripped, keys, number, row)


class _Texts:
    """Writes texts behind each other, and where each begins."""

    def __init__(self, writer: StoredWriter, limits: Limits) -> None:
        self.count = self.longest = self.bytes = 0
        self._writer, self._limits = writer, limits
        writer.append("offsets", np.zeros(1, np.int64))

    def add(self, texts: list[bytes]) -> None:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = self.bytes + np.cumsum(lengths)
        self.longest, self.bytes = max(self.longest, int(lengths.max())), int(ends[-1])
        self.count += len(texts)
        check_unpacked(self.bytes, self._limits)
        self._writer.append("text", np.frombuffer(b"".join(texts), np.uint8))
        self._writer.append("offsets", ends)


def _keys(options: Options) -> Keys:
    for param, names in (("features", options.features), ("target", options.target)):
        if names is not None and len(names) != 1:
            message = f"Name one key of the lines; {len(names)} were named."
            raise InvalidDatasetError(message, "one_key_only", param=param)
    keys = Keys((options.features or ("text",))[0], (options.target or ("label",))[0])
    if keys.text == keys.label:
        message = f"{keys.text!r} cannot be both text and label."
        raise InvalidDatasetError(message, "target_is_feature", param="target", column=keys.text)
    return keys


def _lines(content: Iterator[bytes]) -> Iterator[bytes]:
    # The last piece of a block goes on in the next one.
    number, rest = 0, b""
    for block in content:
        *whole, rest = (rest + (block if number or rest else _without_mark(block))).split(b"\n")
        yield from whole
        number += len(whole)
        if len(rest) > MAX_LINE_BYTES:
            message = f"Line {number + 1} is longer than {MAX_LINE_BYTES} bytes; each object must be a line of its own."
            raise InvalidDatasetError(message, "line_too_long", row=number + 1)
    yield rest


def _without_mark(start: bytes) -> bytes:
    if start.startswith(_WIDE):
        raise InvalidDatasetError("The file is UTF-16; save it as UTF-8.", "wrong_encoding", row=1)
    return start.removeprefix(_BOM)


def _sample(line: bytes, keys: Keys, number: int, row: int) -> Sample:
    values = _parsed(line, number, row)
    for key in (keys.text, keys.label):
        if key not in values:
            there = ", ".join(map(repr, list(values)[:20])) or "none"
            message = f"Line {number} has no {key!r}; its keys are: {there}."
            raise InvalidDatasetError(message, "missing_key", row=row, column=key)
    text, label = values[keys.text], values[keys.label]
    if not isinstance(text, str):
        raise _bad_text(keys, number, row, f"is {_kind(text)}; it must be a string", "wrong_type")
    if not text.strip():
        raise _bad_text(keys, number, row, "is empty; leave such lines out", "empty_text")
    return Sample(
        row, text.encode(), _label(label, keys, number, row), frozenset(values) - {keys.text, keys.label}
    )


def _parsed(line: bytes, number: int, row: int) -> dict[str, Any]:
    try:
        line.decode()
        values = orjson.loads(line)
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} of it is 0x{line[error.start]:02x}"
        message = f"Line {number} is not UTF-8 ({byte}); save the file as UTF-8."
        raise InvalidDatasetError(message, "wrong_encoding", row=row) from None
    except orjson.JSONDecodeError as error:
        message = f"Line {number} is not a JSON object ({error.msg}, character {error.pos + 1})."
        raise InvalidDatasetError(message, "bad_json", row=row) from None
    if not isinstance(values, dict):
        message = (
            f'Line {number} is {_kind(values)}; each line must be one object: {{"text": "…", "label": "…"}}.'
        )
        raise InvalidDatasetError(message, "bad_json", row=row)
    return values


def _label(label: Any, keys: Keys, number: int, row: int) -> Label:
    if isinstance(label, bool):
        return "true" if label else "false"
    if label is None or label == "":
        code, text = "missing_target", f"Line {number}: {keys.label!r} is empty; every text needs a label."
    elif isinstance(label, (str, int, float)):
        return label
    else:
        code, text = (
            "wrong_type",
            f"Line {number}: {keys.label!r} is {_kind(label)}; it must be a word or a number.",
        )
    raise InvalidDatasetError(text, code, row=row, column=keys.label)


def _bad_text(keys: Keys, number: int, row: int, text: str, code: str) -> InvalidDatasetError:
    return InvalidDatasetError(f"Line {number}: {keys.text!r} {text}.", code, row=row, column=keys.text)


def _batches(lines: Iterator[Sample]) -> Iterator[list[Sample]]:
    # Of one kind of label each, so that a change between words and numbers is seen at its row.
    batch: list[Sample] = []
    size = 0
    for sample in lines:
        full = len(batch) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE
        if batch and (full or type(sample.label) is not type(batch[0].label)):
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += len(sample.text)
    if batch:
        yield batch


def _add_labels(targets: Targets, batch: list[Sample]) -> None:
    labels = [sample.label for sample in batch]
    if isinstance(labels[0], str):
        targets.words([str(label) for label in labels])
    else:
        targets.numbers(np.array(labels))


def _info(options: Options, keys: Keys, texts: _Texts, target: Target) -> DatasetInfo:
    mean = texts.bytes / texts.count
    description = f"Texts of {mean:.0f} bytes on average, the longest of {texts.longest}."
    return DatasetInfo(
        options.name, target.task, texts.count, (), target.classes, target.targets, description, "text", (),
        (keys.label,), target.counts,
    )  # fmt: skip


def _shown(sample: Sample) -> list[Any]:
    text = sample.text.decode()
    return [text if len(text) <= PREVIEW_CHARACTERS else f"{text[:PREVIEW_CHARACTERS]}…", sample.label]


def _unused(others: set[str]) -> list[dict[str, str]]:
    if not others:
        return []
    text = f"Not used: {', '.join(sorted(others)[:20])}. Name other keys by features and target."
    return [{"code": "unused_keys", "message": text}]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "an array", str: "a string", bool: "true or false"}.get(
        type(value), "a number"
    )
