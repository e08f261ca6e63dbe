import errno
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from epochd.contract.spec import Checkpoint
from epochd.errors import NumericError
from epochd.training import iteration_log
from epochd.training.checkpoint import CheckpointFolder
from epochd.training.config import (
    DataShape,
    EarlyStoppingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from epochd.training.data import Samples, TrainingData
from epochd.training.events import EpochCompleted
from epochd.training.trainer import Trainer
from epochd.worker import checkpointer
from epochd.worker.checkpointer import Checkpointer, CheckpointFailed, CheckpointSaved, HeaderFacts
from epochd.worker.restore import Restored

CONFIG = TrainingConfig(
    task="classification",
    model=ModelConfig("mlp", DataShape("table", (5,), 3), {"hidden_sizes": (4,), "dropout": 0.2}),
    epochs=6,
    batch_size=8,
)
PER_EPOCH = 5
FACTS = HeaderFacts(job_id="job_1", attempt=3, fingerprint="f", threads=2)


class SlowFolder(CheckpointFolder):
    """A disk that takes its time: each write waits until it is let through."""

    def __init__(self, root):
        super().__init__(root)
        self.arrived = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)

    def save(self, header, state):
        self.arrived.release()
        assert self.let_through.acquire(timeout=30)
        return super().save(header, state)


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "job_1")


@pytest.fixture
def reports():
    return []


@pytest.fixture
def make_trainer(monkeypatch):
    """Trainers that yield every iteration by itself."""
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0)
    random = np.random.default_rng(0)

    def samples(count):
        return Samples(random.standard_normal((count, 5)).astype(np.float32), random.integers(0, 3, count))

    data = TrainingData(samples(40), samples(12))
    return lambda config=CONFIG: Trainer(config, data)


@pytest.fixture
def eager(monkeypatch):
    """Whatever is due is taken, however little time has passed."""
    for name in ("MIN_SECONDS", "COST_FACTOR", "RETRY_SECONDS"):
        monkeypatch.setattr(checkpointer, name, 0)


@pytest.fixture
def make_checkpointer(folder, reports):
    def make(facts=FACTS, recorded=lambda: (10**6, 10**6), folder=folder, report=reports.append, **policy):
        policy = {"every_epochs": 1, "every_seconds": 10**9, "keep": 1000, **policy}
        # As the contract makes it, but for its bounds: tests do not wait for seconds.
        return Checkpointer(
            folder, Checkpoint.model_construct(**policy), facts, recorded=recorded, report=report
        )

    return make


def train(trainer, saver, until=lambda _: False):
    """Train as a runner does, each checkpoint written before training goes on; give the events."""
    seen = []
    with closing(trainer.run()) as events:
        for event in events:
            seen.append(event)
            saver.look(event, trainer)
            wait_until_idle(saver)
            if until(event):
                break
    return seen


def wait_until_idle(saver):
    with saver._changed:
        assert saver._changed.wait_for(lambda: saver._waiting is None and saver._in_work is None, 30)


def iterations(folder):
    return [one.iteration for one in folder.found()]


def ends_epoch(epoch):
    return lambda event: isinstance(event, EpochCompleted) and event.epoch == epoch


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4]), (7, [])])
@pytest.mark.usefixtures("eager")
def test_every_so_many_epochs_one_is_saved(every, epochs, make_trainer, make_checkpointer, reports, folder):
    with make_checkpointer(every_epochs=every) as saver:
        train(make_trainer(), saver)
    saved = [(one.epoch, one.iteration, one.reason) for one in reports]
    assert saved == [(epoch, epoch * PER_EPOCH, "epoch") for epoch in epochs]
    assert sorted(iterations(folder)) == [epoch * PER_EPOCH for epoch in epochs]


@pytest.mark.usefixtures("eager")
def test_what_is_saved_is_the_state_of_that_moment(make_trainer, make_checkpointer, folder):
    trainer = make_trainer()
    with make_checkpointer() as saver:
        train(trainer, saver, until=ends_epoch(2))
    newest = folder.found()[0]
    resumed = make_trainer()
    resumed.load_state_dict(folder.load(newest))
    assert resumed.position == trainer.position
    for one, other in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.usefixtures("eager")
