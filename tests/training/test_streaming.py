"""Samples on the disk: the same training as in memory, bit for bit, whenever it is left and taken up again."""

import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from epochd.errors import DataError
from epochd.training import data as data_module
from epochd.training import iteration_log, streaming
from epochd.training.config import (
    AugmentationConfig,
    DataShape,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from epochd.training.data import DeviceSamples, DiskSamples, MiniBatches, Samples, TrainingData
from epochd.training.events import EpochCompleted, IterationsCompleted
from epochd.training.prefetch import AHEAD
from epochd.training.streaming import StreamedSamples, on_device
from epochd.training.trainer import Trainer

CPU = torch.device("cpu")
DROPOUT = {"hidden_sizes": (16, 8), "dropout": 0.3, "batch_norm": True}
AUGMENTATION = AugmentationConfig(horizontal_flip=True, crop_padding=1)
CNN = ModelConfig("cnn", DataShape("image", (3, 8, 8), 3), {"channels": (4, 8), "hidden_size": 8})
CASES: dict[str, dict[str, Any]] = {
    "classification": {},
    "dropout and batch norm": {"model": DROPOUT, "drop_last": True},
    "regression": {"task": "regression", "schedule": ScheduleConfig("reduce_on_plateau", patience=0)},
    "images": {"batch_size": 16, "augmentation": AUGMENTATION},
    "mini-batches larger than the split": {"batch_size": 1000},
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two or three mini-batches a chunk, so that an epoch takes several."""
    monkeypatch.setattr(data_module, "CHUNK_BYTES", 2**12)


def on_disk(samples: Samples, folder: Path, name: str = "x") -> DiskSamples:
    """The same samples with their features in a mapped file."""
    np.save(folder / f"{name}.npy", samples.x)
    x = np.load(folder / f"{name}.npy", mmap_mode="r")
    return DiskSamples(lambda indices: np.take(x, indices, axis=0), samples.y, x.shape[1:], x.dtype)


def all_on_disk(data: TrainingData, folder: Path) -> TrainingData:
    splits = {"train": data.train, "validation": data.validation}
    return TrainingData(**{name: on_disk(samples, folder, name) for name, samples in splits.items()})


@pytest.fixture
def case(request, make_config, classification, regression, images) -> tuple[TrainingConfig, TrainingData]:
    fields = CASES[request.param]
    if request.param == "images":
        return replace(make_config(**fields), model=CNN), images
    return make_config(**fields), regression if fields.get("task") == "regression" else classification


def told(event: Any) -> list[Any]:
    """What an event says but its durations, iteration by iteration."""
    match event:
        case IterationsCompleted():
            columns = (event.train_loss, event.learning_rate, event.gradient_norm)
            return [tuple(value.tobytes() for value in row) for row in zip(*columns, strict=True)]
        case EpochCompleted():
            return [replace(event, seconds=0.0)]
        case _:
            return [event]


def everything(trainer: Trainer) -> list[Any]:
    """All that a training says, and what comes out of it."""
    said = [one for event in trainer.run() for one in told(event)]
    return [*said, trainer.evaluate(), weights_of(trainer), trainer.select("best"), weights_of(trainer)]


def weights_of(trainer: Trainer) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in trainer.model.state_dict().values()]


def reading_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("prefetch", "reader"))]


# The same as in memory


@pytest.mark.parametrize("readers", ["one", "many"])
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_training_is_the_one_in_memory_bit_for_bit(case, readers, tmp_path, monkeypatch):
    if readers == "many":
        monkeypatch.setattr(streaming, "WAITS_FOR_DISK", -1)
    config, data = case
    assert everything(Trainer(config, all_on_disk(data, tmp_path))) == everything(Trainer(config, data))
    assert reading_threads() == []


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_left_at_every_event_and_taken_up_again_it_is_the_same(case, tmp_path, monkeypatch):
    config, data = case
    stored = all_on_disk(data, tmp_path)
    twin = Trainer(config, data)
    expected = [one for event in twin.run() for one in told(event)]
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0.0)
    trainer, said = Trainer(config, stored), []
    while not said or said[-1] != expected[-1]:
        state, trainer = trainer.state_dict(), Trainer(config, stored)
        trainer.load_state_dict(state)
        with closing(trainer.run()) as events:
            said += told(next(events))
        assert reading_threads() == []
    assert said == expected
    assert weights_of(trainer) == weights_of(twin)


def test_what_began_in_memory_goes_on_from_the_disk(make_config, classification, tmp_path):
    twin = everything(Trainer(make_config(), classification))
    trainer, said = Trainer(make_config(), classification), []
    with closing(trainer.run()) as events:
        for event in events:
            said += told(event)
            if isinstance(event, EpochCompleted):
                break
    other = Trainer(make_config(), all_on_disk(classification, tmp_path))
    other.load_state_dict(trainer.state_dict())
    assert [*said, *everything(other)] == twin


def test_words_stay_whole_numbers(tmp_path):
    words = np.random.default_rng(0).integers(0, 2**31 - 1, (50, 7), dtype=np.int32)
    samples = Samples(words, np.arange(50))
    memory, disk = (on_device(one, "classification", CPU) for one in (samples, on_disk(samples, tmp_path)))
    assert isinstance(memory, DeviceSamples)
    assert isinstance(disk, StreamedSamples)
    order = torch.randperm(50)
    for (x, y), (expected_x, expected_y) in zip(disk.gather(order, 8), memory.gather(order, 8), strict=True):
        assert x.dtype == torch.int32
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)


@pytest.mark.parametrize("channels_last", [False, True])
def test_samples_lie_in_memory_as_those_from_memory(channels_last, tmp_path):
    """Kernels may round differently elsewhere."""
    samples = Samples(np.random.default_rng(0).random((50, 3, 5, 3), dtype=np.float32), np.arange(50))
    how = {"task": "classification", "device": CPU, "channels_last": channels_last}
    memory, disk = on_device(samples, **how), on_device(on_disk(samples, tmp_path), **how)
    assert memory.bytes_per_sample == disk.bytes_per_sample
    assert len(memory) == len(disk) == 50
    for epoch in (1, 2):
        chunks = [
            list(MiniBatches(one, 8, seed=0, drop_last=False, chunk_size=16).chunks(epoch))
            for one in (memory, disk)
        ]
        for expected, chunk in zip(*chunks, strict=True):
            same(expected.mini_batches, chunk.mini_batches)
    same(list(memory.in_order(7)), list(disk.in_order(7)))
    assert torch.equal(memory.slice(48, 60)[0], disk.slice(48, 60)[0])


def same(expected, found):
    for (one_x, one_y), (x, y) in zip(expected, found, strict=True):
        assert torch.equal(one_x, x)
        assert torch.equal(one_y, y)
        assert one_x.stride() == x.stride()
        assert one_x.data_ptr() % 64 == x.data_ptr() % 64


# How it is read


class Recorded:
    """``take`` of samples, and what it was asked for."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.asked: list[list[int]] = []

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        self.asked.append(indices.tolist())
        return self.samples.x[indices]

    def disk(self) -> DiskSamples:
        return DiskSamples(self, self.samples.y, self.samples.shape)


def test_every_chunk_is_read_once_in_ascending_order(classification):
    recorded = Recorded(classification.train)
    samples = StreamedSamples(recorded.disk(), "classification", CPU)
    source = MiniBatches(samples, 16, seed=0, drop_last=False, chunk_size=32)
    chunks = [chunk.y for chunk in source.chunks(1)]
    assert [len(asked) for asked in recorded.asked] == [len(y) for y in chunks] == [32, 32, 32, 32, 22]
    assert all(asked == sorted(asked) for asked in recorded.asked)
    assert sorted(index for asked in recorded.asked for index in asked) == list(range(150))


def test_reading_is_only_so_far_in_front_of_training(classification):
    recorded = Recorded(classification.train)
    samples = StreamedSamples(recorded.disk(), "classification", CPU)
    source = MiniBatches(samples, 1, seed=0, drop_last=False, chunk_size=1)
    with closing(source.chunks(1)) as chunks:
        for asked in range(1, 50):
            next(chunks)
            assert len(recorded.asked) <= asked + AHEAD
    assert len(recorded.asked) <= 49 + AHEAD
    assert reading_threads() == []


def test_what_was_trained_is_not_read_again(classification):
    recorded = Recorded(classification.train)
    samples = StreamedSamples(recorded.disk(), "classification", CPU)
    source = MiniBatches(samples, 16, seed=0, drop_last=False, chunk_size=32)
    assert sum(len(chunk.y) for chunk in source.chunks(1, after=6)) == 150 - 6 * 16
    assert sum(len(asked) for asked in recorded.asked) == 150 - 6 * 16


@pytest.mark.parametrize("limit", ["closed", "out of time"])
def test_nothing_is_read_any_more_once_training_was_left(
    limit, make_config, classification, tmp_path, monkeypatch
):
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0.0)
    config = make_config(max_runtime_seconds=1e-9 if limit == "out of time" else None, epochs=1000)
    trainer = Trainer(config, all_on_disk(classification, tmp_path))
    with closing(trainer.run()) as events:
        next(events)
        if limit == "closed":
            assert "prefetch" in reading_threads()
        else:
            list(events)
    assert trainer.stop_reason == (None if limit == "closed" else "time_limit")
    assert reading_threads() == []


def test_memory_is_bounded_by_chunks_not_by_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "CHUNK_BYTES", 2**20)
    samples, width = 2**18, 256
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", samples * width * 4)  # 256 MiB of zeros that take no room
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=(samples, width))
    y = np.arange(samples) % 2
    disk = DiskSamples(lambda indices: np.take(x, indices, axis=0), y, (width,))
    model = ModelConfig("linear", DataShape("table", (width,), 2))
    config = TrainingConfig("classification", model, epochs=1, batch_size=512)
    before, peak = anonymous(), 0
    for _ in Trainer(config, TrainingData(disk)).run():
        peak = max(peak, anonymous() - before)
    assert peak < 64 * 2**20


