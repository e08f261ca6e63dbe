import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.contract.spec import JobSpec
from epochd.errors import InvalidRequestError
from epochd.jobs.resolve import advice_of, dataset_info, plan_of, resolve

BATCH_NORM = {"name": "mlp", "batch_norm": True}


def spec(**changes):
    return JobSpec.model_validate({"dataset": "digits", "epochs": 50, "batch_size": 64, **changes})


def synthetic(**changes):
    return {"name": "synthetic", **changes}


def wrong(**changes):
    """What is wrong with a spec: {param: code}."""
    with pytest.raises(InvalidRequestError) as caught:
        resolve(spec(**changes))
    return {error.param: error.code for error in caught.value.errors}


def message(**changes):
    with pytest.raises(InvalidRequestError) as caught:
        resolve(spec(**changes))
    return " ".join(error.message for error in caught.value.errors)


class TestFillsIn:
    @pytest.mark.parametrize(
        ("dataset", "loss"),
        [("digits", "cross_entropy"), ("diabetes", "mse"), ("synthetic", "cross_entropy")],
    )
    def test_the_loss_of_the_task(self, dataset, loss):
        assert resolve(spec(dataset=dataset)).loss == loss

    @pytest.mark.parametrize("dataset", ["digits", "iris", "diabetes", "synthetic"])
    def test_a_model(self, dataset):
        model = resolve(spec(dataset=dataset)).model
        assert model is not None
        assert model.name == "mlp"

    def test_synthetic_by_its_name(self):
        dataset = resolve(spec(dataset="synthetic")).dataset
        assert dataset.model_dump() == {
            "name": "synthetic",
            "task": "classification",
            "samples": 1000,
            "features": 20,
            "classes": 2,
            "targets": None,
            "noise": 0.1,
            "seed": 0,
        }

    @pytest.mark.parametrize(
        ("given", "task", "classes", "targets"),
        [
            ({}, "classification", 2, None),
            ({"classes": 7}, "classification", 7, None),
            ({"targets": 3}, "regression", None, 3),
            ({"task": "regression"}, "regression", None, 1),
            ({"task": "regression", "targets": 2}, "regression", None, 2),
        ],
    )
    def test_the_task_of_a_synthetic_set(self, given, task, classes, targets):
        dataset = resolve(spec(dataset=synthetic(**given))).dataset
        assert (dataset.task, dataset.classes, dataset.targets) == (task, classes, targets)

    @pytest.mark.parametrize(
        ("monitor", "resolved", "mode"),
        [
            (None, "validation_loss", "min"),
            ("validation_accuracy", "validation_accuracy", "max"),
            ("train_loss", "train_loss", "min"),
        ],
    )
    def test_what_early_stopping_watches(self, monitor, resolved, mode):
        policy = resolve(spec(early_stopping={"monitor": monitor})).early_stopping
        assert (policy.monitor, policy.mode) == (resolved, mode)

    def test_a_mode_that_was_sent_stays(self):
        policy = resolve(spec(early_stopping={"monitor": "validation_loss", "mode": "max"})).early_stopping
        assert policy.mode == "max"

    @pytest.mark.parametrize(("validation", "monitor"), [({}, "validation_loss"), (None, "train_loss")])
    def test_what_a_plateau_watches(self, validation, monitor):
        schedule = resolve(spec(schedule={"name": "reduce_on_plateau"}, validation=validation)).schedule
        assert (schedule.monitor, schedule.mode) == (monitor, "min")

    def test_and_leaves_everything_else(self):
        sent = spec(name="a", tags={"team": "b"}, model={"name": "cnn"}, optimizer={"name": "sgd"}, seed=7)
        filled = {"dataset", "model", "loss", "schedule", "early_stopping", "validation"}
        resolved = resolve(sent)
        assert resolved.model_dump(exclude=filled) == sent.model_dump(exclude=filled)
        assert resolved.model == sent.model

    @pytest.mark.parametrize("dataset", ["digits", "diabetes", "synthetic", synthetic(targets=2)])
    def test_what_comes_out_can_be_sent_again(self, dataset):
        resolved = resolve(spec(dataset=dataset, early_stopping={}, schedule={"name": "reduce_on_plateau"}))
        again = JobSpec.model_validate_json(resolved.model_dump_json())
        assert resolve(again) == resolved


