"""The process that reads a data set, and what becomes of its folder."""

import asyncio
from pathlib import Path

import psutil
import pytest

from epochd.datasets.info import DatasetInfo
from epochd.datasets.reading import Limits, Options
from epochd.datasets.stored import open_stored
from epochd.errors import (
    InsufficientStorageError,
    InvalidDatasetError,
    InvalidRequestError,
    ParamError,
    PayloadTooLargeError,
    ServiceUnavailableError,
)
from epochd.intake import answer, child, incoming
from epochd.intake.order import Order, Reference, Upload


@pytest.fixture
def folder(tmp_path):
    found = incoming.make(tmp_path / "incoming")
    yield found
    if found.path.is_dir():
        found.remove()


def order_of(folder, content, **changes):
    folder.file.write_bytes(content)
    return Order(Upload(folder.file, "a.csv"), Options("a"), Limits(), folder.path, **changes)


def read(order, folder):
    return asyncio.run(child.read(order, folder.lock))


def test_a_table_is_read_into_its_folder(folder):
    order = order_of(folder, b"a,b\n" + b"1,x\n2,y\n" * 10)
    found = read(order, folder)
    info = DatasetInfo.from_dict(found.info)
    assert (info.samples, info.classes) == (20, ("x", "y"))
    assert (found.format, found.file_name, found.file_bytes) == ("csv", "a.csv", 84)
    assert open_stored(order.data).digest == found.digest


def test_more_memory_than_it_may_have(folder):
    with pytest.raises(InvalidDatasetError) as caught:
        read(order_of(folder, b"a,b\n1,x\n2,y\n", memory_bytes=50 * 2**20), folder)
    assert caught.value.errors[0].code == "too_much_memory"


def test_a_mistake_of_the_code_is_no_answer_for_callers(folder):
    order = order_of(folder, b"a,b\n1,x\n2,y\n")
    order.data.mkdir()  # it is to be made by the process
    with pytest.raises(answer.UnexpectedError, match="FileExistsError"):
        read(order, folder)


def _children_beside(others):
    return [one for one in psutil.Process().children() if one not in others]


def test_cancelled_it_is_killed(folder):
    order = order_of(folder, b"a,b\n" + b"1,x\n2,y\n" * 2_000_000)
    others = psutil.Process().children()  # what tests before have left: a fork server, a browser

    async def cancel():
        task = asyncio.create_task(child.read(order, folder.lock))
        while not (new := _children_beside(others)):  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(0.02)
        (process,) = new
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return process

    assert not asyncio.run(cancel()).is_running()


@pytest.mark.parametrize("source", [Upload(Path("/a/b"), "c.csv"), Reference("s3://bucket/c.csv")])
def test_an_order_comes_through_as_it_was(source):
    order = Order(
        source,
        Options("a", target=("b", "c"), features=None, header=False, image_size=(3, 4)),
        Limits(1, 2),
        Path("/d"),
        ("s3://bucket/",),
        3,
        4,
    )
    assert Order.from_json(order.as_json()) == order
    assert "\n" not in order.as_json()


@pytest.mark.parametrize(
    "error",
    [
        InvalidDatasetError("m", "ragged_rows", param="target", file="f", row=3, column="c"),
        InvalidDatasetError("m", "empty_file"),
        InvalidRequestError("m", (ParamError("url", "m", "c"), ParamError("name", "m", "c"))),
        PayloadTooLargeError("m", code="upload_too_large"),
        ServiceUnavailableError("m", code="source_away"),
        InsufficientStorageError("m"),
    ],
)
def test_errors_come_through_as_they_were(error):
    import json

    came = answer.error_of(json.loads(answer.of_error(error))["error"])
    assert type(came) is type(error)
    assert (came.message, came.code) == (error.message, error.code)
    assert getattr(came, "errors", None) == getattr(error, "errors", None)
    assert getattr(came, "place", None) == getattr(error, "place", None)


def test_what_nobody_holds_is_swept_up(folder, tmp_path):
    parent = tmp_path / "incoming"
    (parent / "left").mkdir()
    (parent / "left" / "upload").write_bytes(b"half")
    incoming.sweep(parent)
    assert [path for path in parent.iterdir() if path.is_dir()] == [folder.path]
