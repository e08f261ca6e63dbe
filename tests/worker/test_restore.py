import copy
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from epochd.contract.spec import JobSpec
from epochd.errors import OutOfMemoryError
from epochd.store.curve import Recorded
from epochd.training import iteration_log
from epochd.training.checkpoint import CheckpointFolder, CheckpointHeader
from epochd.training.config import DataShape, ModelConfig, TrainingConfig
from epochd.training.data import Samples, TrainingData
from epochd.training.trainer import Trainer
from epochd.worker.restore import WITHOUT_EFFECT, Restored, Wanted, fingerprint, restore

CONFIG = TrainingConfig(
    task="classification",
    model=ModelConfig("mlp", DataShape("table", (5,), 3), {"hidden_sizes": (4,), "dropout": 0.2}),
    epochs=3,
    batch_size=8,
)
PER_EPOCH = 5
LAST = 15


@pytest.fixture(scope="module")
def data() -> TrainingData:
    random = np.random.default_rng(0)

    def make(count: int) -> Samples:
        x = random.standard_normal((count, 5)).astype(np.float32)
        return Samples(x, random.integers(0, 3, count))

    return TrainingData(make(40), make(12))


@pytest.fixture
def make_trainer(data, monkeypatch):
    """Trainers that yield every iteration by itself."""
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0)
    return lambda: Trainer(CONFIG, data)


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "job_1")


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def header_of(trainer, attempt=1, **changes) -> CheckpointHeader:
    facts = CheckpointHeader(
        job_id="job_1",
        attempt=attempt,
        trained_by=attempt,
        epoch=trainer.epochs_completed,
        iteration=trainer.position.iteration,
        is_best=False,
        threads=1,
        fingerprint="f",
        saved_at="2026-01-31T09:00:00.123Z",
        reason="epoch",
        versions={},
    )
    return replace(facts, **changes)


@pytest.fixture
def train(folder, make_trainer):
    """Train to the end as ``attempt``, saving after the iterations named; give the trainer."""

    def train_(*saved_at, attempt=1, trainer=None, **changes):
        trainer = trainer or make_trainer()
        states = {}
        with closing(trainer.run()) as events:
            for _ in events:
                # The last event of an iteration is the epoch's end, if it ends one.
                states[trainer.position.iteration] = (
                    header_of(trainer, attempt, **changes),
                    trainer.state_dict(),
                )
        for iteration in saved_at:
            folder.save(*states[iteration])
        return trainer

    return train_


