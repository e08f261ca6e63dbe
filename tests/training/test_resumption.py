"""Leave a training at any event, take it up in another trainer: bit for bit what it would have been."""

import io
import json
import math
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from epochd.errors import NumericError, OutOfMemoryError
from epochd.training import data as data_module
from epochd.training import device as devices
from epochd.training import iteration_log
from epochd.training.amendments import Amendment
from epochd.training.config import EarlyStoppingConfig, ScheduleConfig, TrainingConfig
from epochd.training.data import Samples
from epochd.training.events import (
    AmendmentApplied,
    EpochCompleted,
    Event,
    IterationsCompleted,
    Selection,
    Stopped,
)
from epochd.training.trainer import Trainer, TrainingData

COMPARED_COLUMNS = ("train_loss", "learning_rate", "gradient_norm")
CNN = {"name": "cnn", "input_shape": (3, 8, 8), "channels": (4, 8), "hidden_size": 8}
PLATEAU = ScheduleConfig("reduce_on_plateau", patience=0, min_delta=0.5, factor=0.5)
TINY_IMPROVEMENT = {"learning_rate": 0.05}

CASES: dict[str, dict[str, Any]] = {
    "dropout": {"model": {"dropout": 0.4}},
    "batch norm and dropout": {
        "model": {"dropout": 0.3, "batch_norm": True, "hidden_sizes": (16, 8)},
        "gradient_clip_norm": 0.5,
    },
    "sgd": {"optimizer": {"name": "sgd", "learning_rate": 0.05}},
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01}},
    "nesterov": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
    "adam": {"optimizer": {"name": "adam"}},
    "cosine with warm-up": {"schedule": ScheduleConfig("cosine", warmup_iterations=7)},
    "step": {"schedule": ScheduleConfig("step", step_epochs=2, gamma=0.3)},
    "one cycle": {"schedule": ScheduleConfig("one_cycle")},
    "plateau": {"schedule": PLATEAU, "epochs": 6},
    "drop last": {"drop_last": True, "model": {"dropout": 0.2}},
    "one mini-batch an epoch": {"batch_size": 1000},
    "early stopping": {
        "epochs": 500,
        "optimizer": TINY_IMPROVEMENT,
        "early_stopping": EarlyStoppingConfig(patience=2, min_delta=0.01),
    },
    "target": {
        "epochs": 500,
        "early_stopping": EarlyStoppingConfig("validation_accuracy", "max", patience=100, target=0.6),
    },
    "last weights": {"early_stopping": EarlyStoppingConfig(patience=50, restore_best=False)},
    "stopped by the train loss": {
        "epochs": 50,
        "validate_every_epochs": 10,
        "early_stopping": EarlyStoppingConfig("train_loss", "min", patience=2, min_delta=10),
    },
    "validation every third epoch": {"epochs": 8, "validate_every_epochs": 3, "schedule": PLATEAU},
    "bf16": {"precision": "bf16", "model": {"dropout": 0.2}},
    "regression": {"task": "regression", "epochs": 5, "schedule": PLATEAU},
    "huber": {"task": "regression", "loss": "huber", "drop_last": True},
    "cnn": {"model": {**CNN, "batch_norm": True, "dropout": 0.2}, "batch_size": 16, "epochs": 2},
}
CASES |= {
    "resnet": {
        "model": {"name": "resnet", "input_shape": (3, 8, 8), "width": 2, "dropout": 0.2},
        "batch_size": 16,
        "epochs": 2,
    },
    "tabular resnet": {"model": {"name": "tabular_resnet", "width": 8, "blocks": 2}},
    "ft transformer": {
        "model": {"name": "ft_transformer", "width": 8, "heads": 2, "blocks": 2},
        "early_stopping": EarlyStoppingConfig("validation_f1", "max", patience=50),
        "metrics": ("f1", "auroc"),
    },
    "weighted and smoothed": {"class_weights": "balanced", "label_smoothing": 0.1},
}
ON_CUDA = ("batch norm and dropout", "nesterov", "cosine with warm-up", "early stopping", "regression", "cnn")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two or three mini-batches a chunk: chunks end within an epoch, and epochs and blocks within chunks."""
    monkeypatch.setattr(data_module, "CHUNK_BYTES", 2**12)


@pytest.fixture
def blocks_of(monkeypatch):
    """Sets how many iterations a block has at most; with 1, each is an event."""

    def set_to(iterations: int) -> None:
        monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0.0 if iterations == 1 else math.inf)

    return set_to


@pytest.fixture
def data(request, classification, regression, images) -> TrainingData:
    config = CASES[request.getfixturevalue("case")]
    if config.get("task") == "regression":
        return regression
    return images if config.get("model", {}).get("name") in {"cnn", "resnet"} else classification


@dataclass
class Run:
    """A trainer, what it yielded, and its state before the first event and after each."""

    trainer: Trainer
    events: list[Event]
    states: list[bytes]


def packed(trainer: Trainer) -> bytes:
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    return file.getvalue()


def unpacked(state: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(state), weights_only=True)


def resumed(config: TrainingConfig, data: TrainingData, state: bytes) -> Trainer:
    trainer = Trainer(config, data)
    trainer.load_state_dict(unpacked(state))
    return trainer


def run(trainer: Trainer, *, keep_states: bool = False) -> Run:
    """Train to the end; the caller draws random numbers at every event, as callers may."""
    events, states = [], [packed(trainer)] if keep_states else []
    for event in trainer.run():
        torch.manual_seed(len(events))
        events.append(event)
        if keep_states:
            states.append(packed(trainer))
    return Run(trainer, events, states)


def told(events: list[Event]) -> list[Any]:
    """Everything that events say but durations: a row an iteration, and the other events between them."""
    said: list[Any] = []
    for event in events:
        if isinstance(event, IterationsCompleted):
            columns = zip(*(getattr(event, column) for column in COMPARED_COLUMNS), strict=True)
            for iteration, row in enumerate(columns, start=event.first_iteration):
                said.append((event.epoch, iteration, *(value.tobytes() for value in row)))
        elif isinstance(event, EpochCompleted):
            said.append(replace(event, seconds=0.0))
        else:
            said.append(event)
    return said


def weights_of(trainer: Trainer) -> list[bytes]:
    return [tensor.cpu().numpy().tobytes() for tensor in trainer.model.state_dict().values()]


def ending(trainer: Trainer) -> list[Any]:
    """What comes out of a training: position, weights, selections and their values."""
    parts: list[Any] = [trainer.position, trainer.epochs_completed, trainer.stop_reason]
    parts += [trainer.config, trainer.plan, weights_of(trainer), trainer.evaluate()]
    selection = trainer.final_selection()
    assert isinstance(selection, Selection)
    parts += [selection, weights_of(trainer), trainer.select("best"), weights_of(trainer)]
    return [*parts, trainer.select("last"), weights_of(trainer)]


# Interrupted at every event


def test_the_cases_are_what_they_are_called(make_config, classification):
    ends = {
        case: run(Trainer(make_config(**CASES[case]), classification)).events
        for case in ("early stopping", "target", "stopped by the train loss", "last weights", "plateau")
    }
    reasons = [events[-1].reason for events in ends.values()]
    assert reasons == ["early_stopped", "target_reached", "early_stopped", "completed", "completed"]
    epochs = {
        case: [one for one in events if isinstance(one, EpochCompleted)] for case, events in ends.items()
    }
    assert not epochs["early stopping"][-1].is_best
    assert len({epoch.learning_rate for epoch in epochs["plateau"]}) > 2


@pytest.mark.parametrize("case", CASES)
def test_resumed_from_every_event_it_is_the_same_training(case, data, make_config, blocks_of):
    config = make_config(**CASES[case])
    twin = run(Trainer(config, data))
    expected, end = told(twin.events), ending(twin.trainer)
    blocks_of(1)
    left = run(Trainer(config, data), keep_states=True)
    assert told(left.events) == expected
    blocks_of(1024)
    for count, state in enumerate(left.states[:-1]):
        trainer = resumed(config, data, state)
        after = run(trainer)
        assert told([*left.events[:count], *after.events]) == expected
        assert ending(trainer) == end


@pytest.mark.parametrize("case", CASES)
def test_interrupted_after_each_event_it_is_the_same_training(case, data, make_config, blocks_of):
    config = make_config(**CASES[case])
    twin = run(Trainer(config, data))
    blocks_of(1)
    trainer, events = Trainer(config, data), []
    while not events or not isinstance(events[-1], Stopped):
        trainer = resumed(config, data, packed(trainer))
        with closing(trainer.run()) as running:
            events.append(next(running))
    assert told(events) == told(twin.events)
    assert ending(trainer) == ending(twin.trainer)


def test_without_validation_data(make_config, classification, blocks_of):
    data, config = replace(classification, validation=None), make_config(model={"dropout": 0.2})
    twin = run(Trainer(config, data))
    blocks_of(1)
    left = run(Trainer(config, data), keep_states=True)
    for count, state in enumerate(left.states[:-1]):
        after = run(resumed(config, data, state))
        assert told([*left.events[:count], *after.events]) == told(twin.events)


def test_where_blocks_end_decides_over_no_number(make_config, regression, blocks_of):
    """They end by the clock: on a busy machine elsewhere than on an idle one.

    The losses are so far apart that float64 does not hold the sum of all.
    """
    scale = np.logspace(-6, 6, len(regression.train), dtype=np.float32)
    data = replace(regression, train=Samples(regression.train.x, regression.train.y * scale[:, None]))
    frozen = {"name": "sgd", "learning_rate": 1e-30}
    config = make_config(task="regression", epochs=8, batch_size=1, optimizer=frozen)
    coarse = run(Trainer(config, data))
    blocks_of(1)
    fine = run(Trainer(config, data))
    assert len(fine.events) > len(coarse.events)
    assert told(fine.events) == told(coarse.events)


def test_whole_chunks_are_skipped_and_the_one_in_progress_is_not(make_config, classification, blocks_of):
    """What was gathered after a resumption in the fourth mini-batch: the second chunk, of the third and fourth."""
    config = make_config(epochs=1)
    blocks_of(1)
    trainer = Trainer(config, classification)
    assert trainer._learner.mini_batches.chunk_size == 2 * config.batch_size
    with closing(trainer.run()) as events:
        for event in events:
            if event.last_iteration == 3:
                break
    state = unpacked(packed(trainer))
    assert state["sums"]["mini_batches"] == 2
    assert len(state["sums"]["outputs"]) == config.batch_size


# What a state is


def leaves(state):
    match state:
        case dict():
            return [leaf for key, value in state.items() for leaf in [key, *leaves(value)]]
        case list():
            return [leaf for value in state for leaf in leaves(value)]
        case _:
            return [state]


def test_a_state_is_plain_and_on_the_cpu(make_config, classification, blocks_of):
    blocks_of(1)
    stopping = EarlyStoppingConfig(patience=50)
    trainer = Trainer(make_config(model={"dropout": 0.2}, early_stopping=stopping), classification)
    trainer.amend(Amendment(1, "early_stopping", replace(stopping, patience=60)))
    trainer.amend(Amendment(2, "epochs", 5, iteration=10))
    for _ in trainer.run():
        state = trainer.state_dict()
        kinds = {type(leaf) for leaf in leaves(state)}
        assert kinds <= {torch.Tensor, str, int, float, bool, type(None)}
        assert all(leaf.device.type == "cpu" for leaf in leaves(state) if isinstance(leaf, torch.Tensor))


def test_training_on_does_not_change_a_state(make_config, classification, blocks_of):
    """A thread writes it meanwhile."""
    blocks_of(1)
    config = make_config(model={"batch_norm": True, "dropout": 0.2}, optimizer={"learning_rate": 0.05})
    trainer, taken = Trainer(config, classification), []
    for _ in trainer.run():
        state = trainer.state_dict()
        taken.append((state, copied(state)))
    trainer.select("best")
    for state, expected in taken:
        assert copied(state) == expected


def copied(state) -> list[Any]:
    return [leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves(state)]


def test_a_state_can_be_had_after_closing_and_after_selecting(make_config, classification, blocks_of):
    blocks_of(1)
    config = make_config(epochs=6, optimizer={"learning_rate": 0.1})
    trainer, twin = Trainer(config, classification), run(Trainer(config, classification))
    before = []
    with closing(trainer.run()) as events:
        for event in events:
            before.append(event)
            if isinstance(event, IterationsCompleted) and event.epoch == 5:
                break
    for select in (lambda: None, lambda: trainer.select("best"), lambda: trainer.select("last")):
        select()
        after = run(resumed(config, classification, packed(trainer)))
        assert told([*before, *after.events]) == told(twin.events)


def test_what_was_selected_before_resuming_does_not_matter(make_config, classification):
    left = run(Trainer(make_config(), classification), keep_states=True)
    trainer = Trainer(make_config(), classification)
    trainer.select("best")
    trainer.load_state_dict(unpacked(left.states[2]))
    assert told([*left.events[:2], *run(trainer).events]) == told(left.events)


def test_a_resumed_trainer_knows_where_it_is(make_config, classification, blocks_of):
    blocks_of(1)
    config = make_config(epochs=4, early_stopping=EarlyStoppingConfig(patience=2))
    trainer = Trainer(config, classification)
    for event in trainer.run():
        again = resumed(config, classification, packed(trainer))
        assert again.position == trainer.position
        assert again.epochs_completed == trainer.epochs_completed
        assert again.last_epoch == trainer.last_epoch
        assert again.stop_reason == trainer.stop_reason
        assert 0 < again.elapsed_seconds <= trainer.elapsed_seconds
        if isinstance(event, EpochCompleted):
            assert again.last_epoch == event


def test_an_epoch_is_complete_only_once_it_is_validated(make_config, classification):
    trainer = Trainer(make_config(), classification)
    seen = [
        (type(event), trainer.position.iteration, trainer.epochs_completed)
        for event in trainer.run()
        if trainer.position.iteration == 5
    ]
    assert seen == [(IterationsCompleted, 5, 0), (EpochCompleted, 5, 1)]


def test_a_training_that_had_ended_only_says_so(make_config, classification):
    left = run(Trainer(make_config(), classification), keep_states=True)
    assert isinstance(left.events[-2], EpochCompleted)
    for state in left.states[-2:]:
        after = run(resumed(make_config(), classification, state))
        assert after.events == [Stopped("completed", 3, 15)]
        assert ending(after.trainer) == ending(left.trainer)


def test_an_epoch_event_survives_json(make_config, classification):
    config = make_config(
        epochs=12, optimizer=TINY_IMPROVEMENT, early_stopping=EarlyStoppingConfig(patience=9)
    )
    epochs = [
        event for event in run(Trainer(config, classification)).events if isinstance(event, EpochCompleted)
    ]
    assert any(epoch.diagnosis.confidence for epoch in epochs)
    for epoch in epochs:
        assert EpochCompleted.from_dict(json.loads(json.dumps(epoch.as_dict()))) == epoch


# Time counts over all attempts


def state_in_the_second_epoch(config, data) -> bytes:
    trainer = Trainer(config, data)
    with closing(trainer.run()) as events:
        for event in events:
            if isinstance(event, IterationsCompleted) and event.epoch == 2:
                return packed(trainer)
    raise AssertionError("the training ended before")


def test_the_time_limit_counts_what_was_trained_before(make_config, classification, blocks_of):
    blocks_of(1)
    config = make_config(epochs=10**6, max_runtime_seconds=500.0)
    state = unpacked(state_in_the_second_epoch(config, classification))
    trainer = Trainer(config, classification)
    trainer.load_state_dict({**state, "elapsed_seconds": 501.0})
    *_, last = trainer.run()
    assert last == Stopped("time_limit", 1, 7)
    assert trainer.elapsed_seconds > 501


def test_the_seconds_of_an_epoch_count_what_was_trained_before(make_config, classification, blocks_of):
    blocks_of(1)
    state = unpacked(state_in_the_second_epoch(make_config(), classification))
    trainer = Trainer(make_config(), classification)
    trainer.load_state_dict({**state, "elapsed_seconds": state["elapsed_seconds"] + 1000})
    second, third = (event.seconds for event in trainer.run() if isinstance(event, EpochCompleted))
    assert second > 1000 > third


def test_a_longer_time_limit_is_no_other_training(make_config, classification):
    state = state_in_the_second_epoch(make_config(max_runtime_seconds=500.0), classification)
    assert resumed(make_config(), classification, state).position.epoch == 2


# What cannot be resumed


def test_a_loss_that_is_not_finite_is_no_state(make_config, classification, blocks_of):
    blocks_of(1)
    config = make_config(
        epochs=5,
        optimizer={"name": "sgd", "learning_rate": 0.05},
        schedule=ScheduleConfig("step", step_epochs=1, gamma=1e20),
    )
    trainer, whole = Trainer(config, classification), []
    with pytest.raises(NumericError):
        for event in trainer.run():
            finite = not isinstance(event, IterationsCompleted) or np.isfinite(event.train_loss).all()
            assert trainer.is_resumable == finite
            if finite:
                whole.append(packed(trainer))
    assert not trainer.is_resumable
    with pytest.raises(RuntimeError, match="nothing can resume"):
        trainer.state_dict()
    again = resumed(config, classification, whole[-1])
    assert again.is_resumable
    with pytest.raises(NumericError) as caught:
        list(again.run())
    assert caught.value.iteration == trainer.position.iteration


def test_leaving_at_a_loss_that_is_not_finite_is_no_state(make_config, classification):
    trainer = Trainer(make_config(optimizer={"name": "sgd", "learning_rate": 1e30}), classification)
    with closing(trainer.run()) as events:
        for event in events:
            if not np.isfinite(event.train_loss).all():
                break
    assert not trainer.is_resumable


def test_an_error_between_two_events_leaves_no_state(make_config, classification):
    """The weights are beyond the position then: iterations since the last event are in none."""
    trainer, calls = Trainer(make_config(), classification), []
    update = trainer._learner.update

    def runs_out_of_memory(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise MemoryError
        return update(*arguments)

    trainer._learner.update = runs_out_of_memory
    with pytest.raises(OutOfMemoryError):
        for _ in trainer.run():
            assert trainer.is_resumable
    assert trainer.position.iteration < 4
    assert not trainer.is_resumable
    with pytest.raises(RuntimeError):
        trainer.state_dict()


@pytest.mark.parametrize(("fields", "message"), [
    ({"model": {"hidden_sizes": (17,)}}, r"layers.* model.hidden_sizes is \[16\] there and \[17\] here"),
    ({"optimizer": {"name": "sgd"}}, "optimizer.name is 'adamw' there and 'sgd' here"),
    ({"optimizer": {"learning_rate": 0.5}}, "optimizer.learning_rate is 0.01 there and 0.5 here"),
    ({"schedule": PLATEAU}, "schedule.name is 'constant' there"),
    ({"batch_size": 16}, "batch_size is 32 there and 16 here"),
    ({"epochs": 4}, "epochs is 3 there and 4 here"),
    ({"seed": 7}, "seed is 0 there and 7 here"),
    ({"early_stopping": EarlyStoppingConfig()}, "early_stopping is None there"),
    ({"precision": "bf16"}, "precision is 'fp32' there"),
])  # fmt: skip
def test_a_state_of_another_training_is_refused(fields, message, make_config, classification):
    state = packed(Trainer(make_config(), classification))
    with pytest.raises(ValueError, match=message):
        resumed(make_config(**fields), classification, state)


def test_a_state_for_other_data_is_refused(make_config, classification):
    state = packed(Trainer(make_config(), classification))
    with pytest.raises(ValueError, match="validation_samples is 40 there and 0 here"):
        resumed(make_config(), replace(classification, validation=None), state)


def test_a_description_from_before_there_were_more_models_still_fits(make_config, classification):
    """As an engine wrote it that knew linear, mlp and cnn alone, every parameter of which it listed."""
    state = unpacked(packed(Trainer(make_config(), classification)))
    assert state["description"]["model"] == {
        "name": "mlp",
        "input_shape": [12],
        "outputs": 3,
        "hidden_sizes": [16],
        "channels": [16, 32],
        "hidden_size": 64,
        "dropout": 0.0,
        "batch_norm": False,
    }
    assert not {"class_weights", "label_smoothing", "metrics", "augmentation"} & set(state["description"])


def test_the_words_of_a_text_are_resumed_exactly(make_config, blocks_of):
    random = np.random.default_rng(0)
    text = Samples(random.integers(0, 20, (60, 6)).astype(np.int32), random.integers(0, 3, 60))
    data = TrainingData(text, text)
    model = {"name": "text_classifier", "input_shape": (6,), "vocabulary": 20, "width": 8, "heads": 2}
    blocks_of(1)
    config = make_config(model=model, epochs=2, batch_size=16)
    trainer = Trainer(config, data)
    states = [packed(trainer) for _ in trainer.run()]
    expected = ending(trainer)
    for state in states:
        again = resumed(config, data, state)
        list(again.run())
        assert ending(again) == expected


def test_a_state_of_another_version_is_refused(make_config, classification):
    state = unpacked(packed(Trainer(make_config(), classification)))
    for version in (0, 2, None):
        with pytest.raises(ValueError, match=f"version {version}; this engine resumes from version 1"):
            Trainer(make_config(), classification).load_state_dict({**state, "version": version})


def test_a_state_that_is_not_whole_is_refused(make_config, classification, blocks_of):
    blocks_of(1)
    config = make_config(model={"dropout": 0.2}, early_stopping=EarlyStoppingConfig())
    state = unpacked(state_in_the_second_epoch(config, classification))
    Trainer(config, classification).load_state_dict(state)
    for name in state:
        without = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=r"not whole|version"):
            Trainer(config, classification).load_state_dict(without)
    weights = {**state["learner"]["weights"], "values": torch.zeros(1)}
    with pytest.raises(ValueError, match="other layers"):
        Trainer(config, classification).load_state_dict(
            {**state, "learner": {**state["learner"], "weights": weights}}
        )


def test_a_trainer_resumes_only_before_it_trains(make_config, classification):
    trainer = Trainer(make_config(), classification)
    state = trainer.state_dict()
    next(trainer.run())
    with pytest.raises(RuntimeError, match="before it trains"):
        trainer.load_state_dict(state)


# Amended before and after the interruption

STOPPING = EarlyStoppingConfig(patience=50)
ASKED = {
    3: Amendment(1, "learning_rate", 0.03),
    7: Amendment(2, "epochs", 5),
    10: Amendment(3, "learning_rate", 0.002),  # at the end of an epoch
    12: Amendment(4, "early_stopping", STOPPING),
    13: Amendment(5, "learning_rate", 0.02),
    17: Amendment(6, "early_stopping", replace(STOPPING, patience=2, min_delta=0.1)),
    18: Amendment(7, "epochs", 8),
    26: Amendment(8, "early_stopping", EarlyStoppingConfig("validation_accuracy", "max", patience=3)),
}
AMENDED_SCHEDULES = {
    "constant": ScheduleConfig("constant", warmup_iterations=8),
    "cosine": ScheduleConfig("cosine"),
    "step": ScheduleConfig("step", step_epochs=2),
    "one_cycle": ScheduleConfig("one_cycle"),
    "plateau": PLATEAU,
}


def amended_run(trainer: Trainer, *, keep_states: bool = False) -> Run:
    """Train to the end, asking for each amendment as soon as its iteration is over."""
    asked = {number for number in ASKED if number <= trainer.position.iteration}
    for number in asked:
        trainer.amend(ASKED[number])
    events, states = [], [packed(trainer)] if keep_states else []
    for event in trainer.run():
        events.append(event)
        if keep_states:
            states.append(packed(trainer))
        iteration = trainer.position.iteration
        if iteration in ASKED and iteration not in asked:
            asked.add(iteration)
            trainer.amend(ASKED[iteration])
    return Run(trainer, events, states)


def once(events: list[Event]) -> list[Event]:
    """Without what is announced again after a resumption."""
    kept: list[Event] = []
    for event in events:
        if not isinstance(event, AmendmentApplied) or event not in kept:
            kept.append(event)
    return kept


@pytest.fixture(params=AMENDED_SCHEDULES)
def amended_config(request, make_config) -> TrainingConfig:
    schedule = AMENDED_SCHEDULES[request.param]
    return make_config(epochs=3, model={"dropout": 0.2}, schedule=schedule, validate_every_epochs=2)


def applied(run: Run) -> list[AmendmentApplied]:
    return [event for event in run.events if isinstance(event, AmendmentApplied)]


def known(run: Run) -> list[Amendment]:
    """The amendments as a later attempt is told them: with the iterations at which they took effect."""
    where = {event.number: event.iteration for event in applied(run)}
    return [replace(one, iteration=where.get(one.number)) for one in ASKED.values()]


def test_amendments_take_effect_where_they_say(amended_config, classification, blocks_of):
    blocks_of(1)
    live = amended_run(Trainer(amended_config, classification), keep_states=True)
    assert [(event.number, event.epoch, event.iteration) for event in applied(live)] == [
        (1, 1, 3), (2, 2, 10), (3, 2, 10), (5, 3, 13), (4, 3, 15), (6, 4, 20), (7, 4, 20), (8, 6, 30),
    ][: len(applied(live))]  # fmt: skip
    assert len(applied(live)) >= 5


def test_amended_and_resumed_from_every_event(amended_config, classification, blocks_of):
    blocks_of(1)
    live = amended_run(Trainer(amended_config, classification), keep_states=True)
    expected, end = told(live.events), ending(live.trainer)
    for count, state in enumerate(live.states[:-1]):
        after = amended_run(resumed(amended_config, classification, state))
        assert told(once([*live.events[:count], *after.events])) == expected
        assert ending(after.trainer) == end


def test_amendments_are_replayed_at_their_iterations(amended_config, classification, blocks_of):
    """From every event, in one block an epoch, by a caller that knows where each took effect."""
    blocks_of(1)
    live = amended_run(Trainer(amended_config, classification), keep_states=True)
    expected, end = told(live.events), ending(live.trainer)
    blocks_of(1024)
    for count, state in enumerate(live.states[:-1]):
        trainer = resumed(amended_config, classification, state)
        for amendment in known(live):
            trainer.amend(amendment)
        after = run(trainer)
        assert told([*live.events[:count], *after.events]) == expected
        assert ending(trainer) == end


def test_amendments_may_be_asked_for_before_the_state_is_loaded(amended_config, classification, blocks_of):
    blocks_of(1)
    live = amended_run(Trainer(amended_config, classification), keep_states=True)
    trainer = Trainer(amended_config, classification)
    for amendment in known(live):
        trainer.amend(amendment)
    trainer.load_state_dict(unpacked(live.states[2]))
    assert told([*live.events[:2], *run(trainer).events]) == told(live.events)


# On a GPU


@pytest.fixture
def deterministic():
    devices.configure()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ON_CUDA)
def test_on_cuda_resumed_from_every_event(case, data, make_config, blocks_of, deterministic):
    config = make_config(**CASES[case], device="cuda")
    twin = run(Trainer(config, data))
    expected, end = told(twin.events), ending(twin.trainer)
    blocks_of(1)
    left = run(Trainer(config, data), keep_states=True)
    blocks_of(1024)
    for count, state in enumerate(left.states[:-1]):
        trainer = resumed(config, data, state)
        assert told([*left.events[:count], *run(trainer).events]) == expected
        assert ending(trainer) == end


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("devices_in_turn", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_training_may_go_on_on_another_device(devices_in_turn, make_config, classification, blocks_of):
    first, second = devices_in_turn
    blocks_of(1)
    config = make_config(model={"dropout": 0.2}, early_stopping=EarlyStoppingConfig(patience=50))
    state = state_in_the_second_epoch(replace(config, device=first), classification)
    after = run(resumed(replace(config, device=second), classification, state))
    assert after.events[-1] == Stopped("completed", 3, 15)
