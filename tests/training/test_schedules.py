import math
import subprocess
import sys

import pytest
import torch
from torch.optim import lr_scheduler

from epochd.training.config import ScheduleConfig
from epochd.training.schedules import make_schedule

RATE, PER_EPOCH, EPOCHS = 0.1, 10, 12
TOTAL = PER_EPOCH * EPOCHS


def schedule_of(**fields):
    return make_schedule(
        ScheduleConfig(**fields), RATE, iterations_per_epoch=PER_EPOCH, total_iterations=TOTAL
    )


def rates(**fields) -> list[float]:
    schedule = schedule_of(**fields)
    return [schedule(iteration) for iteration in range(1, TOTAL + 1)]


def torch_rates(make, count=TOTAL) -> list[float]:
    """What torch's scheduler gives the update of each iteration, stepped after each."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = make(optimizer)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < count:
            scheduler.step()
    return found


def test_constant():
    assert rates(name="constant") == [RATE] * TOTAL


def test_cosine_is_that_of_torch():
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.01))
    assert rates(name="cosine", min_learning_rate=0.01) == pytest.approx(expected, rel=1e-9)


def test_step_is_that_of_torch():
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, step_size=3 * PER_EPOCH, gamma=0.5))
    assert rates(name="step", step_epochs=3, gamma=0.5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rise", [0.05, 0.3, 0.9])
def test_one_cycle_is_that_of_torch(rise):
    expected = torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=RATE, total_steps=TOTAL, pct_start=rise, div_factor=10, final_div_factor=100,
            cycle_momentum=False,
        )
    )  # fmt: skip
    found = rates(name="one_cycle", rise_fraction=rise, div_factor=10, final_div_factor=100)
    assert found == pytest.approx(expected, rel=1e-9)


def test_linear_warm_up_is_that_of_torch():
    """Then the cosine begins: torch's SequentialLR says the same."""

    def make(optimizer):
        warm = lr_scheduler.LinearLR(optimizer, start_factor=1 / 15, total_iters=14)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - 15)
        return lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[15])

    assert rates(name="cosine", warmup_iterations=15) == pytest.approx(torch_rates(make), rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "one_cycle", "reduce_on_plateau"])
def test_every_schedule_warms_up_to_its_first_value(name):
    plain, warm = schedule_of(name=name), schedule_of(name=name, warmup_iterations=8)
    for iteration in range(1, 9):
        assert warm(iteration) == pytest.approx(plain(1) * iteration / 8)


def test_step_changes_between_epochs_also_after_a_warm_up():
    found = rates(name="step", step_epochs=2, gamma=0.1, warmup_iterations=7)
    assert found[6:20] == [RATE] * 14
    assert found[20:40] == pytest.approx([RATE / 10] * 20)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "one_cycle", "reduce_on_plateau"])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_trainings_have_learning_rates(name, warmup, total):
    config = ScheduleConfig(name, warmup_iterations=warmup)
    schedule = make_schedule(config, RATE, iterations_per_epoch=1, total_iterations=total)
    for iteration in range(1, total + 1):
        assert 0 <= schedule(iteration) <= RATE


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_is_that_of_torch(mode):
    sign = 1 if mode == "min" else -1
    curve = [9, 8, 7, 7, 7, 6.95, 6.95, 5, 5, math.nan, 5, 5, 5, 5, 5, 5, 5, 5, 5, 4]
    schedule = schedule_of(
        name="reduce_on_plateau", mode=mode, factor=0.5, patience=2, min_delta=0.1, min_learning_rate=0.02
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    expected = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=2, threshold=0.1, threshold_mode="abs", min_lr=0.02, eps=0
    )
    seen = set()
    for epoch, value in enumerate(curve):
        schedule.epoch_completed(sign * value)
        expected.step(sign * value)
        rate = schedule(epoch * PER_EPOCH + 1)
        assert rate == optimizer.param_groups[0]["lr"]
        seen.add(rate)
    assert seen == {0.1, 0.05, 0.025, 0.02}


def test_plateau_continues_from_its_state():
    fields = {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5}
    schedule, resumed = schedule_of(**fields), schedule_of(**fields)
    for value in (3, 3, 3):
        schedule.epoch_completed(value)
    resumed.load_state_dict(schedule.state_dict())
    for value in (3, 3, 2, 2, 2):
        schedule.epoch_completed(value)
        resumed.epoch_completed(value)
        assert schedule(1) == resumed(1)
    assert schedule(1) == RATE / 8


def test_a_floor_above_the_learning_rate_does_not_lift_it():
    schedule = schedule_of(name="reduce_on_plateau", patience=0, min_learning_rate=1.0)
    schedule.epoch_completed(1.0)
    schedule.epoch_completed(1.0)
    assert schedule(1) == RATE


def test_schedules_do_not_import_torch():
    code = "import sys, epochd.training.schedules; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
