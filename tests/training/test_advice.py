import pytest

from epochd.training.advice import advise
from epochd.training.plan import make_plan


def advice(
    *,
    train=1438,
    batch_size=64,
    epochs=50,
    drop_last=False,
    early_stopping=False,
    validation=True,
    batch_norm=False,
):
    plan = make_plan(
        train_samples=train, validation_samples=0, batch_size=batch_size, epochs=epochs, drop_last=drop_last
    )
    given = advise(
        plan=plan, epochs=epochs, early_stopping=early_stopping, validation=validation, batch_norm=batch_norm
    )
    return {one.code: one for one in given}


def test_nothing_to_say_about_the_contract_example():
    assert advice() == {}


@pytest.mark.parametrize(("batch_size", "powers"), [(50, "32 or 64"), (65, "64 or 128"), (3, "2 or 4")])
def test_names_the_powers_of_two_around(batch_size, powers):
    said = advice(batch_size=batch_size)["batch_size_not_power_of_two"]
    assert powers in said.message
    assert said.param == "batch_size"


@pytest.mark.parametrize("batch_size", [1, 2, 64, 1024])
def test_powers_of_two_are_fine(batch_size):
    assert "batch_size_not_power_of_two" not in advice(batch_size=batch_size)


def test_few_iterations_an_epoch_names_a_batch_size_that_gives_more():
    said = advice(train=1000, batch_size=128)["few_iterations_per_epoch"].message
    assert "8 iterations an epoch" in said
    assert "A batch size of 32 gives 32" in said


def test_few_samples_are_not_told_to_take_tiny_mini_batches():
    assert "expect to need more epochs" in advice(train=30, batch_size=16)["few_iterations_per_epoch"].message


def test_the_batch_size_that_few_iterations_suggests_would_satisfy_it():
    assert "few_iterations_per_epoch" not in advice(train=1000, batch_size=32)


def test_batch_size_above_the_samples_is_said_instead_of_few_iterations():
    said = advice(train=100, batch_size=128)
    assert "exceeds the 100 training samples" in said["batch_size_exceeds_samples"].message
    assert "few_iterations_per_epoch" not in said


def test_as_many_samples_as_the_batch_size_do_not_exceed_it():
    assert "batch_size_exceeds_samples" not in advice(train=128, batch_size=128)


def test_epochs_are_judged_by_their_iterations():
    few = advice(epochs=2)["epochs_look_few"].message
    assert "2 epochs of 23 iterations are 46 weight updates" in few
    assert "at least 9 epochs" in few
    assert "epochs_look_few" not in advice(epochs=9)
    assert "epochs_look_few" not in advice(train=100_000, batch_size=64, epochs=1)


def test_many_epochs_without_early_stopping():
    said = advice(epochs=1000)["epochs_look_many"]
    assert "23000 weight updates" in said.message
    assert said.param == "epochs"
    assert "epochs_look_many" not in advice(epochs=1000, early_stopping=True)


def test_many_iterations_in_few_epochs_without_early_stopping():
    assert "epochs_look_many" in advice(train=1_000_000, batch_size=16, epochs=2)


def test_one_long_epoch_is_not_too_many():
    assert advice(train=8_000_000, batch_size=64, epochs=1) == {}


def test_without_validation_early_stopping_needs_a_split():
    assert "validation split" in advice(epochs=1000, validation=False)["epochs_look_many"].message


def test_a_small_last_mini_batch_matters_to_batch_normalisation_only():
    assert "3 samples" in advice(train=1411, batch_norm=True)["small_last_batch"].message
    assert "small_last_batch" not in advice(train=1411)
    assert "small_last_batch" not in advice(train=1411, batch_norm=True, drop_last=True)
    assert "small_last_batch" not in advice(train=1438, batch_norm=True)
