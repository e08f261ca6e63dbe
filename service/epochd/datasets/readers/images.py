"""A ZIP of PNG and JPEG, in a folder for each class or with a ``labels.csv``, to bytes of one size."""

import itertools
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import DatasetInfo
from epochd.datasets.readers import archive, pictures
from epochd.datasets.readers.archive import Archive, check_unpacked
from epochd.datasets.readers.folders import arrange
from epochd.datasets.readers.pictures import Look
from epochd.datasets.readers.targets import Target, Targets
from epochd.datasets.reading import Contents, Limits, Options, Source
from epochd.datasets.stored import StoredWriter
from epochd.errors import InvalidDatasetError

DEFAULT_SIDE: Final = 64
"""Images are made no larger than this unless a size is asked for: their number of pixels is the cost of training."""
MAX_FILE_BYTES: Final = 256 * 2**20
MAX_RATIO: Final = 200
PREVIEW_ROWS: Final = 5
_SMALL: Final = 16 * 2**20
_FILES_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 16 * 2**20
_MAX_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """What all images are brought to."""

    channels: int
    height: int
    width: int


def read_zip(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Read images of any sizes; all become ``image_size``, or the size that most of them have, within 64x64."""
    targets = Targets(writer, options, (options.target or ("label",))[0])
    with archive.opened(source, limits) as opened, pictures.any_size():
        arranged = arrange(opened, options, targets)
        target = targets.finish()
        looks = Counter(_looks(opened, arranged.members, limits))
        frame = _frame(looks, options)
        check_unpacked(len(arranged.members) * frame.channels * frame.height * frame.width, limits)
        for pixels in _decoded(opened, arranged.members, frame):
            writer.append("x", pixels)
    shown = zip(arranged.members[:PREVIEW_ROWS], arranged.labels, strict=False)
    preview = {"columns": ["file", "label"], "rows": [[member.filename, label] for member, label in shown]}
    notes = [*arranged.notes, *target.notes, *_resized(looks, frame)]
    return Contents(_info(options, len(arranged.members), frame, target), "images", preview, notes)


def _looks(opened: Archive, members: Sequence[zipfile.ZipInfo], limits: Limits) -> Iterator[Look]:
    for member in members:
        _check_size(member)
        yield pictures.look(opened.read(member), member.filename, limits.pixels)


def _check_size(member: zipfile.ZipInfo) -> None:
    # An image is compressed already: an archive makes it hardly smaller.
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > MAX_FILE_BYTES or (member.file_size > _SMALL and ratio > MAX_RATIO):
        message = (
            f"{member.filename} unpacks from {member.compress_size} to {member.file_size} bytes, as no image "
            f"does, compressed as it is; it looks like a decompression bomb. At most {MAX_FILE_BYTES} are accepted."
        )
        raise InvalidDatasetError(message, "decompression_bomb", file=member.filename)


def _frame(looks: Counter[Look], options: Options) -> Frame:
    channels = 1 if all(look.grey for look in looks) else 3
    if options.image_size is not None:
        return Frame(channels, *options.image_size)
    sizes: Counter[tuple[int, int]] = Counter()
    for look, count in looks.items():
        sizes[look.height, look.width] += count
    # Of equally frequent ones the smallest, whatever the order of the files.
    height, width = min(sizes, key=lambda size: (-sizes[size], size))
    scale = min(1.0, DEFAULT_SIDE / max(height, width))
    return Frame(channels, max(1, round(height * scale)), max(1, round(width * scale)))


def _decoded(
    opened: Archive, members: Sequence[zipfile.ZipInfo], frame: Frame
) -> Iterator[npt.NDArray[np.uint8]]:
    # Pillow decodes without the interpreter's lock.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for batch in _batches(members):
            contents, files = map(opened.read, batch), (member.filename for member in batch)
            yield np.stack(list(pool.map(_decode, contents, files, itertools.repeat(frame))))


def _decode(content: bytes, file: str, frame: Frame) -> npt.NDArray[np.uint8]:
    return pictures.decode(content, file, channels=frame.channels, height=frame.height, width=frame.width)


def _batches(members: Sequence[zipfile.ZipInfo]) -> Iterator[list[zipfile.ZipInfo]]:
    batch: list[zipfile.ZipInfo] = []
    size = 0
    for member in members:
        if batch and (len(batch) == _FILES_AT_ONCE or size + member.file_size > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(member)
        size += member.file_size
    if batch:
        yield batch


def _info(options: Options, samples: int, frame: Frame, target: Target) -> DatasetInfo:
    kind = "Grey" if frame.channels == 1 else "Colour"
    name = options.target or ("label",)
    return DatasetInfo(
        options.name, target.task, samples, (frame.channels, frame.height, frame.width), target.classes,
        target.targets, f"{kind} images of {frame.width}x{frame.height} pixels.", "image", (), name, target.counts,
    )  # fmt: skip


def _resized(looks: Counter[Look], frame: Frame) -> list[dict[str, str]]:
    others = sum(
        count for look, count in looks.items() if (look.height, look.width) != (frame.height, frame.width)
    )
    if not others:
        return []
    text = (
        f"{others} of {looks.total()} images were stretched to {frame.width}x{frame.height} pixels (width x height). "
        "Send image_size to have another size."
    )
    return [{"code": "images_resized", "message": text}]
