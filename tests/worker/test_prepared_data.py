"""Data that callers brought: opened, split, preprocessed, in memory or from the disk."""

from dataclasses import replace

import numpy as np
import pytest
from tests.datasets.mixed_table import people, reordered

from epochd.contract.spec import JobSpec
from epochd.datasets.info import DatasetInfo
from epochd.datasets.stored import StoredWriter, open_stored
from epochd.errors import DataError
from epochd.jobs.resolve import resolve
from epochd.training.data import DiskSamples, Samples
from epochd.worker.data_memory import default_data_memory
from epochd.worker.prepare import encoded_for, prepare_data, training_config

SAMPLES = 60


def store(folder, raw, times=SAMPLES // 6):
    """Write a data set, some times over."""
    folder.mkdir()
    with StoredWriter(folder) as writer:
        for _ in range(times):
            for name, part in (*raw.parts.items(), ("y", raw.y)):
                writer.append(name, part)
        writer.finish(replace(raw.info, samples=times * len(raw)))
    return open_stored(folder)


@pytest.fixture
def stored(tmp_path):
    return {
        "people": store(tmp_path / "people", people()),
        "other": store(tmp_path / "other", reordered(), 2),
    }


def spec(**body):
    base = JobSpec.model_validate({"dataset": "people", "epochs": 1, "batch_size": 8, **body})
    built_in = resolve(base.model_copy(update={"dataset": "iris", "validation": None, "model": base.model}))
    return built_in.model_copy(update={"dataset": "people", "validation": base.validation})


def wanted(**body):
    return spec(validation={"fraction": 0.25}, **body)


@pytest.mark.parametrize(("model", "width"), [("mlp", 23), ("tabular_resnet", 23)])
def test_the_engine_is_told_what_one_sample_looks_like(stored, model, width):
    job = wanted(model={"name": model})
    shape = training_config(job, stored["people"].info, "cpu").model.data
    assert (shape.input_shape, shape.categories, shape.outputs) == ((width,), (), 2)
    data = prepare_data(job, stored.__getitem__)
    assert data.training.train.x.shape == (45, width)
    assert data.training.validation.x.shape == (15, width)


def test_a_model_that_embeds_gets_codes(stored):
    job = wanted().model_copy(update={"model": JobSpec.model_validate(
        {"dataset": "x", "epochs": 1, "batch_size": 1, "model": {"name": "ft_transformer"}}
    ).model})  # fmt: skip
    data = prepare_data(job, stored.__getitem__)
    assert data.encoded == encoded_for(job.model, stored["people"].info)
    assert data.encoded.categories == (4, 3)
    assert data.training.train.x[:, -2:].max(axis=0).tolist() == [3, 2]


def test_a_text_is_as_long_as_its_model_says(tmp_path):
    info = DatasetInfo("reviews", "classification", 2, (), ("bad", "good"), 0, "", "text")
    job = JobSpec.model_validate(
        {
            "dataset": "reviews", "epochs": 1, "batch_size": 1, "loss": "cross_entropy",
            "model": {"name": "text_classifier", "vocabulary_size": 77, "sequence_length": 5},
        }
    )  # fmt: skip
    shape = training_config(job, info, "cpu").model.data
    assert (shape.kind, shape.input_shape, shape.vocabulary) == ("text", (5,), 77)


def test_on_the_disk_the_bits_are_the_same(stored):
    near = prepare_data(wanted(), stored.__getitem__)
    far = prepare_data(
        wanted(), stored.__getitem__, memory_bytes=near.encoded.bytes_per_sample * (SAMPLES - 1)
    )
    just = prepare_data(wanted(), stored.__getitem__, memory_bytes=near.encoded.bytes_per_sample * SAMPLES)
    assert isinstance(just.training.train, Samples)
    assert far.preprocessing.as_dict() == near.preprocessing.as_dict()
    for ours, theirs in (
        (far.training.train, near.training.train),
        (far.training.validation, near.training.validation),
    ):
        assert isinstance(ours, DiskSamples)
        order = np.random.default_rng(0).permutation(len(theirs))
        assert np.array_equal(ours.take(order), theirs.x[order])
        assert np.array_equal(ours.y, theirs.y)
        assert (ours.shape, ours.dtype) == (theirs.x.shape[1:], theirs.x.dtype)


def test_built_in_data_is_in_memory_anyway():
    job = resolve(JobSpec.model_validate({"dataset": "iris", "epochs": 1, "batch_size": 8}))
    assert isinstance(prepare_data(job, memory_bytes=0).training.train, Samples)


@pytest.mark.parametrize("memory", [0, 2**40])
def test_another_data_set_is_validated_on_whole(stored, memory):
    job = spec(validation={"dataset": "other"})
    data = prepare_data(job, stored.__getitem__, memory_bytes=memory)
    alone = prepare_data(spec(validation=None), stored.__getitem__)
    assert (len(data.training.train), len(data.training.validation)) == (60, 12)
    everything = np.arange(12)
    held_back = data.training.validation
    x = held_back.x if memory else held_back.take(everything)
    assert np.array_equal(x, alone.training.train.x[:12])
    assert np.array_equal(held_back.y, alone.training.train.y[:12])
    assert data.digest == alone.digest == alone.identity
    assert data.identity not in {data.digest, stored["other"].digest}


def test_a_data_set_that_does_not_fit_is_refused(stored):
    with pytest.raises(DataError, match="iris has no column 'age'"):
        prepare_data(spec(validation={"dataset": "iris"}), stored.__getitem__)


def test_the_split_can_be_read_as_it_was_measured(stored):
    data = prepare_data(wanted(), stored.__getitem__)
    inputs = data.preprocessing.inputs(data.validation.open(), data.validation.rows)
    assert len(inputs["numbers"]) == 15
    again = data.preprocessing.apply(data.validation.open(), data.validation.rows)
    assert np.array_equal(again, data.training.validation.x)
    together = np.concatenate([data.train.rows, data.validation.rows])
    assert np.array_equal(np.sort(together), np.arange(SAMPLES))


def test_made_up_samples_are_made_again():
    body = {"dataset": {"name": "synthetic", "samples": 40}, "epochs": 1, "batch_size": 8}
    data = prepare_data(resolve(JobSpec.model_validate(body)))
    again = data.preprocessing.apply(data.train.open(), data.train.rows)
    assert np.array_equal(again, data.training.train.x)


def test_preprocessing_can_be_taken_over(stored):
    first = prepare_data(wanted(seed=1), stored.__getitem__)
    second = prepare_data(wanted(seed=2), stored.__getitem__, fitted=first.preprocessing)
    assert second.preprocessing is first.preprocessing
    rows = second.train.rows
    expected = first.preprocessing.apply(stored["people"], rows)
    assert np.array_equal(second.training.train.x, expected)


def test_targets_have_their_unit():
    job = resolve(JobSpec.model_validate({"dataset": "diabetes", "epochs": 1, "batch_size": 8}))
    data = prepare_data(job)
    assert np.array_equal(data.training.target_scale, data.preprocessing.target_scale)
    job = resolve(JobSpec.model_validate({"dataset": "iris", "epochs": 1, "batch_size": 8}))
    assert prepare_data(job).training.target_scale is None


def test_a_data_set_that_nobody_knows_is_gone():
    with pytest.raises(DataError, match="'people'") as caught:
        prepare_data(wanted())
    assert caught.value.code == "dataset_gone"


def test_memory_for_samples_is_a_part_of_what_there_is(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    assert default_data_memory(2, limit) == default_data_memory(1, tmp_path / "none") // 2
    limit.write_text("8000000\n")
    assert default_data_memory(2, limit) == 1_000_000
