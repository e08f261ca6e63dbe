import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.training.plan import make_plan, split_sizes

COUNTS = st.integers(1, 100_000)


def plan(train, batch_size, epochs=1, *, drop_last=False, validation=0):
    return make_plan(
        train_samples=train,
        validation_samples=validation,
        batch_size=batch_size,
        epochs=epochs,
        drop_last=drop_last,
    )


def test_1000_samples_in_mini_batches_of_100_are_10_iterations_and_1_epoch():
    made = plan(1000, 100)
    assert (made.mini_batches_per_epoch, made.iterations_per_epoch, made.total_iterations) == (10, 10, 10)
    assert made.last_batch_size == 100


def test_digits_as_in_the_contract():
    train, validation = split_sizes(1797, 0.2)
    assert plan(train, 64, 50, validation=validation).as_dict() == {
        "train_samples": 1438,
        "validation_samples": 359,
        "batch_size": 64,
        "mini_batches_per_epoch": 23,
        "last_batch_size": 30,
        "iterations_per_epoch": 23,
        "total_iterations": 1150,
    }


def test_drop_last_leaves_only_full_mini_batches():
    made = plan(1438, 64, 50, drop_last=True)
    assert (made.iterations_per_epoch, made.last_batch_size, made.total_iterations) == (22, 64, 1100)


def test_a_batch_size_above_the_samples_is_one_mini_batch_of_all():
    made = plan(100, 128, 3)
    assert (made.iterations_per_epoch, made.last_batch_size, made.total_iterations) == (1, 100, 3)


def test_drop_last_that_leaves_nothing_says_what_would_be_right():
    with pytest.raises(ValueError, match="at most 100, or drop_last false"):
        plan(100, 128, drop_last=True)


@pytest.mark.parametrize(("train", "batch_size", "epochs"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_counts_that_are_not_positive_are_refused(train, batch_size, epochs):
    with pytest.raises(ValueError, match="at least 1"):
        plan(train, batch_size, epochs)


@given(train=COUNTS, batch_size=COUNTS, epochs=st.integers(1, 1000))
def test_mini_batches_sum_to_the_samples(train, batch_size, epochs):
    made = plan(train, batch_size, epochs)
    assert (made.mini_batches_per_epoch - 1) * batch_size + made.last_batch_size == train
    assert 1 <= made.last_batch_size <= batch_size
    assert made.total_iterations == made.iterations_per_epoch * epochs


@given(train=COUNTS, batch_size=COUNTS)
def test_drop_last_leaves_out_less_than_one_mini_batch(train, batch_size):
    if batch_size > train:
        with pytest.raises(ValueError, match="drop_last"):
            plan(train, batch_size, drop_last=True)
        return
    made = plan(train, batch_size, drop_last=True)
    assert 0 <= train - made.mini_batches_per_epoch * made.last_batch_size < batch_size


@pytest.mark.parametrize(
    ("samples", "fraction", "sizes"),
    [
        (1797, 0.2, (1438, 359)),
        (10, 0.25, (7, 3)),  # 2.5 rounds up
        (2, 0.01, (1, 1)),
        (2, 0.99, (1, 1)),
        (150, 0.999, (1, 149)),
    ],
)
def test_split_sizes(samples, fraction, sizes):
    assert split_sizes(samples, fraction) == sizes


@given(samples=st.integers(2, 10**7), fraction=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_both_sides_of_a_split_have_samples_and_sum_to_all(samples, fraction):
    train, validation = split_sizes(samples, fraction)
    assert train >= 1
    assert validation >= 1
    assert train + validation == samples
    assert abs(validation - samples * fraction) <= 1


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="2 are needed"):
        split_sizes(1, 0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_a_fraction_outside_the_unit_interval_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_sizes(10, fraction)
