"""Data sets that are stored without a file that was read."""

import itertools

import numpy as np

from epochd.datasets.info import Column, DatasetInfo
from epochd.datasets.stored import StoredWriter
from epochd.jobs import datasets

_numbers = itertools.count(1)


def arrived(datasets_dir, name="flowers", offset=0.0, **changes):
    """A small table in a folder of its own, as reading a file leaves it."""
    folder = datasets_dir / "incoming" / f"made-{next(_numbers)}" / "data"
    folder.mkdir(parents=True)
    info = DatasetInfo(
        name, "classification", 40, (2,), ("no", "yes"), 0, "", columns=(Column("a"), Column("b")),
        target_names=("c",), class_counts=(20, 20),
    )  # fmt: skip
    with StoredWriter(folder) as writer:
        writer.append("numbers", np.arange(80, dtype=np.float32).reshape(40, 2) + np.float32(offset))
        writer.append("y", np.arange(40, dtype=np.int64) % 2)
        digest = writer.finish(info)
    values = {
        "name": name, "folder": folder, "digest": digest, "bytes": writer.bytes, "info": info.as_dict(),
        "source": {"format": "csv", "file": "a.csv", "bytes": 1},
        "preview": {"columns": [], "rows": []}, "notes": [], "idempotency_key": None, "request_digest": "digest",
    }  # fmt: skip
    return datasets.Arrived(**(values | changes))


def register(database, datasets_dir, name="flowers", **changes):
    """Store such a table and return its row."""
    return datasets.register(database, datasets_dir, arrived(datasets_dir, name, **changes)).row
