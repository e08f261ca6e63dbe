"""What each amendment changes, where it takes effect, and in which order."""

import json
import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from epochd.training import iteration_log
from epochd.training.amendments import Amendment, Amendments, amended
from epochd.training.config import EarlyStoppingConfig, ScheduleConfig
from epochd.training.events import AmendmentApplied, EpochCompleted, IterationsCompleted, Stopped
from epochd.training.schedules import make_schedule
from epochd.training.trainer import Trainer

PER_EPOCH = 5  # iterations, of the configurations here
FROZEN = {"name": "sgd", "learning_rate": 1e-30}
SCHEDULES = {
    "constant": ScheduleConfig("constant", warmup_iterations=12),
    "cosine": ScheduleConfig("cosine", min_learning_rate=1e-4),
    "step": ScheduleConfig("step", step_epochs=2),
    "one_cycle": ScheduleConfig("one_cycle"),
}


@pytest.fixture(autouse=True)
def an_event_an_iteration(monkeypatch):
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0.0)


def run(trainer, asked=None):
    """Every event; ``asked`` maps an iteration to what is asked for at its block's event."""
    asked, events = dict(asked or {}), []
    for event in trainer.run():
        events.append(event)
        for amendment in asked.pop(trainer.position.iteration, ()):
            trainer.amend(amendment)
    return events


def of_kind(kind, events):
    return [event for event in events if isinstance(event, kind)]


def applied(events):
    return [(one.number, one.epoch, one.iteration) for one in of_kind(AmendmentApplied, events)]


def learning_rates(events):
    return np.concatenate([block.learning_rate for block in of_kind(IterationsCompleted, events)])


def schedule_of(config):
    return make_schedule(
        config.schedule,
        config.optimizer.learning_rate,
        iterations_per_epoch=PER_EPOCH,
        total_iterations=PER_EPOCH * config.epochs,
    )


# Before the first iteration an amended training is one that was configured so


