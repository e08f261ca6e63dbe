"""The examples of the OpenAPI document. Requests work as they stand; answers belong to the first one."""

import json
from typing import Any, Final

from fastapi.openapi.models import Example

from epochd.contract.events import EventType

JOB_ID: Final = "job_01k9v7f6zqk3m5t8w2x4y6a8bc"
_CREATED: Final = "2026-01-31T09:00:00.000Z"
_STARTED: Final = "2026-01-31T09:00:00.031Z"
_ASKED: Final = "2026-01-31T09:00:01.102Z"
_FINISHED: Final = "2026-01-31T09:00:01.204Z"

SPECS: Final[dict[str, Example]] = {
    "digits": {
        "summary": "Handwritten digits, with early stopping",
        "value": {
            "name": "digits-mlp",
            "dataset": "digits",
            "model": {"name": "mlp", "hidden_sizes": [128], "dropout": 0.1},
            "epochs": 50,
            "batch_size": 64,
            "early_stopping": {"monitor": "validation_loss", "patience": 5},
            "tags": {"team": "vision"},
        },
    },
    "least": {
        "summary": "The least that a job needs",
        "value": {"dataset": "iris", "epochs": 20, "batch_size": 16},
    },
    "synthetic": {
        "summary": "1000 samples in mini-batches of 100: 10 iterations an epoch",
        "value": {
            "dataset": {"name": "synthetic", "samples": 1000, "features": 8, "targets": 1, "noise": 0.1},
            "epochs": 1,
            "batch_size": 100,
            "validation": None,
        },
    },
}
CANCELS: Final[dict[str, Example]] = {
    "best": {"summary": "Keep the best weights so far", "value": {"keep": "best", "grace_seconds": 30}},
    "nothing": {"summary": "Keep nothing", "value": {"keep": "nothing", "grace_seconds": 0}},
}
NOTHING: Final[dict[str, Example]] = {"nothing": {"summary": "There is nothing to choose", "value": {}}}
RETRIES: Final[dict[str, Example]] = {
    "checkpoint": {"summary": "Go on from the newest checkpoint", "value": {"from": "checkpoint"}},
    "scratch": {"summary": "Begin anew", "value": {"from": "scratch"}},
}
PATCHES: Final[dict[str, Example]] = {
    "longer": {"summary": "Train longer", "value": {"epochs": 80}},
    "slower": {
        "summary": "A tenth of the learning rate, and more patience",
        "value": {
            "optimizer": {"learning_rate": 0.0001},
            "early_stopping": {"monitor": "validation_loss", "patience": 10},
        },
    },
    "label": {
        "summary": "Another name and other tags, sooner",
        "value": {"name": "digits-final", "tags": {"team": "vision", "stage": "final"}, "priority": 10},
    },
}