def wanted(iteration: int, attempt: int = 2, **changes) -> Wanted:
    """All that attempt 1 did up to this iteration is recorded."""
    segments = ((1, 1, iteration),) if iteration else ()
    return replace(Wanted(attempt, Recorded(segments, iteration // PER_EPOCH), "f", threads=1), **changes)


def weights_of(trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def assert_same_weights(first, second):
    for one, other in zip(weights_of(first), weights_of(second), strict=True):
        assert one.equal(other)


def damage(folder, iteration, attempt=1):
    path = folder.root / f"attempt-{attempt}" / f"iteration-{iteration}.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(folder):
    return [one.name for one in folder.found()]


def test_without_any_checkpoint_training_begins_at_the_beginning(folder, make_trainer):
    restoration = restore(folder, wanted(0, attempt=1, threads=2), make_trainer)
    assert restoration.restored is None
    assert restoration.threads == torch.get_num_threads() == 2
    assert restoration.trainer.position.iteration == 0


@pytest.mark.parametrize("iteration", [5, 7, 15])
def test_an_attempt_goes_on_as_if_nothing_had_happened(iteration, folder, make_trainer, train):
    twin = train(2, iteration)
    restoration = restore(folder, wanted(15), make_trainer)
    assert restoration.restored == Restored(
        epoch=iteration // PER_EPOCH,
        iteration=iteration,
        attempt=1,
        trained_by=1,
        saved_at="2026-01-31T09:00:00.123Z",
    )
    assert restoration.trainer.position.iteration == iteration
    assert restoration.trainer.epochs_completed == iteration // PER_EPOCH
    assert_same_weights(train(trainer=restoration.trainer), twin)


def test_what_was_restored_is_told_as_json(folder, make_trainer, train):
    train(5, 7, 10)
    damage(folder, 10)
    told = restore(folder, wanted(15), make_trainer).restored.as_dict()
    assert told == {
        "epoch": 1,
        "iteration": 7,
        "attempt": 1,
        "saved_at": "2026-01-31T09:00:00.123Z",
        "skipped": [
            {
                "file": "attempt-1/iteration-10.ckpt",
                "reason": "the file is torn or damaged: its digest is wrong",
            }
        ],
    }


def test_nothing_that_is_not_recorded_is_skipped(folder, make_trainer, train):
    """The newest was saved before its iterations were committed; nobody may ever resume from it."""
    train(5, 8, 12)
    restored = restore(folder, wanted(11), make_trainer).restored
    assert restored.iteration == 8
    (skipped,) = restored.skipped
    assert skipped["file"] == "attempt-1/iteration-12.ckpt"
    assert skipped["reason"].endswith("2 completed epochs is not on the recorded curve")
    assert names(folder) == ["attempt-1/iteration-8.ckpt", "attempt-1/iteration-5.ckpt"]


def test_an_epoch_that_is_not_recorded_is_not_skipped(folder, make_trainer, train):
    """Its iterations are recorded, its metrics are not."""
    train(4, 10)
    recorded = Recorded(((1, 1, 10),), epoch=1)
    assert restore(folder, wanted(10, recorded=recorded), make_trainer).restored.iteration == 4


def test_iterations_that_were_trained_again_are_not_resumed_from_their_first_time(
    folder, make_trainer, train
):
    """Attempt 2 began anew after iteration 4: what attempt 1 had saved beyond is not on the curve any more."""
    train(3, 9)
    train(6, attempt=2)
    recorded = Recorded(((1, 1, 4), (2, 5, 11)), epoch=2)
    restored = restore(folder, wanted(11, attempt=3, recorded=recorded), make_trainer).restored
    assert (restored.iteration, restored.attempt) == (6, 2)
    assert [one["file"] for one in restored.skipped] == ["attempt-1/iteration-9.ckpt"]
    assert names(folder) == ["attempt-2/iteration-6.ckpt", "attempt-1/iteration-3.ckpt"]


def test_an_attempt_that_trained_nothing_hands_on_what_it_began_with(folder, make_trainer, train):
    """It was paused at once: the iteration that it saved at belongs to the attempt before it."""
    twin = train()
    train(7, attempt=2, trained_by=1)
    restoration = restore(folder, wanted(9, attempt=3), make_trainer)
    assert (restoration.restored.attempt, restoration.restored.trained_by) == (2, 1)
    assert_same_weights(train(trainer=restoration.trainer), twin)


def test_the_newest_that_is_intact_is_used(folder, make_trainer, train):
    twin = train(5, 7, 10, 12)
    damage(folder, 12)
    torn = folder.root / "attempt-1" / "iteration-10.ckpt"
    torn.write_bytes(torn.read_bytes()[:15])
    restoration = restore(folder, wanted(15), make_trainer)
    assert restoration.restored.iteration == 7
    assert [one["file"] for one in restoration.restored.skipped] == [
        "attempt-1/iteration-12.ckpt",
        "attempt-1/iteration-10.ckpt",
    ]
    assert len(names(folder)) == 4, "what is merely damaged is left to look at"
    assert_same_weights(train(trainer=restoration.trainer), twin)


def test_with_none_intact_training_begins_at_the_beginning_and_says_so(folder, make_trainer, train):
    twin = train(5)
    damage(folder, 5)
    restoration = restore(folder, wanted(15), make_trainer)
    told = restoration.restored.as_dict()
    assert [one["file"] for one in told.pop("skipped")] == ["attempt-1/iteration-5.ckpt"]
    assert told == {"epoch": 0, "iteration": 0, "attempt": None, "saved_at": None}
    assert_same_weights(train(trainer=restoration.trainer), twin)


def test_another_training_is_not_gone_on_with(folder, make_trainer, train):
    train(5)
    restored = restore(folder, wanted(15, fingerprint="another"), make_trainer).restored
    assert restored.iteration == 0
    assert restored.skipped[0]["reason"] == "it was trained by another spec, or on other data"


def test_a_trainer_that_refuses_is_not_left_half_loaded(folder, make_trainer, train, data):
    """It takes the weights and stumbles over a later part; whatever that part is, training begins afresh."""
    twin = train(5)
    (found,) = folder.found()
    state = folder.load(found)
    for key in list(state)[1:]:
        folder.save(found.header, {name: part for name, part in state.items() if name != key})
        restoration = restore(folder, wanted(15), make_trainer)
        assert restoration.restored.iteration == 0, key
        assert restoration.trainer.position.iteration == 0
        fresh = make_trainer()
        assert_same_weights(restoration.trainer, fresh)
    assert_same_weights(train(trainer=restoration.trainer), twin)


def test_a_state_of_another_version_says_so(folder, make_trainer, train):
    train(5)
    (found,) = folder.found()
    folder.save(found.header, {**folder.load(found), "version": 10**6})
    (skipped,) = restore(folder, wanted(15), make_trainer).restored.skipped
    assert "version 1000000" in skipped["reason"]


@pytest.mark.parametrize("runs_out_in", ["making", "loading"])
def test_memory_that_runs_out_is_not_taken_for_damage(runs_out_in, folder, make_trainer, train, monkeypatch):
    def run_out(*_):
        raise OutOfMemoryError("no memory")

    train(5)
    if runs_out_in == "loading":
        monkeypatch.setattr(Trainer, "load_state_dict", run_out)
    with pytest.raises(OutOfMemoryError):
        restore(folder, wanted(15), run_out if runs_out_in == "making" else make_trainer)
    assert names(folder) == ["attempt-1/iteration-5.ckpt"]


def test_an_attempt_looks_at_earlier_ones_only(folder, make_trainer, train):
    """It was suspended while it loaded its data, and lost its lease; its successor saves already."""
    train(5)
    train(10, attempt=3)
    assert restore(folder, wanted(9), make_trainer).restored == Restored(
        1, 5, 1, 1, "2026-01-31T09:00:00.123Z"
    )
    assert names(folder) == ["attempt-3/iteration-10.ckpt", "attempt-1/iteration-5.ckpt"]


def test_a_restart_from_scratch_forgets_silently(folder, make_trainer, train):
    train(5, attempt=1)
    train(10, attempt=2)
    restoration = restore(folder, wanted(0, attempt=3, restarted_after=2), make_trainer)
    assert restoration.restored is None
    assert restoration.trainer.position.iteration == 0
    assert names(folder) == []


def test_the_threads_of_the_checkpoint_are_those_of_the_attempt(folder, train, make_trainer):
    train(5, threads=1)
    train(7, threads=3)
    seen = []

    def make():
        seen.append(torch.get_num_threads())
        return make_trainer()

    restoration = restore(folder, wanted(15, threads=2), make)
    assert (seen, restoration.threads) == ([3], 3)
    damage(folder, 7)
    assert restore(folder, wanted(15, threads=2), make).threads == 1
    damage(folder, 5)
    assert restore(folder, wanted(15, threads=2), make).threads == torch.get_num_threads() == 2


def test_what_a_killed_attempt_left_half_written_is_removed(folder, make_trainer, train):
    train(5)
    half = folder.root / "attempt-1" / ".iteration-10.ckpt.123.tmp"
    half.write_bytes(b"half")
    assert restore(folder, wanted(15), make_trainer).restored.skipped == ()
    assert not half.exists()


SPEC = {"dataset": "digits", "epochs": 3, "batch_size": 64, "early_stopping": {"patience": 2}}


def test_the_fingerprint_is_that_of_what_determines_training():
    mine = fingerprint(SPEC, "d")
    assert fingerprint(dict(reversed(copy.deepcopy(SPEC).items())), "d") == mine
    for name in WITHOUT_EFFECT:
        assert fingerprint({**SPEC, name: "something"}, "d") == mine
    others = [
        fingerprint(SPEC, "e"),
        *(fingerprint({**SPEC, name: 7}, "d") for name in set(JobSpec.model_fields) - WITHOUT_EFFECT),
        fingerprint({**SPEC, "early_stopping": {"patience": 3}}, "d"),
    ]
    assert mine not in others
    assert len(set(others)) == len(others)


def test_what_has_no_effect_are_fields_of_the_spec():
    assert set(JobSpec.model_fields) > WITHOUT_EFFECT
