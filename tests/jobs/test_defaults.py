"""Whoever sends only a data set, epochs and a batch size gets a model that has learned."""

from contextlib import closing

import pytest
import torch

from epochd.contract.spec import JobSpec
from epochd.jobs.resolve import resolve
from epochd.training.events import EpochCompleted
from epochd.training.trainer import Trainer
from epochd.worker.prepare import prepare_data, training_config


@pytest.fixture(autouse=True)
def one_thread():
    # Threads that wait for each other on cores that other tests use take many times as long.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(dataset, epochs=30, **changes):
    """Train to the end: the metrics of the selected weights, and the last diagnosis."""
    sent = {"dataset": dataset, "epochs": epochs, "batch_size": 32, **changes}
    spec = resolve(JobSpec.model_validate(sent))
    data = prepare_data(spec)
    trainer = Trainer(training_config(spec, data.info, "cpu"), data.training)
    with closing(trainer.run()) as events:
        epochs_completed = [event for event in events if isinstance(event, EpochCompleted)]
    trainer.final_selection()
    return trainer.evaluate(), epochs_completed[-1].diagnosis


@pytest.mark.parametrize(
    ("dataset", "metric", "least"),
    [
        ("digits", "validation_accuracy", 0.95),
        ("iris", "validation_accuracy", 0.85),
        ("wine", "validation_accuracy", 0.93),
        ("breast_cancer", "validation_accuracy", 0.95),
        ("diabetes", "validation_r2", 0.33),
        # A tenth of the labels are drawn at random, half of which come out right: 0.95 can be reached.
        ("synthetic", "validation_accuracy", 0.87),
        ({"name": "synthetic", "targets": 2}, "validation_r2", 0.95),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_defaults_train_well(dataset, metric, least, seed):
    metrics, _ = train(dataset, seed=seed)
    assert metrics[metric] >= least


def test_a_cnn_learns_digits():
    metrics, _ = train("digits", epochs=8, model={"name": "cnn"})
    assert metrics["validation_accuracy"] >= 0.93


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"dataset": "digits"}, "good_fit"),
        ({"dataset": "digits", "model": {"name": "mlp", "dropout": 0.5}}, "good_fit"),
        ({"dataset": {"name": "synthetic", "task": "regression"}}, "good_fit"),
        ({"dataset": {"name": "synthetic", "samples": 200, "noise": 0.6}, "epochs": 60}, "overfitting"),
        (
            {"dataset": "diabetes", "model": {"name": "mlp", "hidden_sizes": [128, 128]}, "epochs": 100},
            "overfitting",
        ),
        ({"dataset": "digits", "epochs": 5}, "underfitting"),
        ({"dataset": "digits", "optimizer": {"name": "adamw", "learning_rate": 1e-5}}, "underfitting"),
        (
            {"dataset": "digits", "optimizer": {"name": "sgd", "learning_rate": 1e-6}, "epochs": 12},
            "underfitting",
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_diagnosis_of_real_trainings(given, verdict, seed):
    _, diagnosis = train(**given, seed=seed)
    assert diagnosis.verdict == verdict, diagnosis.evidence