def test_the_header_tells_what_there_is_to_know(make_trainer, make_checkpointer, folder, reports):
    with make_checkpointer() as saver:
        train(make_trainer(), saver, until=ends_epoch(1))
    (found,) = folder.found()
    header = found.header
    assert (header.job_id, header.attempt, header.trained_by) == ("job_1", 3, 3)
    assert (header.epoch, header.iteration, header.is_best) == (1, PER_EPOCH, True)
    assert (header.threads, header.fingerprint, header.reason) == (2, "f", "epoch")
    assert header.versions["torch"] == torch.__version__
    assert header.saved_at.endswith("Z")
    assert reports == [CheckpointSaved(1, PER_EPOCH, found.path.stat().st_size, "epoch", is_best=True)]


def test_epochs_of_milliseconds_share_a_checkpoint(make_trainer, make_checkpointer, folder, monkeypatch):
    monkeypatch.setattr(checkpointer, "MIN_SECONDS", 10**6)
    with make_checkpointer() as saver:
        train(make_trainer(), saver)
    assert iterations(folder) == []


def test_copying_does_not_eat_up_the_time_of_training(make_trainer, make_checkpointer, folder, monkeypatch):
    """The first is taken, as nothing is known of its cost; after that training owes ages of work."""
    monkeypatch.setattr(checkpointer, "MIN_SECONDS", 0)
    monkeypatch.setattr(checkpointer, "COST_FACTOR", 10**12)
    with make_checkpointer() as saver:
        train(make_trainer(), saver)
    assert iterations(folder) == [PER_EPOCH]


@pytest.mark.usefixtures("eager")
def test_within_an_epoch_time_decides(make_trainer, make_checkpointer, reports):
    with make_checkpointer(every_epochs=2, every_seconds=0) as saver:
        train(make_trainer(), saver, until=ends_epoch(2))
    assert [(one.iteration, one.epoch, one.reason) for one in reports] == [
        (1, 0, "time"),
        (2, 0, "time"),
        (3, 0, "time"),
        (4, 0, "time"),
        (5, 1, "time"),  # not before the epoch's end, too: it would have the same iteration
        (6, 1, "time"),
        (7, 1, "time"),
        (8, 1, "time"),
        (9, 1, "time"),
        (10, 2, "epoch"),
    ]


@pytest.mark.usefixtures("eager")
def test_the_newest_and_the_best_stay(make_trainer, make_checkpointer, folder):
    """A learning rate that ruins the weights: the first epoch is the best."""
    config = TrainingConfig(
        task="classification",
        model=CONFIG.model,
        epochs=6,
        batch_size=8,
        optimizer=OptimizerConfig("sgd", learning_rate=30.0),
        early_stopping=EarlyStoppingConfig(patience=100),
    )
    with make_checkpointer(keep=2) as saver:
        seen = train(make_trainer(config), saver)
    best = max(event.iteration for event in seen if isinstance(event, EpochCompleted) and event.is_best)
    assert best < 5 * PER_EPOCH, "the data were chosen so"
    assert iterations(folder) == [6 * PER_EPOCH, 5 * PER_EPOCH, best]


@pytest.mark.usefixtures("eager")
def test_while_the_database_is_away_the_newest_that_is_recorded_stays(
    make_trainer, make_checkpointer, folder
):
    with make_checkpointer(keep=1, recorded=lambda: (2, 2 * PER_EPOCH + 3)) as saver:
        train(make_trainer(), saver)
    assert 2 * PER_EPOCH in iterations(folder)
    assert 6 * PER_EPOCH in iterations(folder)
    assert 5 * PER_EPOCH not in iterations(folder)