class TestPlan:
    def test_of_the_contract(self):
        assert plan_of(resolve(spec())).as_dict() == {
            "train_samples": 1438,
            "validation_samples": 359,
            "batch_size": 64,
            "mini_batches_per_epoch": 23,
            "last_batch_size": 30,
            "iterations_per_epoch": 23,
            "total_iterations": 1150,
        }

    def test_of_the_definitions(self):
        sent = spec(dataset=synthetic(samples=1000), batch_size=100, epochs=1, validation=None)
        plan = plan_of(resolve(sent))
        assert (plan.mini_batches_per_epoch, plan.iterations_per_epoch, plan.total_iterations) == (10, 10, 10)

    def test_a_batch_size_above_the_samples_is_planned(self):
        plan = plan_of(resolve(spec(batch_size=5000)))
        assert (plan.iterations_per_epoch, plan.last_batch_size) == (1, 1438)

    def test_data_set_info(self):
        assert dataset_info(spec()).shape == (1, 8, 8)
        assert dataset_info(spec(dataset="synthetic")).outputs == 2


class TestRejects:
    def test_an_unknown_data_set(self):
        assert wrong(dataset="digit") == {"dataset": "unknown_dataset"}
        assert "Did you mean 'digits'?" in message(dataset="digit")

    def test_cnn_on_a_table(self):
        assert wrong(dataset="iris", model={"name": "cnn"}) == {"model.name": "model_needs_images"}

    @pytest.mark.parametrize("dataset", ["digits"])
    def test_more_poolings_than_pixels(self, dataset):
        assert resolve(spec(dataset=dataset, model={"name": "cnn", "channels": [4, 4, 4]}))
        assert wrong(model={"name": "cnn", "channels": [4] * 4}) == {"model.channels": "too_many_poolings"}
        assert "8x8 pixels allow 3" in message(model={"name": "cnn", "channels": [4] * 4})

    @pytest.mark.parametrize(
        ("dataset", "loss"), [("digits", "mse"), ("digits", "huber"), ("diabetes", "cross_entropy")]
    )
    def test_a_loss_that_does_not_fit(self, dataset, loss):
        assert wrong(dataset=dataset, loss=loss) == {"loss": "loss_does_not_fit_task"}

    @pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
    def test_but_not_one_that_does(self, loss):
        assert resolve(spec(dataset="diabetes", loss=loss)).loss == loss

    @pytest.mark.parametrize("monitor", [None, "validation_loss", "validation_accuracy"])
    def test_early_stopping_without_validation(self, monitor):
        assert wrong(validation=None, early_stopping={"monitor": monitor}) == {
            "early_stopping.monitor": "early_stopping_needs_validation"
        }

    def test_but_not_on_a_training_metric(self):
        assert resolve(spec(validation=None, early_stopping={"monitor": "train_accuracy"}))

    def test_a_plateau_of_a_metric_that_is_not_measured(self):
        schedule = {"name": "reduce_on_plateau", "monitor": "validation_loss"}
        assert wrong(validation=None, schedule=schedule) == {"schedule.monitor": "schedule_needs_validation"}

    @pytest.mark.parametrize("monitor", ["val_loss", "accuracy", "validation_r2", "learning_rate", ""])
    def test_an_unknown_monitor_lists_what_there_is(self, monitor):
        policy = {"early_stopping": {"monitor": monitor}}
        assert wrong(**policy) == {"early_stopping.monitor": "unknown_metric"}
        assert "train_loss, train_accuracy, validation_loss, validation_accuracy" in message(**policy)
        plateau = {"name": "reduce_on_plateau", "monitor": monitor}
        assert wrong(schedule=plateau) == {"schedule.monitor": "unknown_metric"}

    def test_accuracy_is_no_metric_of_regression(self):
        said = message(dataset="diabetes", early_stopping={"monitor": "validation_accuracy"})
        assert "train_loss, train_r2, validation_loss, validation_r2" in said

    def test_nesterov_without_momentum(self):
        assert wrong(optimizer={"name": "sgd", "nesterov": True, "momentum": 0.0}) == {
            "optimizer.nesterov": "nesterov_needs_momentum"
        }
        assert resolve(spec(optimizer={"name": "sgd", "nesterov": True}))

    @pytest.mark.parametrize("name", ["constant", "cosine", "step", "one_cycle", "reduce_on_plateau"])
    def test_a_warm_up_as_long_as_the_training(self, name):
        schedule = {"name": name, "warmup_iterations": 1150}
        assert wrong(schedule=schedule) == {"schedule.warmup_iterations": "warmup_exceeds_training"}
        assert resolve(spec(schedule={**schedule, "warmup_iterations": 1149}))

    @pytest.mark.parametrize("name", ["cosine", "reduce_on_plateau"])
    def test_a_least_learning_rate_above_the_learning_rate(self, name):
        schedule = {"name": name, "min_learning_rate": 0.1}
        assert wrong(schedule=schedule) == {"schedule.min_learning_rate": "min_exceeds_learning_rate"}

    def test_a_start_after_the_end(self):
        assert wrong(early_stopping={"start_epoch": 51}) == {
            "early_stopping.start_epoch": "start_epoch_after_last_epoch"
        }
        assert resolve(spec(early_stopping={"start_epoch": 50}))

    def test_drop_last_that_leaves_nothing(self):
        assert wrong(batch_size=1439, drop_last=True) == {"drop_last": "no_mini_batch"}
        assert "at most 1438" in message(batch_size=1439, drop_last=True)
        assert resolve(spec(batch_size=1438, drop_last=True))

    def test_one_sample_that_would_have_to_train_and_validate(self):
        lone = synthetic(samples=1, targets=1)
        assert wrong(dataset=lone) == {"validation.fraction": "too_few_samples"}
        assert plan_of(resolve(spec(dataset=lone, validation=None))).total_iterations == 50

    def test_r2_on_one_sample(self):
        few = synthetic(samples=3, targets=1)
        policy = {"monitor": "validation_r2"}
        assert wrong(dataset=few, early_stopping=policy) == {
            "early_stopping.monitor": "too_few_validation_samples"
        }
        assert resolve(spec(dataset=few, early_stopping={}))