PLANNED: Final[dict[str, Any]] = {
    "spec": {
        "name": "digits-mlp",
        "dataset": "digits",
        "model": {"name": "mlp", "hidden_sizes": [128], "dropout": 0.1, "batch_norm": False},
        "epochs": 50,
        "batch_size": 64,
        "optimizer": {
            "name": "adamw",
            "learning_rate": 0.001,
            "betas": [0.9, 0.999],
            "eps": 1e-08,
            "weight_decay": 0.01,
        },
        "schedule": {"warmup_iterations": 0, "name": "constant"},
        "loss": "cross_entropy",
        "class_weights": None,
        "label_smoothing": 0.0,
        "metrics": [],
        "augmentation": None,
        "validation": {"fraction": 0.2, "dataset": None, "every_epochs": 1},
        "start_from": None,
        "export": [],
        "early_stopping": {
            "monitor": "validation_loss",
            "mode": "min",
            "patience": 5,
            "min_delta": 0.0,
            "start_epoch": 1,
            "target": None,
            "restore_best": True,
        },
        "seed": 0,
        "device": "auto",
        "precision": "auto",
        "gradient_clip_norm": None,
        "drop_last": False,
        "checkpoint": {"every_epochs": 1, "every_seconds": 60.0, "keep": 2},
        "max_runtime_seconds": None,
        "max_attempts": 3,
        "priority": 0,
        "tags": {"team": "vision"},
        "webhook": None,
    },
    "plan": {
        "train_samples": 1438,
        "validation_samples": 359,
        "batch_size": 64,
        "mini_batches_per_epoch": 23,
        "last_batch_size": 30,
        "iterations_per_epoch": 23,
        "total_iterations": 1150,
    },
    "advice": [],
}
_METRICS: Final = {"train_loss": 0.0721, "validation_loss": 0.0894, "validation_accuracy": 0.975}
_SELECTED: Final = {
    "epoch": 27,
    "iteration": 621,
    "metric": "validation_loss",
    "value": 0.0862,
    "reason": "The lowest validation_loss of 32 epochs.",
}
JOB: Final[dict[str, Any]] = {
    "id": JOB_ID,
    "name": "digits-mlp",
    "status": "succeeded",
    "done": True,
    "stop_reason": "early_stopped",
    "spec": PLANNED["spec"],
    "plan": PLANNED["plan"],
    "progress": {
        "epoch": 32,
        "epochs": 50,
        "iteration": 736,
        "total_iterations": 1150,
        "fraction": 0.64,
        "samples_per_second": 91000.0,
        "elapsed_seconds": 1.1,
        "eta_seconds": 0.0,
        "metrics_lag_seconds": 0.0,
        "micro_batch_size": None,
        "peak_memory_bytes": 412876800,
    },
    "metrics": _METRICS,
    "early_stopping": {
        "monitor": "validation_loss",
        "mode": "min",
        "patience": 5,
        "best_value": 0.0862,
        "best_epoch": 27,
        "epochs_without_improvement": 5,
        "stopped": True,
        "stopped_epoch": 32,
        "message": "validation_loss has not improved on 0.0862 (epoch 27) for 5 epochs.",
        "min_delta": 0.0,
    },
    "diagnosis": {
        "verdict": "good_fit",
        "since_epoch": 12,
        "confidence": 0.86,
        "evidence": "The validation loss has levelled off at 0.0871 (lowest 0.0862) since epoch 12, close to the "
        "training loss of 0.0523 (trivial predictor: 2.302).",
        "measurements": {"train_loss": 0.0523, "validation_loss": 0.0871, "generalisation_gap": 0.0348},
        "suggestions": [],
    },
    "selected_checkpoint": _SELECTED,
    "advice": [],
    "error": None,
    "attempt": 1,
    "worker": "trainer-1:4711",
    "device": "cpu",
    "created_at": _CREATED,
    "started_at": _STARTED,
    "finished_at": _FINISHED,
    "cancel_requested_at": None,
    "pause_requested_at": None,
}
RUNNING: Final[dict[str, Any]] = JOB | {
    "status": "running",
    "done": False,
    "stop_reason": None,
    "progress": JOB["progress"]
    | {"epoch": 30, "iteration": 697, "fraction": 0.606087, "eta_seconds": 0.7, "metrics_lag_seconds": 0.1},
    "early_stopping": JOB["early_stopping"]
    | {"epochs_without_improvement": 3, "stopped": False, "stopped_epoch": None, "message": None},
    "selected_checkpoint": None,
    "finished_at": None,
}
CANCELLING: Final = RUNNING | {"cancel_requested_at": _ASKED}
PAUSING: Final = RUNNING | {"pause_requested_at": _ASKED}
QUEUED: Final = RUNNING | {"status": "queued", "worker": None, "device": None}
_ATTEMPT: Final = {"worker": "trainer-1:4711", "device": "cpu", "error": None}
ATTEMPTS: Final[dict[str, Any]] = {
    "data": [
        {
            "attempt": 1,
            "started_at": _STARTED,
            "finished_at": "2026-01-31T09:00:00.531Z",
            "outcome": "lost",
            "first_iteration": 1,
            "last_iteration": 437,
            "restored": None,
        }
        | _ATTEMPT,
        {
            "attempt": 2,
            "started_at": "2026-01-31T09:00:00.563Z",
            "finished_at": _FINISHED,
            "outcome": "succeeded",
            "first_iteration": 415,
            "last_iteration": 736,
            "restored": {
                "epoch": 18,
                "iteration": 414,
                "attempt": 1,
                "saved_at": "2026-01-31T09:00:00.498Z",
                "skipped": [
                    {
                        "file": "attempt-1/iteration-437.ckpt",
                        "reason": "The file is cut off or damaged: its digest does not match.",
                    }
                ],
            },
        }
        | _ATTEMPT,
    ],
    "next": None,
}


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _csv(rows: list[dict[str, Any]]) -> str:
    lines = [",".join(rows[0]), *(",".join(json.dumps(value) for value in row.values()) for row in rows)]
    return "".join(f"{line}\r\n" for line in lines)