@pytest.mark.usefixtures("eager")
def test_training_does_not_wait_for_the_disk(make_trainer, make_checkpointer, tmp_path, reports):
    """The disk hangs over the first; training ends meanwhile, and no further copy is made."""
    folder = SlowFolder(tmp_path / "job_1")
    trainer = make_trainer()
    with make_checkpointer(folder=folder) as saver:
        with closing(trainer.run()) as events:
            for event in events:
                saver.look(event, trainer)
                if ends_epoch(1)(event):
                    assert folder.arrived.acquire(timeout=30)
        folder.let_through.release()
        wait_until_idle(saver)
    assert [one.epoch for one in reports] == [1]
    assert trainer.stop_reason == "completed"
    (first,) = CheckpointFolder(folder.root).found()
    assert folder.load(first).keys() == trainer.state_dict().keys()
    resumed = make_trainer()
    resumed.load_state_dict(folder.load(first))
    assert resumed.position.iteration == PER_EPOCH, "its copy did not change as training went on"


def test_saving_now_waits_for_the_disk(make_trainer, make_checkpointer, folder, reports):
    trainer = make_trainer()
    with make_checkpointer() as saver:
        with closing(trainer.run()) as events:
            for _ in events:
                if trainer.position.iteration == 7:
                    break
        assert saver.save_now("pause", trainer)
        assert [(one.iteration, one.epoch, one.reason) for one in reports] == [(7, 1, "pause")]
        assert iterations(folder) == [7]


@pytest.mark.usefixtures("eager")
def test_saving_now_the_end_of_the_best_epoch_keeps_its_mark(make_trainer, make_checkpointer, folder):
    trainer = make_trainer()
    with make_checkpointer() as saver:
        train(trainer, saver, until=ends_epoch(1))
        assert saver.save_now("shutdown", trainer)
    (found,) = folder.found()
    assert (found.header.reason, found.header.is_best) == ("shutdown", True)


def test_saving_now_comes_after_what_is_being_written(
    make_trainer, make_checkpointer, tmp_path, reports, monkeypatch
):
    monkeypatch.setattr(checkpointer, "MIN_SECONDS", 0)
    folder = SlowFolder(tmp_path / "job_1")
    trainer = make_trainer()
    with make_checkpointer(folder=folder) as saver:
        with closing(trainer.run()) as events:
            for event in events:
                saver.look(event, trainer)
                if trainer.position.iteration == 7:
                    break
        assert folder.arrived.acquire(timeout=30)
        threading.Timer(0.05, folder.let_through.release, (2,)).start()  # before or after: both must do
        assert saver.save_now("shutdown", trainer)
    assert [one.reason for one in reports] == ["epoch", "shutdown"]


def test_before_the_first_iteration_there_is_nothing_to_lose(make_trainer, make_checkpointer, folder):
    with make_checkpointer() as saver:
        assert saver.save_now("pause", make_trainer())
    assert not folder.root.exists()


def test_an_attempt_that_trained_nothing_names_who_did(make_trainer, make_checkpointer, folder):
    source = make_trainer()
    with closing(source.run()) as events:
        for _ in events:
            if source.position.iteration == 7:
                break
    trainer = make_trainer()
    trainer.load_state_dict(source.state_dict())
    restored = Restored(epoch=1, iteration=7, attempt=2, trained_by=1, saved_at="then")
    facts = HeaderFacts("job_1", 3, "f", 2, restored)
    with make_checkpointer(facts=facts) as saver:
        assert saver.save_now("pause", trainer)
        with closing(trainer.run()) as events:
            next(events)
        assert saver.save_now("pause", trainer)
    assert [(one.iteration, one.attempt, one.header.trained_by) for one in folder.found()] == [
        (8, 3, 3),
        (7, 3, 1),
    ]


@pytest.mark.usefixtures("eager")
def test_weights_that_are_ruined_are_never_saved(make_trainer, make_checkpointer, folder):
    config = TrainingConfig(
        task="classification",
        model=CONFIG.model,
        epochs=6,
        batch_size=8,
        optimizer=OptimizerConfig("sgd", learning_rate=1e30),
    )
    trainer = make_trainer(config)
    with make_checkpointer(every_seconds=0) as saver, pytest.raises(NumericError) as caught:
        train(trainer, saver)
    assert not trainer.is_resumable
    assert all(iteration < caught.value.iteration for iteration in iterations(folder))
    with make_checkpointer() as saver:
        assert not saver.save_now("cancel", trainer)


