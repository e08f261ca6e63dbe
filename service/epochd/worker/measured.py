"""What the measuring process does: load the data as an attempt does, and measure."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import psutil

from epochd.contract.spec import JobSpec
from epochd.store.database import Database
from epochd.training import device as devices
from epochd.training.batch_size import measure
from epochd.training.batch_size_choice import BatchSizeMeasured
from epochd.worker.dataset_files import opener
from epochd.worker.measuring import MeasuringOrder, Message
from epochd.worker.memory import require_memory
from epochd.worker.prepare import prepare_data, training_config

USED_AT_MOST: Final = 0.8
"""The part of the free memory that a size may take: others live here, too, and a peak is told only afterwards."""


def sizes_and_noise(order: MeasuringOrder) -> Iterator[Message]:
    """Measure, and give each size as it is known, then the noise scale. Raises TrainingError."""
    devices.configure(order.threads)
    spec = JobSpec.model_validate(order.spec)
    with closing(Database(order.database_url, archives=order.artifacts)) as db:
        data = prepare_data(spec, opener(db, order.datasets), memory_bytes=order.data_memory_bytes)
    config = training_config(spec, data.info, order.device)
    require_memory(config)
    found = measure(config, data.training, available_bytes=_available(config.device), seconds=order.seconds)
    for one in found:
        yield "size" if isinstance(one, BatchSizeMeasured) else "noise", one.as_dict()


def _available(device: str) -> int | None:
    """The resident memory that this process may come to on a CPU; a GPU says itself what does not fit."""
    if device != "cpu":
        return None
    free = int(psutil.virtual_memory().available * USED_AT_MOST)
    return psutil.Process().memory_info().rss + free