class TestRejectsBatchNormalisationOfOneSample:
    def test_left_over(self):
        # 1797 = 449 * 4 + 1
        given = {"validation": None, "batch_size": 4, "model": BATCH_NORM}
        assert wrong(**given) == {"batch_size": "batch_norm_needs_two_samples"}
        assert "take a batch size of 3 or 5, or drop_last true" in message(**given)
        for fitting in (
            {"batch_size": 3},
            {"batch_size": 5},
            {"drop_last": True},
            {"model": {"name": "mlp"}},
        ):
            assert resolve(spec(**{**given, **fitting}))

    def test_a_batch_size_of_one(self):
        given = {"validation": None, "batch_size": 1, "model": BATCH_NORM}
        assert wrong(**given) == {"batch_size": "batch_norm_needs_two_samples"}
        assert "take 3, or batch_norm false" in message(**given)
        assert wrong(**given, drop_last=True) == {"batch_size": "batch_norm_needs_two_samples"}

    def test_a_single_training_sample(self):
        given = {"dataset": synthetic(samples=2), "model": BATCH_NORM}
        assert wrong(**given) == {"batch_size": "batch_norm_needs_two_samples"}
        assert "take more samples" in message(**given)

    @given(samples=st.integers(2, 500), batch_size=st.integers(1, 600))
    def test_every_batch_size_that_is_named_fits(self, samples, batch_size):
        given = {"dataset": synthetic(samples=samples, targets=1), "validation": None, "model": BATCH_NORM}
        try:
            resolved = resolve(spec(**given, batch_size=batch_size))
        except InvalidRequestError as error:
            (only,) = error.errors
            *_, named = only.message.split("take")
            sizes = [int(word.strip(",")) for word in named.split() if word.strip(",").isdigit()]
            assert sizes
            for size in sizes:
                assert plan_of(resolve(spec(**given, batch_size=size))).last_batch_size >= 2
        else:
            assert plan_of(resolved).last_batch_size >= 2


