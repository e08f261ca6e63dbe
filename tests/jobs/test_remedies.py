"""Every suggestion makes another spec of a valid one, and the right one."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epochd.contract.spec import MAX_EPOCHS, JobSpec
from epochd.jobs.remedies import AGAINST, remedies
from epochd.jobs.resolve import resolve

SAMPLES = 1437
MODELS = [
    {"name": "linear"},
    {"name": "mlp", "hidden_sizes": [2, 65_536], "dropout": 0.9},
    {"name": "mlp", "hidden_sizes": [65_536]},
    {"name": "cnn", "channels": [4096]},
    {"name": "resnet", "width": 512, "dropout": 0.6},
]


def resolved(**fields: Any) -> dict[str, Any]:
    sent = {"dataset": "digits", "epochs": 30, "batch_size": 32, **fields}
    return resolve(JobSpec.model_validate(sent)).model_dump(mode="json")


def suggested(
    verdict: str, spec: dict[str, Any] | None = None, **measurements: float | None
) -> list[dict[str, Any]]:
    found = remedies(
        {"verdict": verdict, "measurements": measurements}, spec or resolved(), train_samples=SAMPLES
    )
    return [one["patch"] for one in found]


@settings(max_examples=150, deadline=None)
@given(
    verdict=st.sampled_from(sorted(AGAINST)),
    model=st.sampled_from(MODELS),
    optimizer=st.sampled_from(["sgd", "adam", "adamw"]),
    rate=st.sampled_from([5e-324, 1e-7, 0.001, 0.05, 10.0, 1e6]),
    decay=st.sampled_from([0.0, 0.5]),
    schedule=st.sampled_from(
        [
            {"name": "constant"},
            {"name": "constant", "warmup_iterations": 25},
            {"name": "cosine", "min_learning_rate": 5e-324},
            {"name": "step"},
            {"name": "reduce_on_plateau"},
        ]
    ),
    stopping=st.sampled_from(
        [
            None,
            {"monitor": "train_loss", "patience": MAX_EPOCHS, "start_epoch": 9},
            {"patience": 2, "restore_best": False, "target": 0.1, "start_epoch": 20, "min_delta": "auto"},
        ]
    ),
    validation=st.sampled_from([None, {"fraction": 0.3}]),
    batch_size=st.sampled_from([1, 32, 1024, 5000]),
    epochs=st.sampled_from([30, MAX_EPOCHS]),
    measurements=st.fixed_dictionaries(
        {},
        optional={
            "best_epoch": st.integers(1, 30),
            "last_epoch": st.integers(1, 30),
            "still_falling": st.sampled_from([0.0, 1.0, None]),
            "validation_loss": st.none() | st.floats(0, 1e12),
            "validation_slope": st.none() | st.floats(-1e6, 1e6),
        },
    ),
)
def test_a_patched_spec_is_valid_and_another(verdict, validation, stopping, measurements, **fields) -> None:
    if validation is None and stopping is not None:
        stopping = {**stopping, "monitor": "train_loss"}
    assume(fields["batch_size"] > 1 or fields["model"]["name"] != "resnet")  # batch normalisation
    optimizer = {"name": fields.pop("optimizer"), "learning_rate": fields.pop("rate")}
    optimizer["weight_decay"] = fields.pop("decay")
    spec = resolved(optimizer=optimizer, validation=validation, early_stopping=stopping, **fields)
    for patch in suggested(verdict, spec, **measurements):
        assert resolve(JobSpec.model_validate({**spec, **patch})).model_dump(mode="json") != spec


def test_a_good_fit_needs_nothing() -> None:
    assert suggested("good_fit") == []


def test_divergence_asks_for_a_lower_rate_first() -> None:
    first, second = suggested("diverging")
    assert first["optimizer"]["learning_rate"] == 0.0001
    assert second == {"gradient_clip_norm": 1.0}
    assert len(suggested("diverging", resolved(gradient_clip_norm=0.5))) == 1


def test_the_schedules_floor_follows_a_lower_rate() -> None:
    spec = resolved(schedule={"name": "cosine", "min_learning_rate": 0.0005})
    assert suggested("diverging", spec)[0]["schedule"]["min_learning_rate"] == 0.00001


@pytest.mark.parametrize(
    ("loss", "slope", "epochs"), [(1.0, -0.2, 60), (1.0, -0.05, 120), (1.0, -0.001, 480), (1.0, 0.1, 60)]
)
def test_how_much_longer_follows_from_the_slope(loss: float, slope: float, epochs: int) -> None:
    seen = {"still_falling": 1.0, "last_epoch": 30, "validation_loss": loss, "validation_slope": slope}
    assert suggested("underfitting", **seen)[0] == {"epochs": epochs}


def test_a_training_that_was_cut_short_is_not_told_to_take_more_epochs() -> None:
    spec = resolved(early_stopping={"patience": 1}, max_runtime_seconds=60)
    patience, time, *_ = suggested("underfitting", spec, still_falling=1.0, last_epoch=7)
    assert patience["early_stopping"]["patience"] == 5
    assert time == {"max_runtime_seconds": 120}


def test_standing_still_asks_for_the_usual_rate_and_then_for_capacity() -> None:
    low = resolved(optimizer={"name": "sgd", "learning_rate": 1e-6})
    rate, capacity = suggested("underfitting", low, still_falling=0.0)
    assert rate["optimizer"] == {**low["optimizer"], "learning_rate": 0.05}
    assert capacity["model"]["hidden_sizes"] == [512]
    assert suggested("underfitting", still_falling=0.0) == [capacity]


def test_weights_of_another_job_keep_their_shapes() -> None:
    spec = resolved() | {"start_from": {"job": "job_1", "checkpoint": "best"}}
    assert suggested("underfitting", spec, still_falling=0.0) == []


def test_overfitting_keeps_what_the_caller_asked_of_early_stopping() -> None:
    first, *rest = suggested("overfitting", best_epoch=8)
    assert first["early_stopping"] == {"monitor": "validation_loss", "mode": "min", "patience": 5}
    assert rest[0] == {"epochs": 8}
    policy = {"monitor": "validation_accuracy", "patience": 3, "start_epoch": 5, "restore_best": False}
    first, *_ = suggested("overfitting", resolved(early_stopping=policy), best_epoch=8)
    assert first["early_stopping"] | policy == first["early_stopping"] | {"restore_best": False}
    assert first["early_stopping"]["restore_best"] is True
    kept = suggested("overfitting", resolved(early_stopping={"patience": 3}), best_epoch=8)
    assert not any("early_stopping" in patch for patch in kept)


def test_no_fewer_epochs_than_the_spec_allows() -> None:
    late = resolved(early_stopping={"start_epoch": 20})
    assert {"epochs": 8} not in suggested("overfitting", late, best_epoch=8)
    warm = resolved(schedule={"name": "constant", "warmup_iterations": 900})
    assert {"epochs": 8} not in suggested("overfitting", warm, best_epoch=8)


def test_noise_asks_for_larger_mini_batches_of_at_most_all_samples() -> None:
    assert suggested("noisy")[0] == {"batch_size": 256}
    assert suggested("noisy", resolved(batch_size=512))[0] == {"batch_size": 1024}
    assert "batch_size" not in suggested("noisy", resolved(batch_size=1437))[0]
    warm = resolved(schedule={"name": "constant", "warmup_iterations": 400})
    assert "batch_size" not in suggested("noisy", warm)[0]


def test_an_early_decay_of_the_rate_is_taken_back() -> None:
    spec = resolved(schedule={"name": "step", "gamma": 0.001})
    assert suggested("plateau", spec)[0] == {"schedule": {"name": "constant", "warmup_iterations": 0}}


def test_without_validation_a_part_is_to_be_held_back() -> None:
    assert suggested("undetermined", resolved(validation=None)) == [{"validation": {"fraction": 0.2}}]
    assert suggested("undetermined") == []


def test_what_earlier_versions_stored_is_enough() -> None:
    old = {"verdict": "overfitting", "since_epoch": 3, "evidence": "…", "suggestions": []}
    assert remedies(old, resolved(), train_samples=SAMPLES)
