"""Data sets of the Hugging Face hub: ``hf://owner/name?split=train&config=default``."""

import importlib
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from epochd.datasets.reading import Source
from epochd.errors import InvalidDatasetError
from epochd.intake import sources
from epochd.intake.sources import Address

DEFAULT_SPLIT: Final = "train"
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_TEXT: Final = {"text", "label"}


def fetch_hub(address: Address, folder: Path, max_bytes: int) -> Source:
    """Bring one split: texts with labels as JSON lines, anything else as Parquet.

    Raises InvalidDatasetError: ``extra_not_installed``, ``bad_url``, ``source_not_found``.
    """
    name, options = _name(address), _options(address)
    library = _library()
    try:
        builder = library.load_dataset_builder(name, options.get("config"), cache_dir=str(folder / "cache"))
        sources.check_size(builder.info.download_size, max_bytes)
        builder.download_and_prepare()
        split = builder.as_dataset(split=options.get("split", DEFAULT_SPLIT))
    except library.exceptions.DatasetNotFoundError:
        raise sources.not_found(address) from None
    except ValueError as error:
        raise sources.bad_url(f"the hub's data set does not have that ({str(error)[:300]})") from None
    except (OSError, RuntimeError) as error:
        raise sources.unreachable(address, f"the hub does not answer ({type(error).__name__})") from None
    return write(split, name.replace("/", "_"), folder, max_bytes)


def write(split: Any, name: str, folder: Path, max_bytes: int) -> Source:
    """Write a split as one file: texts with labels as JSON lines, anything else as Parquet; classes by their names."""
    for column, feature in split.features.items():
        if hasattr(feature, "int2str"):
            split = _named(split, column, feature)
    target, is_text = sources.destination(folder), set(split.column_names) == _TEXT
    if is_text:
        split.to_json(str(target), lines=True, force_ascii=False)
    else:
        split.to_parquet(str(target))
    sources.check_size(target.stat().st_size, max_bytes)
    return Source(target, f"{name}.{'jsonl' if is_text else 'parquet'}")


def _named(split: Any, column: str, feature: Any) -> Any:
    # The hub marks samples without a label by -1.
    names = [feature.int2str(label) if label is not None and label >= 0 else None for label in split[column]]
    return split.remove_columns(column).add_column(column, names)


def _name(address: Address) -> str:
    # As it was written: an owner's capitals count.
    name = address.url.partition("://")[2].partition("?")[0].strip("/")
    # A name that is also a path would be read from this machine's disk.
    if not _NAME.fullmatch(name) or Path(name).exists():
        raise sources.bad_url("it must name a data set of the hub: hf://owner/name?split=train")
    return name


def _options(address: Address) -> dict[str, str]:
    options = {key: values[-1] for key, values in parse_qs(address.query).items()}
    if unknown := options.keys() - {"split", "config"}:
        raise sources.bad_url(f"{', '.join(sorted(unknown))} has no meaning; there are split and config")
    return options


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        message = (
            "Data sets of the hub need the extra huggingface, which this service does not have: the operator can "
            "install it by pip install 'epochd[huggingface]'."
        )
        raise InvalidDatasetError(message, "extra_not_installed", param="url") from None
