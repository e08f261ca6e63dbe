"""Data sets that callers brought, from the database to a trained model."""

import json
from dataclasses import replace

import pytest
from tests.datasets.mixed_table import people, reordered

from epochd.datasets.stored import StoredWriter
from epochd.errors import DataError
from epochd.jobs.claim import claim
from epochd.store import datasets
from epochd.store.datasets import NewDataset
from epochd.worker import runner
from epochd.worker.dataset_files import opener
from epochd.worker.order import AttemptOrder


@pytest.fixture
def bring(database, folders):
    """Store a data set as the API does."""

    def make(name, raw, times=20):
        folder = folders.datasets / name
        folder.mkdir(parents=True)
        info = replace(raw.info, name=name, samples=times * len(raw))
        with StoredWriter(folder) as writer:
            for _ in range(times):
                for part, values in (*raw.parts.items(), ("y", raw.y)):
                    writer.append(part, values)
            digest = writer.finish(info)
        row = NewDataset(
            f"ds_{name}", name, digest, name, 1, info.as_dict(), {}, {}, [], None, f"request {name}"
        )
        with database.write() as tx:
            return datasets.insert(tx, row)

    return make


@pytest.fixture
def train(database, database_url, folders, queue):
    def run(memory=2**40, **body):
        queue({"epochs": 2, "batch_size": 16, **body})
        taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
        order = AttemptOrder.of(
            taken,
            database_url=database_url,
            folders=folders,
            lease_seconds=60,
            data_memory_bytes=memory,
        )
        outcome = runner.run_attempt(order)
        return outcome, order

    return run


def model_of(outcome, folders):
    paths = {artifact.name: folders.artifacts / artifact.path for artifact in outcome.artifacts}
    return paths["model.safetensors"].read_bytes(), json.loads(paths["model.json"].read_text())


@pytest.mark.parametrize("model", ["mlp", "ft_transformer"])
def test_a_mixed_table_trains_the_same_from_memory_and_from_the_disk(bring, train, folders, model):
    bring("people", people())
    kept = []
    for memory in (2**40, 0):
        outcome, order = train(memory, dataset="people", model={"name": model})
        assert (outcome.status, outcome.error) == ("succeeded", None)
        assert order.spec["dataset"] == "ds_people"
        kept.append(model_of(outcome, folders))
    assert kept[0][0] == kept[1][0]
    assert kept[0][1]["preprocessing"] == kept[1][1]["preprocessing"]
    assert [one["name"] for one in kept[0][1]["preprocessing"]["categories"]] == ["colour", "size"]


def test_one_data_set_is_validated_on_another(bring, train):
    bring("people", people())
    bring("later", reordered(), times=3)
    outcome, order = train(dataset="people", validation={"dataset": "later"})
    assert (outcome.status, outcome.error) == ("succeeded", None)
    assert (order.plan["train_samples"], order.plan["validation_samples"]) == (120, 18)


def test_what_was_deleted_or_damaged_is_not_trained_on(database, bring, train, folders):
    row = bring("people", people())
    with (folders.datasets / "people" / "numbers.bin").open("r+b") as file:
        file.truncate(8)
    outcome, _ = train(dataset="people")
    assert (outcome.status, outcome.error["code"]) == ("failed", "dataset_unreadable")
    with database.write() as tx:
        datasets.delete(tx, row.number)
    with pytest.raises(DataError, match="was deleted") as caught:
        opener(database, folders.datasets)("ds_people")
    assert (caught.value.code, caught.value.retryable) == ("dataset_gone", False)


@pytest.mark.parametrize("damage", ["other digest", "no description", "torn description"])
def test_files_that_are_not_what_they_were_are_refused(database, bring, folders, damage):
    bring("people", people())
    description = folders.datasets / "people" / "dataset.json"
    if damage == "other digest":
        description.write_text(description.read_text().replace("sha256:", "sha256:0"))
    elif damage == "no description":
        description.unlink()
    else:
        description.write_bytes(description.read_bytes()[:50])
    with pytest.raises(DataError, match="not what they were") as caught:
        opener(database, folders.datasets)("ds_people")
    assert caught.value.code == "dataset_unreadable"