class TestRejectsSynthetic:
    @pytest.mark.parametrize(
        ("given", "errors"),
        [
            ({"classes": 2, "targets": 1}, {"dataset.classes": "classes_with_regression"}),
            ({"task": "regression", "classes": 2}, {"dataset.classes": "classes_with_regression"}),
            ({"task": "classification", "targets": 2}, {"dataset.targets": "targets_with_classification"}),
            ({"noise": 1.01}, {"dataset.noise": "noise_out_of_range"}),
            ({"classes": 11, "samples": 10}, {"dataset.classes": "more_classes_than_samples"}),
            ({"samples": 10_000_000, "features": 100}, {"dataset.samples": "dataset_too_large"}),
            (
                {"samples": 1000, "features": 65_536, "targets": 10_000},
                {"dataset.samples": "dataset_too_large"},
            ),
        ],
    )
    def test_what_contradicts(self, given, errors):
        assert wrong(dataset=synthetic(**given)) == errors

    @pytest.mark.parametrize(
        "given",
        [
            {"noise": 1.0},
            {"targets": 1, "noise": 50.0},
            {"classes": 10, "samples": 10},
            {"samples": 10_000_000},
        ],
    )
    def test_but_not_what_is_at_the_edge(self, given):
        assert resolve(spec(dataset=synthetic(**given), batch_size=1024))

    def test_everything_at_once(self):
        assert wrong(dataset=synthetic(noise=2.0, classes=5, samples=3)) == {
            "dataset.noise": "noise_out_of_range",
            "dataset.classes": "more_classes_than_samples",
        }


def test_everything_that_is_wrong_is_said_at_once():
    assert wrong(
        dataset="wine",
        model={"name": "cnn"},
        loss="mse",
        batch_size=1000,
        drop_last=True,
        optimizer={"name": "sgd", "nesterov": True, "momentum": 0.0},
        schedule={"name": "reduce_on_plateau", "monitor": "nothing"},
        early_stopping={"monitor": "validation_loss", "start_epoch": 99},
        validation=None,
    ) == {
        "optimizer.nesterov": "nesterov_needs_momentum",
        "early_stopping.start_epoch": "start_epoch_after_last_epoch",
        "early_stopping.monitor": "early_stopping_needs_validation",
        "model.name": "model_needs_images",
        "loss": "loss_does_not_fit_task",
        "schedule.monitor": "unknown_metric",
        "drop_last": "no_mini_batch",
    }


def test_beside_an_unknown_data_set_the_rest_is_still_looked_at():
    assert wrong(dataset="nothing", validation=None, early_stopping={"start_epoch": 99}) == {
        "dataset": "unknown_dataset",
        "early_stopping.start_epoch": "start_epoch_after_last_epoch",
        "early_stopping.monitor": "early_stopping_needs_validation",
    }


class TestAdvice:
    def codes(self, **changes):
        resolved = resolve(spec(**changes))
        return {advice.code: advice.param for advice in advice_of(resolved, plan_of(resolved))}

    def test_none_for_the_contract_example(self):
        assert self.codes() == {}

    def test_what_is_worth_saying_does_not_keep_the_job_from_being_planned(self):
        assert self.codes(batch_size=100, epochs=2) == {
            "batch_size_not_power_of_two": "batch_size",
            "few_iterations_per_epoch": "batch_size",
            "epochs_look_few": "epochs",
        }

    def test_patience_that_never_ends(self):
        assert self.codes(early_stopping={"patience": 50}) == {
            "patience_exceeds_epochs": "early_stopping.patience"
        }
        assert self.codes(early_stopping={"patience": 49}) == {}
        assert self.codes(early_stopping={"patience": 50, "target": 0.1}) == {}

    @pytest.mark.parametrize(("monitor", "mode"), [("validation_loss", "max"), ("train_accuracy", "min")])
    def test_a_mode_that_takes_the_worst_for_the_best(self, monitor, mode):
        watch = {"monitor": monitor, "mode": mode}
        assert self.codes(early_stopping=watch) == {"unusual_mode": "early_stopping.mode"}
        assert self.codes(schedule={"name": "reduce_on_plateau", **watch}) == {
            "unusual_mode": "schedule.mode"
        }


def test_resolving_imports_neither_torch_nor_scikit_learn():
    program = """
import sys
from epochd.contract.spec import JobSpec
from epochd.jobs.resolve import advice_of, plan_of, resolve
spec = resolve(JobSpec(dataset="digits", epochs=1, batch_size=64))
advice_of(spec, plan_of(spec))
print(*{"sklearn", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