def anonymous() -> int:
    """Bytes of this process that are not those of files."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


# What goes wrong


def test_an_error_of_the_disk_ends_training_with_it(make_config, classification):
    calls = 0

    def take(indices: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(5, "Input/output error")
        return classification.train.x[indices]

    disk = DiskSamples(take, classification.train.y, classification.train.shape)
    trainer = Trainer(make_config(), replace(classification, train=disk))
    with pytest.raises(OSError, match="Input/output error"):
        list(trainer.run())
    assert trainer.position.iteration > 0
    assert reading_threads() == []
    assert trainer.select("last").epoch == trainer.position.epoch


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found_where_it_is_read(split, value, make_config, classification, tmp_path):
    samples = getattr(classification, split)
    x = samples.x.copy()
    x[-1, 3] = value
    broken = replace(classification, **{split: on_disk(Samples(x, samples.y), tmp_path)})
    with pytest.raises(DataError, match="NaN or infinite") as raised:
        list(Trainer(make_config(), broken).run())
    assert raised.value.code == "non_finite_data"
    assert reading_threads() == []


def test_targets_and_shapes_are_checked_before_training(make_config, classification, tmp_path):
    disk = on_disk(classification.train, tmp_path)
    cases = {
        "class_out_of_range": replace(disk, y=disk.y + 1),
        "wrong_shape": replace(disk, shape=(5,)),
    }
    for code, train in cases.items():
        with pytest.raises(DataError) as raised:
            Trainer(make_config(), TrainingData(train))
        assert raised.value.code == code


def test_memory_that_runs_out_while_reading_is_told_as_such(make_config, classification):
    def take(indices: np.ndarray) -> np.ndarray:
        if len(indices) > 1:
            raise MemoryError("Unable to allocate 3.7 GiB")
        return classification.train.x[indices]

    disk = DiskSamples(take, classification.train.y, classification.train.shape)
    with pytest.raises(Exception, match=r"does not fit into memory: Unable to allocate 3\.7 GiB"):
        list(Trainer(make_config(), replace(classification, train=disk)).run())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["classification", "images"], indirect=True)
def test_a_cuda_device_trains_from_the_disk_as_from_memory(case, tmp_path):
    config, data = case
    config = replace(config, device="cuda", optimizer=OptimizerConfig("sgd", learning_rate=0.05))
    stored, held = Trainer(config, all_on_disk(data, tmp_path)), Trainer(config, data)
    for trainer in (stored, held):
        list(trainer.run())
    for name, tensor in held.model.state_dict().items():
        assert torch.equal(tensor, stored.model.state_dict()[name])
