"""What a training and the state it resumes from must have in common, and how such a state is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from epochd.training.config import ModelConfig, TrainingConfig
from epochd.training.parameters import ALIGNMENT
from epochd.training.plan import Plan

_ADDED = {"class_weights": None, "label_smoothing": 0.0, "metrics": (), "augmentation": None}
"""Fields that came later: at their defaults they are left out, so that a state from before them still fits."""
_FIRST = frozenset({"linear", "mlp", "cnn"})
_FIRST_DEFAULTS = {
    "hidden_sizes": (128,),
    "channels": (16, 32),
    "hidden_size": 64,
    "dropout": 0.0,
    "batch_norm": False,
}
_NONE = ((), 0)

VERSION = 1
"""Raised whenever a state changes in a way that an older engine, or this one reading an older state, would misread."""


def description(
    config: TrainingConfig, plan: Plan, layers: Sequence[Mapping[str, Any]], chunk_size: int
) -> dict[str, Any]:
    """Everything that decides over the numbers of a training, before any amendment, as JSON-ready values.

    Neither the device nor the time limit is part of it: a training may go on elsewhere, and longer.
    """
    facts = asdict(config)
    del facts["device"], facts["max_runtime_seconds"]
    for name, default in _ADDED.items():
        if facts[name] == default:
            del facts[name]
    facts["model"] = _model(config.model)
    facts["layers"] = [dict(layer) for layer in layers]
    facts["train_samples"], facts["validation_samples"] = plan.train_samples, plan.validation_samples
    # How weights lie in memory, and where mini-batches do: kernels may round differently elsewhere.
    facts["alignment"], facts["chunk_size"] = ALIGNMENT, chunk_size
    listed: dict[str, Any] = _map(facts, lambda value: value)
    return listed


def _model(config: ModelConfig) -> dict[str, Any]:
    """The facts of a model in one dict; those of the first three models as they always were, with all defaults."""
    first = {**_FIRST_DEFAULTS, **config.parameters} if config.name in _FIRST else {**config.parameters}
    data = {
        name: value for name, value in asdict(config.data).items() if name != "kind" and value not in _NONE
    }
    return {"name": config.name, **data, **first}


def require_version(state: Mapping[str, Any]) -> None:
    """Raise ValueError when another engine wrote the state."""
    if state.get("version") != VERSION:
        raise ValueError(
            f"The state has version {state.get('version')!r}; this engine resumes from version {VERSION}."
        )


def require_same(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raise ValueError that names where two descriptions differ, if they do."""
    differences = list(_differences("", theirs, mine))
    if differences:
        raise ValueError(f"The state is that of another training: {'; '.join(differences)}.")


def _differences(path: str, theirs: Any, mine: Any) -> Iterator[str]:
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in sorted({*theirs, *mine}):
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(below, theirs.get(key), mine.get(key))
    elif theirs != mine:
        yield f"{path} is {theirs!r} there and {mine!r} here"


def on_cpu(state: Any, *, copy: bool) -> Any:
    """Nested dicts and lists again, their tensors on the CPU; those that are there already stay, or are copied."""
    return _map(state, lambda one: one.detach().to("cpu", copy=copy) if isinstance(one, Tensor) else one)


def _map(state: Any, change: Callable[[Any], Any]) -> Any:
    match state:
        case Mapping():
            return {key: _map(value, change) for key, value in state.items()}
        case list() | tuple():
            return [_map(value, change) for value in state]
        case _:
            return change(state)
