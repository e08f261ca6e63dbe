"""The process that reads a data set: an order on standard input, an answer on standard output.

It ends when its standard input does, so it never outlives whoever wants the answer.
"""

import json
import os
import resource
import sys
import traceback
from dataclasses import asdict
from typing import Any, Final

from epochd.datasets.reading import Source
from epochd.intake import answer
from epochd.intake.order import Order, Reference
from epochd.lifeline import at_end_of_input

_NICENESS: Final = 10
_THREADS: Final = "POLARS_MAX_THREADS"


def main() -> None:
    """Read the order, carry it out, and answer."""
    order = Order.from_json(_first_line())
    at_end_of_input(lambda: os._exit(1))
    os.nice(_NICENESS)  # trainings and answers come first
    if order.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (order.memory_bytes, order.memory_bytes))
    # Each thread holds a part of the file in memory.
    os.environ.setdefault(_THREADS, str(min(4, os.cpu_count() or 1)))
    sys.stdout.write(_carried_out(order) + "\n")
    sys.stdout.flush()
    os._exit(0)  # at once: what is left to do is to give back memory


def _first_line() -> str:
    # Not sys.stdin, which would read on and hide the end of input from the lifeline.
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            os._exit(1)
        line += part
    return line.decode()


def _carried_out(order: Order) -> str:
    try:
        return json.dumps({"dataset": _ingested(order)}, allow_nan=False)
    except BaseException as error:  # noqa: BLE001 - polars panics with one of its own, and each is to be answered
        traceback.print_exc()  # into the log
        return answer.of_error(error)


def _ingested(order: Order) -> dict[str, Any]:
    # Imported here: the answer to an order that cannot even be imported for is told, too.
    from epochd.datasets.ingest import ingest  # noqa: PLC0415

    order.data.mkdir()
    source = _source(order)
    found = ingest(source, order.options, order.limits, order.data)
    values = {**asdict(found), "info": found.info.as_dict()}
    return {**values, "file_bytes": source.path.stat().st_size, "file_name": source.name}


def _source(order: Order) -> Source:
    if not isinstance(order.source, Reference):
        return Source(order.source.path, order.source.name)
    from epochd.intake.fetch import fetch  # noqa: PLC0415 - only where it is wanted

    order.fetched.mkdir()
    return fetch(order.source.url, order.accepted_sources, order.fetched, order.max_bytes)


if __name__ == "__main__":
    main()