@pytest.mark.usefixtures("eager")
def test_a_disk_that_fails_is_told_once_until_it_works_again(
    make_trainer, make_checkpointer, folder, reports, caplog
):
    trainer = make_trainer()
    with make_checkpointer() as saver, closing(trainer.run()) as events:
        for event in events:
            if ends_epoch(1)(event) or ends_epoch(5)(event):
                folder.remove()
                folder.root.write_text("in the way")
            if ends_epoch(4)(event):
                folder.root.unlink()
            saver.look(event, trainer)
            wait_until_idle(saver)
        assert not saver.save_now("pause", trainer)
    assert trainer.stop_reason == "completed"
    failed = CheckpointFailed(
        "data_dir_not_writable",
        "The worker could not write a checkpoint into its data directory: Not a directory.",
    )
    assert [one if isinstance(one, CheckpointFailed) else one.epoch for one in reports] == [
        failed,
        4,
        failed,
        failed,
    ], "the last one because somebody asked for that checkpoint"
    assert caplog.text.count("a checkpoint could not be saved") == 3


def test_after_a_failure_the_disk_is_left_alone_for_a_while(
    make_trainer, make_checkpointer, folder, monkeypatch
):
    for name, value in (("MIN_SECONDS", 0), ("COST_FACTOR", 0), ("RETRY_SECONDS", 10**6)):
        monkeypatch.setattr(checkpointer, name, value)
    folder.root.write_text("in the way")
    trainer = make_trainer()
    with make_checkpointer() as saver, closing(trainer.run()) as events:
        for event in events:
            if ends_epoch(2)(event):
                folder.root.unlink()
            saver.look(event, trainer)
            wait_until_idle(saver)
        assert iterations(folder) == []
        assert saver.save_now("pause", trainer), "what is asked for is tried at once"


def test_an_unforeseen_error_is_told_without_its_text(
    make_trainer, make_checkpointer, tmp_path, reports, caplog
):
    class BrokenFolder(CheckpointFolder):
        def save(self, *_):
            raise RuntimeError("secret")

    trainer = make_trainer()
    with make_checkpointer(folder=BrokenFolder(tmp_path)) as saver, closing(trainer.run()) as events:
        next(events)
        assert not saver.save_now("pause", trainer)
    assert [one.code for one in reports] == ["internal_error"]
    assert "secret" not in reports[0].message
    assert "secret" in caplog.text


def test_a_report_that_fails_makes_nobody_wait_for_ever(make_trainer, make_checkpointer, folder, caplog):
    def report(_):
        raise OSError(errno.EPIPE, "the recorder is gone")

    trainer = make_trainer()
    with make_checkpointer(report=report) as saver, closing(trainer.run()) as events:
        next(events)
        assert saver.save_now("pause", trainer)
        assert saver.save_now("pause", trainer)
    assert iterations(folder) == [1]
    assert "the recorder is gone" in caplog.text


@pytest.mark.usefixtures("eager")
def test_no_memory_for_a_copy_ends_no_training(make_trainer, make_checkpointer, reports, monkeypatch):
    trainer = make_trainer()

    def state_dict():
        raise MemoryError

    monkeypatch.setattr(trainer, "state_dict", state_dict)
    with make_checkpointer() as saver:
        train(trainer, saver)
    assert trainer.stop_reason == "completed"
    assert [one.code for one in reports] == ["out_of_memory"]


def let_through_on_leaving(saver, folder):
    with saver._changed:
        assert saver._changed.wait_for(lambda: saver._leaving, 30)
    folder.let_through.release()


@pytest.mark.parametrize("error", [None, KeyError("an error")])
@pytest.mark.usefixtures("eager")
def test_a_write_under_way_is_finished_however_training_ended(
    error, make_trainer, make_checkpointer, tmp_path, reports
):
    folder = SlowFolder(tmp_path / "job_1")
    trainer = make_trainer()
    saver = make_checkpointer(folder=folder).__enter__()
    with closing(trainer.run()) as events:
        for event in events:
            saver.look(event, trainer)
            if ends_epoch(1)(event):
                assert folder.arrived.acquire(timeout=30)
    threading.Thread(target=let_through_on_leaving, args=(saver, folder)).start()
    saver.__exit__(type(error), error, None)
    assert [one.epoch for one in reports] == [1]