@pytest.mark.parametrize("iteration", [None, 0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_amended_before_the_first_iteration(schedule, iteration, make_config, classification):
    stopping = EarlyStoppingConfig(patience=2, min_delta=0.05)
    config = make_config(schedule=SCHEDULES[schedule], model={"dropout": 0.1})
    trainer = Trainer(config, classification)
    trainer.amend(Amendment(1, "epochs", 6, iteration))
    trainer.amend(Amendment(2, "learning_rate", 0.03, iteration))
    trainer.amend(Amendment(3, "early_stopping", stopping, iteration))
    first, second, third, *events = run(trainer)
    assert applied([first, second, third]) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    optimizer = {"learning_rate": 0.03}
    wanted = make_config(
        schedule=SCHEDULES[schedule],
        model={"dropout": 0.1},
        epochs=6,
        optimizer=optimizer,
        early_stopping=stopping,
    )
    configured = Trainer(wanted, classification)
    expected = run(configured)
    assert trainer.config == wanted
    assert trainer.plan == configured.plan
    assert np.array_equal(learning_rates(events), learning_rates(expected))
    same = [[replace(one, seconds=0) for one in of_kind(EpochCompleted, some)] for some in (events, expected)]
    assert same[0] == same[1]
    assert events[-1] == expected[-1]
    assert trainer.final_selection() == configured.final_selection()


# The learning rate


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_continues_with_a_new_learning_rate(schedule, make_config, classification):
    config = make_config(schedule=SCHEDULES[schedule])
    trainer = Trainer(config, classification)
    events = run(trainer, {7: [Amendment(1, "learning_rate", 0.05)]})
    assert applied(events) == [(1, 2, 7)]
    before = schedule_of(config)
    after = schedule_of(replace(config, optimizer=replace(config.optimizer, learning_rate=0.05)))
    expected = [(before if iteration <= 7 else after)(iteration) for iteration in range(1, 16)]
    assert learning_rates(events) == pytest.approx(expected, rel=1e-6)
    assert trainer.config.optimizer.learning_rate == 0.05


def test_reduce_on_plateau_continues_from_the_new_learning_rate(make_config, classification):
    """Weights that stand still never improve: it is reduced after every epoch but the first."""
    schedule = ScheduleConfig("reduce_on_plateau", patience=0, factor=0.5)
    config = make_config(epochs=4, optimizer=FROZEN, schedule=schedule)
    events = run(Trainer(config, classification), {12: [Amendment(1, "learning_rate", 8e-30)]})
    ends = [event.learning_rate for event in of_kind(EpochCompleted, events)]
    assert ends == pytest.approx([1e-30, 1e-30, 8e-30, 4e-30], abs=0)


def test_at_the_end_of_an_epoch_it_waits_for_the_next_iteration(make_config, classification):
    """So that it is one moment, whether it was asked for before or after the epoch was completed."""
    schedule = ScheduleConfig("reduce_on_plateau", patience=0, factor=0.5)
    config = make_config(epochs=4, optimizer=FROZEN, schedule=schedule)
    kinds = set()
    for place in (IterationsCompleted, EpochCompleted):
        trainer, events = Trainer(config, classification), []
        for event in trainer.run():
            events.append(event)
            if isinstance(event, place) and trainer.position.iteration == 10:
                trainer.amend(Amendment(1, "learning_rate", 8e-30))
        assert applied(events) == [(1, 2, 10)]
        where = [type(event) for event in events].index(AmendmentApplied)
        kinds.add(type(events[where - 1]))
        ends = [event.learning_rate for event in of_kind(EpochCompleted, events)]
        assert ends == pytest.approx([1e-30, 1e-30, 8e-30, 4e-30], abs=0)
    assert kinds == {EpochCompleted}


def test_it_is_told_before_anything_is_trained_under_it(make_config, classification):
    events = run(Trainer(make_config(), classification), {7: [Amendment(1, "learning_rate", 0.05)]})
    where = [type(event) for event in events].index(AmendmentApplied)
    assert events[where - 1].last_iteration == 7
    assert events[where + 1].first_iteration == 8


def test_a_block_ends_where_a_replayed_amendment_takes_effect(make_config, classification, monkeypatch):
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", math.inf)
    trainer = Trainer(make_config(), classification)
    trainer.amend(Amendment(1, "learning_rate", 0.05, iteration=8))
    events = run(trainer)
    where = [type(event) for event in events].index(AmendmentApplied)
    assert (events[where - 1].first_iteration, events[where - 1].last_iteration) == (6, 8)
    assert (events[where + 1].first_iteration, events[where + 1].last_iteration) == (9, 10)
    assert learning_rates(events) == pytest.approx([0.01] * 8 + [0.05] * 7)


# How many epochs


@pytest.mark.parametrize("iteration", [11, 15])
def test_training_goes_on_when_it_is_extended_in_its_last_epoch(iteration, make_config, classification):
    config = make_config(epochs=3, schedule=SCHEDULES["cosine"])
    trainer = Trainer(config, classification)
    events = run(trainer, {iteration: [Amendment(1, "epochs", 6)]})
    assert applied(events) == [(1, 3, 15)]
    assert events[-1] == Stopped("completed", 6, 30)
    assert (trainer.plan.total_iterations, trainer.config.epochs) == (30, 6)
    before, after = schedule_of(config), schedule_of(replace(config, epochs=6))
    expected = [(before if number <= 15 else after)(number) for number in range(1, 31)]
    assert learning_rates(events) == pytest.approx(expected, rel=1e-6)
    third = of_kind(EpochCompleted, events)[2]
    assert "more are needed" not in third.diagnosis.evidence


def test_an_extended_training_does_not_validate_as_if_it_ended(make_config, classification):
    config = make_config(epochs=3, validate_every_epochs=2)
    events = run(Trainer(config, classification), {11: [Amendment(1, "epochs", 5)]})
    validated = [event.metrics["validation_loss"] is not None for event in of_kind(EpochCompleted, events)]
    assert validated == [False, True, False, True, True]


@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_epochs_than_are_trained_end_with_the_epoch(epochs, make_config, classification):
    config = make_config(epochs=10, validate_every_epochs=3)
    events = run(Trainer(config, classification), {8: [Amendment(1, "epochs", epochs)]})
    assert applied(events) == [(1, 2, 10)]
    assert events[-1] == Stopped("completed", 2, 10)
    assert of_kind(EpochCompleted, events)[-1].metrics["validation_loss"] is not None  # as the last always is


# Early stopping


def frozen_run(make_config, data, asked, **fields):
    """Weights stand still, so that no epoch is better than the first."""
    fields = {"epochs": 9, "optimizer": FROZEN, **fields}
    trainer = Trainer(make_config(**fields), data)
    return trainer, run(trainer, asked)


def waited(events):
    states = [event.early_stopping for event in of_kind(EpochCompleted, events)]
    return [None if state is None else state.epochs_without_improvement for state in states]


def test_early_stopping_begins_with_the_epoch_that_ends(make_config, classification):
    asked = {17: [Amendment(1, "early_stopping", EarlyStoppingConfig(patience=2))]}
    trainer, events = frozen_run(make_config, classification, asked)
    assert applied(events) == [(1, 4, 20)]
    assert waited(events) == [None, None, None, 0, 1, 2]
    assert events[-1] == Stopped("early_stopped", 6, 30)
    # Patience is counted anew; what was the best by the same metric stays the best.
    assert [event.epoch for event in of_kind(EpochCompleted, events) if event.is_best] == [1]
    assert trainer.final_selection().epoch == 1


def test_the_same_metric_keeps_its_history(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    asked = {17: [Amendment(1, "early_stopping", replace(before, patience=5))]}
    trainer, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert waited(events) == [0, 1, 2, 3, 4, 5]
    patience = [event.early_stopping.patience for event in of_kind(EpochCompleted, events)]
    assert patience == [50, 50, 50, 5, 5, 5]
    assert events[-1].reason == "early_stopped"
    assert trainer.final_selection().epoch == 1


def test_patience_that_is_over_already_ends_training_at_once(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    asked = {22: [Amendment(1, "early_stopping", replace(before, patience=2))]}
    _, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert events[-1] == Stopped("early_stopped", 5, 25)


def test_another_metric_begins_anew(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    after = EarlyStoppingConfig("validation_accuracy", "max", patience=3)
    asked = {17: [Amendment(1, "early_stopping", after)]}
    trainer, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert waited(events) == [0, 1, 2, 0, 1, 2, 3]
    assert of_kind(EpochCompleted, events)[3].early_stopping.monitor == "validation_accuracy"
    selection = trainer.final_selection()
    assert (selection.epoch, selection.metric) == (4, "validation_accuracy")


def test_without_early_stopping_the_best_goes_on_being_chosen(make_config, classification):
    before = EarlyStoppingConfig("validation_accuracy", "max", patience=4)
    asked = {12: [Amendment(1, "early_stopping", None)]}
    trainer, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert waited(events) == [0, 1, *[None] * 7]
    assert events[-1] == Stopped("completed", 9, 45)
    selection = trainer.final_selection()
    assert (selection.epoch, selection.metric) == (1, "validation_accuracy")


def test_a_later_start_epoch_forgets_what_came_before_it(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    after = EarlyStoppingConfig(patience=2, start_epoch=6)
    asked = {12: [Amendment(1, "early_stopping", after)]}
    trainer, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert waited(events) == [0, 1, 0, 0, 0, 0, 1, 2]
    assert [event.epoch for event in of_kind(EpochCompleted, events) if event.is_best] == [1, 6]
    assert trainer.final_selection().epoch == 6


def test_until_there_is_a_best_again_the_last_weights_are_it(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    trainer = Trainer(make_config(optimizer=FROZEN, early_stopping=before), classification)
    trainer.amend(Amendment(1, "early_stopping", replace(before, start_epoch=3), iteration=10))
    with closing(trainer.run()) as events:
        for event in events:
            if isinstance(event, EpochCompleted) and event.epoch == 2:
                break
    again = Trainer(make_config(optimizer=FROZEN, early_stopping=before), classification)
    again.load_state_dict(trainer.state_dict())
    for one in (trainer, again):
        selection = one.select("best")
        assert (selection.epoch, selection.iteration, selection.metric) == (2, 10, None)


def test_a_target_that_comes_later_ends_training(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    asked = {12: [Amendment(1, "early_stopping", replace(before, target=1e9))]}
    _, events = frozen_run(make_config, classification, asked, early_stopping=before)
    assert events[-1] == Stopped("target_reached", 3, 15)


def test_restore_best_off_keeps_the_last_weights(make_config, classification):
    before = EarlyStoppingConfig(patience=50)
    asked = {12: [Amendment(1, "early_stopping", replace(before, restore_best=False))]}
    trainer, _ = frozen_run(make_config, classification, asked, early_stopping=before)
    assert trainer.final_selection().epoch == 9


# Order


def test_amendments_of_one_field_keep_their_order(make_config, classification):
    """The newest value stays, also when where the older one took effect is known and lies ahead."""
    trainer = Trainer(make_config(), classification)
    trainer.amend(Amendment(2, "learning_rate", 0.07))
    trainer.amend(Amendment(1, "learning_rate", 0.05, iteration=8))
    events = run(trainer)
    assert applied(events) == [(1, 2, 8), (2, 2, 8)]
    assert learning_rates(events) == pytest.approx([0.01] * 8 + [0.07] * 7)


def test_amendments_of_several_fields_do_not_wait_for_each_other(make_config, classification):
    asked = {
        7: [Amendment(1, "epochs", 4), Amendment(2, "learning_rate", 0.05)],
        8: [Amendment(3, "learning_rate", 0.06), Amendment(4, "learning_rate", 0.07)],
    }
    events = run(Trainer(make_config(), classification), asked)
    assert applied(events) == [(2, 2, 7), (3, 2, 8), (4, 2, 8), (1, 2, 10)]
    assert learning_rates(events)[6:9] == pytest.approx([0.01, 0.05, 0.07])


def test_one_that_comes_too_late_has_no_effect(make_config, classification):
    trainer = Trainer(make_config(), classification)
    events = run(trainer, {15: [Amendment(1, "learning_rate", 0.05)]})
    assert applied(events) == []
    assert trainer.config.optimizer.learning_rate == 0.01


# Asked for again after a resumption


@pytest.fixture
def amended_state(make_config, classification):
    """The state of a training after a learning rate took effect at iteration 7."""
    trainer = Trainer(make_config(), classification)
    with closing(trainer.run()) as events:
        for event in events:
            if isinstance(event, AmendmentApplied):
                return trainer.state_dict()
            if trainer.position.iteration == 7:
                trainer.amend(Amendment(1, "learning_rate", 0.05))
    raise AssertionError("it took no effect")


@pytest.mark.parametrize(("iteration", "announced"), [(None, [(1, 2, 7)]), (7, [])])
def test_one_in_force_is_announced_to_who_does_not_know(
    iteration, announced, amended_state, make_config, classification
):
    trainer = Trainer(make_config(), classification)
    trainer.load_state_dict(amended_state)
    assert trainer.config.optimizer.learning_rate == 0.05
    trainer.amend(Amendment(1, "learning_rate", 0.05, iteration))
    events = run(trainer)
    assert applied(events) == announced
    assert applied(events[:1]) == announced  # before anything else
    assert learning_rates(events) == pytest.approx([0.05] * 8)


def test_one_that_waits_is_part_of_the_state(make_config, classification):
    trainer = Trainer(make_config(), classification)
    trainer.amend(Amendment(1, "learning_rate", 0.05, iteration=9))
    with closing(trainer.run()) as events:
        next(events)
        trainer.amend(Amendment(2, "epochs", 2))
    again = Trainer(make_config(), classification)
    again.load_state_dict(trainer.state_dict())
    events = run(again)
    assert applied(events) == [(2, 1, 5), (1, 2, 9)]
    assert events[-1] == Stopped("completed", 2, 10)


def test_one_in_force_is_announced_even_after_the_last_epoch(make_config, classification):
    trainer = Trainer(make_config(), classification)
    trainer.amend(Amendment(1, "early_stopping", None, iteration=15))
    run(trainer)
    again = Trainer(make_config(), classification)
    again.load_state_dict(trainer.state_dict())
    again.amend(Amendment(1, "early_stopping", None))
    assert run(again) == [AmendmentApplied(1, 3, 15), Stopped("completed", 3, 15)]


# Values


@pytest.mark.parametrize(("field", "value"), [
    ("learning_rate", 0.0),
    ("learning_rate", -1.0),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", None),
    ("epochs", 0),
    ("epochs", 2.5),
    ("epochs", True),
    ("early_stopping", 3),
    ("batch_size", 64),
])  # fmt: skip
def test_a_value_that_a_field_cannot_have(field, value, make_config, classification):
    trainer = Trainer(make_config(), classification)
    with pytest.raises(ValueError, match=f"{field} cannot become"):
        trainer.amend(Amendment(1, field, value))
    assert applied(run(trainer)) == []


def test_a_metric_that_is_not_measured(make_config, classification):
    trainer = Trainer(make_config(), replace(classification, validation=None))
    with pytest.raises(ValueError, match=r"early_stopping.monitor is 'validation_loss'"):
        trainer.amend(Amendment(1, "early_stopping", EarlyStoppingConfig()))


def test_amending_replaces_the_one_field(make_config):
    config = make_config()
    assert amended(config, Amendment(1, "epochs", 9)) == replace(config, epochs=9)
    assert amended(config, Amendment(1, "learning_rate", 1)).optimizer.learning_rate == 1.0


def test_amendments_continue_from_json():
    first, second = Amendments(), Amendments()
    first.ask(Amendment(1, "learning_rate", 0.5))
    first.ask(Amendment(2, "early_stopping", EarlyStoppingConfig(patience=3), iteration=20))
    first.applied(first.pending[1], epoch=2, iteration=7)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    assert second.pending == {2: Amendment(2, "early_stopping", EarlyStoppingConfig(patience=3), 20)}
    assert second.due(20, ()) is None
    assert second.next_iteration(7, "early_stopping") == 20
    assert second.next_iteration(20, "early_stopping") is None
