"""How the images of an archive are labelled: by the folders they lie in, or by a ``labels.csv``."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from epochd.datasets.readers import label_list
from epochd.datasets.readers.archive import Archive
from epochd.datasets.readers.targets import Targets
from epochd.datasets.reading import Options
from epochd.errors import InvalidDatasetError

LIST: Final = "labels.csv"
_IMAGES: Final = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".gif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".heic",
    ".avif",
}
_IGNORED: Final = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class Arranged:
    """The images in the order of the samples; ``labels`` are what the preview shows for each."""

    members: Sequence[zipfile.ZipInfo]
    labels: Sequence[str]
    notes: list[dict[str, str]]


def arrange(archive: Archive, options: Options, targets: Targets) -> Arranged:
    """Find every image and its label, which goes to ``targets``.

    Samples are in the order of ``labels.csv`` where there is one, else of their paths. Hidden files, and what systems
    leave behind (``__MACOSX``, ``Thumbs.db``), are left out.
    """
    files = {path: member for member in archive.members if not _is_hidden(path := _path(member))}
    lists = [path for path in files if path.name.lower() == LIST]
    if len(lists) > 1:
        message = f"There are {len(lists)} files called {LIST}; keep one."
        raise InvalidDatasetError(message, "duplicate_file", file=str(lists[1]))
    images = {path: member for path, member in files.items() if path.suffix.lower() in _IMAGES}
    if not images:
        message = "There are no images in the archive; put PNG or JPEG in a folder for each class."
        raise InvalidDatasetError(message, "empty_file")
    if lists:
        return _by_list(archive, files[lists[0]], images, options, targets)
    return _by_folder(files, images, targets)


def _by_folder(
    files: Mapping[PurePosixPath, zipfile.ZipInfo],
    images: Mapping[PurePosixPath, zipfile.ZipInfo],
    targets: Targets,
) -> Arranged:
    depth = _common_depth(images)
    for path in images:
        _check_depth(path, depth)
    strangers = [path for path in files if path not in images]
    for path in strangers:
        if len(path.parts) > depth + 1:
            raise InvalidDatasetError(
                f"{path} is not an image; send PNG or JPEG only.", "not_an_image", file=str(path)
            )
    labels = [path.parts[depth] for path in images]
    targets.words(labels)
    return Arranged(list(images.values()), labels, _ignored(strangers))


def _check_depth(path: PurePosixPath, depth: int) -> None:
    if len(path.parts) == depth + 1:
        message = f"{path} lies in no class's folder; put it in one, or add a {LIST} with the columns file and label."
        raise InvalidDatasetError(message, "no_class_folder", file=str(path))
    if len(path.parts) > depth + 2:
        message = f"{path} lies in a folder within a class's folder; put images directly into a folder for each class."
        raise InvalidDatasetError(message, "nested_folders", file=str(path))


def _common_depth(paths: Mapping[PurePosixPath, object]) -> int:
    # Folders around all classes: flowers/rose/1.png and flowers/tulip/1.png have one.
    folders = [path.parts[:-1] for path in paths]
    shallowest = min(map(len, folders))
    depth = 0
    while depth < shallowest - 1 and len({folder[depth] for folder in folders}) == 1:
        depth += 1
    return depth


def _by_list(
    archive: Archive,
    member: zipfile.ZipInfo,
    images: Mapping[PurePosixPath, zipfile.ZipInfo],
    options: Options,
    targets: Targets,
) -> Arranged:
    label_list.check_size(member.file_size, member.filename)
    listed = label_list.read(archive.read(member), member.filename, options)
    found = _resolve(listed, _path(member).parent, images)
    unlisted = images.keys() - set(found)
    if unlisted:
        first = min(unlisted)
        message = (
            f"{first} has no row in {member.filename} ({len(unlisted)} such files); add one, or leave it out."
        )
        raise InvalidDatasetError(message, "unlabelled_file", file=str(first))
    listed.give(targets)
    return Arranged([images[path] for path in found], listed.shown, [])


def _resolve(
    listed: label_list.Listed, root: PurePosixPath, images: Mapping[PurePosixPath, object]
) -> list[PurePosixPath]:
    folders = {path.parent for path in images}
    roots = [root, *folders] if len(folders) == 1 else [root]
    seen: dict[PurePosixPath, int] = {}
    for row, name in enumerate(listed.files, start=1):
        path = next((there for base in roots if (there := base / name.replace("\\", "/")) in images), None)
        if path is None:
            message = (
                f"Row {row} of {listed.name} names {name!r}, which is not in the archive; correct the name."
            )
            raise InvalidDatasetError(
                message, "missing_file", file=listed.name, row=row, column=listed.file_column
            )
        if path in seen:
            message = f"Rows {seen[path]} and {row} of {listed.name} both name {name!r}; keep one."
            raise InvalidDatasetError(
                message, "duplicate_row", file=listed.name, row=row, column=listed.file_column
            )
        seen[path] = row
    return list(seen)


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part.lower() in _IGNORED for part in path.parts)


def _ignored(paths: list[PurePosixPath]) -> list[dict[str, str]]:
    if not paths:
        return []
    shown = ", ".join(map(str, paths[:10]))
    return [
        {
            "code": "files_ignored",
            "message": f"Not used, as they lie beside the folders of the classes: {shown}.",
        }
    ]
