"""The live picture of a job: what the stream says of it, and how it is drawn."""

import json

from rich.console import Console

from epochd.client.events import ServerSentEvent
from epochd.client.screen import Progress, Screen, draw

JOB = {
    "id": "job_1",
    "name": None,
    "status": "queued",
    "spec": {"epochs": 10, "validation": {"fraction": 0.2}},
    "plan": {"train_samples": 100, "total_iterations": 40},
    "early_stopping": {"patience": 3},
}


def told(progress, kind, **data):
    progress.take(ServerSentEvent(kind, json.dumps({"data": data}), "1"))


def drawn(progress):
    console = Console(width=90)
    with console.capture() as captured:
        console.print(draw(progress))
    return captured.get()


def test_a_batch_size_and_epochs_that_change_change_what_is_ahead():
    progress = Progress.of(JOB)
    told(progress, "batch_size.chosen", batch_size=16)
    assert progress.total_iterations == 70
    told(progress, "spec.amended", changes={"epochs": 20, "early_stopping": None}, epoch=1, iteration=7)
    assert (progress.epochs, progress.total_iterations, progress.epochs_left) == (20, 140, None)


def test_the_picture_has_what_the_job_has():
    progress = Progress.of(JOB)
    told(progress, "job.started", device="cpu")
    losses = {"train_loss": 0.5, "validation_loss": 0.75, "validation_accuracy": 0.875}
    told(progress, "epoch.completed", epoch=1, iteration=4, **losses)
    told(progress, "early_stopping.updated", best_value=0.75, best_epoch=1, epochs_without_improvement=1)
    for said in ("job_1  training on cpu", "1/10", "4/40", "2 more epochs", "0.7500", "87.50%"):
        assert said in drawn(progress)
    bare = Progress.of({**JOB, "spec": {"epochs": 10, "validation": None}, "early_stopping": None})
    told(bare, "epoch.completed", epoch=1, iteration=4, train_loss=0.5, validation_loss=None)
    assert "validation" not in drawn(bare)
    assert "early stop" not in drawn(bare)


def test_a_line_an_epoch_where_there_is_no_terminal():
    progress = Progress.of({**JOB, "early_stopping": None})
    console = Console(width=200)
    with console.capture() as captured, Screen.on(console, progress) as screen:
        event = ServerSentEvent(
            "epoch.completed",
            json.dumps({"data": {"epoch": 1, "iteration": 4, "train_loss": 0.5, "validation_loss": 0.75}}),
            "1",
        )
        progress.take(event)
        screen.show(event)
    assert captured.get().split() == [
        "epoch",
        "1/10",
        "iteration",
        "4/40",
        "loss",
        "0.5000",
        "validation",
        "loss",
        "0.7500",
    ]
