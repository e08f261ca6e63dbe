import numpy as np
import pytest

from epochd.contract.spec import JobSpec
from epochd.jobs.resolve import dataset_info, resolve
from epochd.training.config import EarlyStoppingConfig
from epochd.worker.prepare import device_of, prepare_data, training_config


def resolved(**body):
    return resolve(JobSpec.model_validate({"dataset": "digits", "epochs": 3, "batch_size": 64, **body}))


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "one_cycle", "reduce_on_plateau"])
def test_every_schedule_reaches_the_engine(name):
    spec = resolved(schedule={"name": name, "warmup_iterations": 7})
    config = training_config(spec, dataset_info(spec), "cpu")
    assert (config.schedule.name, config.schedule.warmup_iterations) == (name, 7)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_reaches_the_engine(name):
    spec = resolved(optimizer={"name": name, "learning_rate": 0.25, "weight_decay": 0.5})
    config = training_config(spec, dataset_info(spec), "cpu")
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.weight_decay) == (
        name,
        0.25,
        0.5,
    )


@pytest.mark.parametrize(
    "model", [{"name": "linear"}, {"name": "mlp", "hidden_sizes": [5, 6]}, {"name": "cnn"}]
)
def test_every_model_reaches_the_engine(model):
    spec = resolved(model=model)
    config = training_config(spec, dataset_info(spec), "cpu")
    assert (config.model.name, config.model.data.outputs) == (model["name"], 10)
    assert config.model.parameters.items() >= {k: v for k, v in model.items() if k != "name"}.items()


def test_early_stopping_reaches_the_engine():
    policy = {
        "monitor": "validation_accuracy",
        "patience": 3,
        "min_delta": 0.25,
        "start_epoch": 2,
        "target": 0.75,
    }
    spec = resolved(early_stopping={**policy, "restore_best": False})
    config = training_config(spec, dataset_info(spec), "cpu")
    assert config.early_stopping == EarlyStoppingConfig(**policy, mode="max", restore_best=False)


@pytest.mark.parametrize(
    ("wanted", "slot", "device"),
    [
        ("auto", "cpu", "cpu"),
        ("auto", "cuda:1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cpu", "cuda:1", "cpu"),
    ],
)
def test_the_device_is_the_slots_unless_the_spec_names_one(wanted, slot, device):
    assert device_of(resolved(device=wanted), slot) == device


def test_preprocessing_is_fitted_on_the_training_split_alone():
    data = prepare_data(resolved(dataset="wine"))
    train, held_back = data.training.train.x, data.training.validation.x
    assert np.allclose(train.mean(0), 0, atol=1e-5)
    assert np.allclose(train.std(0), 1, atol=1e-3)
    assert not np.allclose(held_back.mean(0), 0, atol=1e-3)


def test_the_split_is_a_function_of_the_seed():
    one, same, other = (prepare_data(resolved(dataset="iris", seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.training.validation.x, same.training.validation.x)
    assert not np.array_equal(one.training.validation.x, other.training.validation.x)
    assert np.bincount(one.training.validation.y).tolist() == [10, 10, 10]


def test_without_validation_all_samples_train():
    data = prepare_data(resolved(dataset="iris", validation=None))
    assert len(data.training.train.x) == 150
    assert data.training.validation is None
