"""Event files as TensorBoard reads them."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import plugin_data_pb2

from epochd.mirror import eventfile
from epochd.mirror.targets import Series


def series(key, steps, values):
    steps = np.array(steps, dtype=np.int64)
    return Series(key, steps, np.array(values, dtype=np.float64), 1e9 + np.arange(len(steps)) / 8)


def read(path):
    reader = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return reader


STEPS = [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152, 10**9, 2**35, 2**62]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.out.tfevents.0000000001.here.epochd"


def test_the_reader_of_tensorboard_reads_every_value(path):
    values = [0.0, -1.5, 0.1, 1e-45, 3.4e38, 1e300, -1e300, 7, 8, 9, 10, 11]
    written = series("iteration/train_loss", STEPS, values)
    path.write_bytes(eventfile.version(1.0) + eventfile.scalars(written))
    found = read(path.parent).Scalars("iteration/train_loss")
    assert [event.step for event in found] == STEPS
    assert [event.wall_time for event in found] == written.times.tolist()
    expected = [*(float(np.float32(value)) for value in values[:5]), math.inf, -math.inf, *values[7:]]
    assert [event.value for event in found] == expected


@settings(max_examples=50)
@given(
    st.text(min_size=1, max_size=300),
    st.lists(st.integers(0, 2**63 - 1), max_size=30, unique=True).map(sorted),
)
def test_every_record_is_the_protocol_buffer_it_should_be(key, steps):
    data = eventfile.scalars(series(key, steps, steps))
    found = [Event.FromString(data[begin:end]) for begin, end in eventfile._sound(data)[0].tolist()]
    assert [event.step for event in found] == steps
    assert [event.summary.value[0].simple_value for event in found] == np.float32(steps).tolist()
    assert {event.summary.value[0].tag for event in found} <= {key}
    assert [event.SerializeToString() for event in found if event.step] == [
        data[begin:end] for begin, end in eventfile._sound(data)[0].tolist() if data[begin + 10]
    ]


def test_texts_and_hyperparameters(path):
    parameters = {"batch_size": 64, "batch_norm": False, "model": "mlp", "rate": 0.1}
    path.write_bytes(
        eventfile.version(1.0)
        + eventfile.text("job/text_summary", 3, 2.0, "**grün**")
        + eventfile.session_start("_hparams_/session_start_info", 2.0, 1.5, parameters)
        + eventfile.session_end("_hparams_/session_end_info", 2.0, 2.5)
    )
    reader = read(path.parent)
    [text] = reader.Tensors("job/text_summary")
    assert (text.step, text.tensor_proto.string_val) == (3, ["**grün**".encode()])
    assert reader.SummaryMetadata("job/text_summary").plugin_data.plugin_name == "text"
    start, end = (
        plugin_data_pb2.HParamsPluginData.FromString(
            reader.SummaryMetadata(f"_hparams_/session_{which}_info").plugin_data.content
        )
        for which in ("start", "end")
    )
    found = start.session_start_info
    assert found.start_time_secs == 1.5
    assert {key: getattr(one, one.WhichOneof("kind")) for key, one in found.hparams.items()} == parameters
    assert (end.session_end_info.status, end.session_end_info.end_time_secs) == (1, 2.5)


@pytest.mark.parametrize("chunk", [1, 7, 100, 2**21])
def test_what_is_there_is_read_up_to_the_first_damage(path, chunk, monkeypatch):
    monkeypatch.setattr(eventfile, "CHUNK_BYTES", chunk)
    head = eventfile.version(1.0)
    first, second = (eventfile.scalars(series(key, [1, 200], [1, 2])) for key in ("a", "bc"))
    path.write_bytes(head + first + second)
    assert eventfile.newest_steps(path) == {"a": 200, "bc": 200}
    for cut in range(1, len(second) + 1):
        path.write_bytes((head + first + second)[:-cut])
        known = {"a": 200} | ({"bc": 1} if cut <= len(second) / 2 + 1 else {})
        assert eventfile.newest_steps(path) == known
        assert {tag: events[-1].step for tag, events in _scalars(path)} == known
    damaged = bytearray(head + first + second)
    damaged[len(head) + 30] ^= 1
    path.write_bytes(damaged)
    assert eventfile.newest_steps(path) == {}
    path.write_bytes(b"")
    assert eventfile.newest_steps(path) == {}
    path.write_bytes(bytes(1000))
    assert eventfile.newest_steps(path) == {}


def test_a_long_file_is_read_a_chunk_at_a_time(path):
    steps = np.arange(1, 200_001)
    path.write_bytes(b"".join(eventfile.scalars(series(key, steps, steps)) for key in ("a", "b")))
    tracemalloc.start()
    try:
        assert eventfile.newest_steps(path) == {"a": 200_000, "b": 200_000}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 * eventfile.CHUNK_BYTES


def _scalars(path):
    reader = read(path.parent)
    return [(tag, reader.Scalars(tag)) for tag in reader.Tags()["scalars"]]