def _ndjson(rows: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, separators=(',', ':'))}\n" for row in rows)


_COLUMNS: Final[dict[str, list[Any]]] = {
    "iteration": [1, 2],
    "epoch": [1, 1],
    "train_loss": [2.3312, 2.2874],
    "learning_rate": [0.001, 0.001],
    "gradient_norm": [1.1021, 1.0733],
    "samples_per_second": [52000.0, 88000.0],
}
ITERATIONS: Final = {"columns": _COLUMNS, "next": 2}
ITERATIONS_CSV: Final = _csv(_rows(_COLUMNS))
ITERATIONS_NDJSON: Final = _ndjson(_rows(_COLUMNS))
_EPOCH: Final = {
    "epoch": 1,
    "train_loss": 1.6213,
    "validation_loss": 1.0157,
    "validation_accuracy": 0.8301,
    "learning_rate": 0.001,
    "seconds": 0.021,
    "is_best": False,
}
EPOCHS: Final = {"data": [_EPOCH], "next": None}
EPOCHS_CSV: Final = _csv([_EPOCH])
EPOCHS_NDJSON: Final = _ndjson([_EPOCH])


def _event(seq: int, kind: EventType, created_at: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"seq": seq, "type": kind, "created_at": created_at, "data": data}


_STARTED_DATA: Final = {"attempt": 1, "worker": "trainer-1:4711", "device": "cpu"}
_SAVED_DATA: Final = {"epoch": 1, "iteration": 23, "bytes": 118_412, "reason": "epoch", "is_best": True}
_ENDED_DATA: Final = {
    "stop_reason": "early_stopped",
    "selected_checkpoint": _SELECTED,
    "error": None,
    "metrics": _METRICS,
}
_EVENTS: Final = [
    _event(1, "job.queued", _CREATED, {"plan": PLANNED["plan"], "priority": 0}),
    _event(2, "job.started", _STARTED, _STARTED_DATA),
    _event(3, "epoch.completed", "2026-01-31T09:00:00.090Z", {"iteration": 23} | _EPOCH),
    _event(4, "checkpoint.saved", "2026-01-31T09:00:00.101Z", _SAVED_DATA),
]
EVENTS: Final = {"data": _EVENTS, "next": None, "newest": _EVENTS[-1]["seq"]}


def _message(event_id: str, kind: str, data: Any) -> str:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


STREAM: Final = "".join(
    [
        "retry: 1000\n\n",
        *(_message(str(event["seq"]), event["type"], event) for event in _EVENTS[:2]),
        _message("2-2", "iterations", {"attempt": 1, "columns": _COLUMNS}),
        ": heartbeat\n\n",
        _message("69", "job.succeeded", _event(69, "job.succeeded", _FINISHED, _ENDED_DATA)),
    ]
)

ARTIFACTS: Final = {
    "data": [
        {
            "name": "model.safetensors",
            "media_type": "application/octet-stream",
            "bytes": 38_696,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "created_at": _FINISHED,
        }
    ],
    "next": None,
}
