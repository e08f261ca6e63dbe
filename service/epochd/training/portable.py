"""A trained model with its preprocessing in front and its target scale behind: tensor operations only.

What is put in is measured as the data set was, and what comes out is in the target's own units, so that an exported
model needs nothing beside itself. The arithmetic is that of ``Preprocessing.as_dict()``, in the same order and in the
same types, so that the numbers are the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

Described = Mapping[str, Any]
MISSING_DATE: Final = -(2**63)
_DAY: Final = 86_400_000_000
YEAR: Final = (31_556_952_000_000, _DAY)
WEEK: Final = (7 * _DAY, _DAY)
DAY: Final = (_DAY, 60_000_000)
"""Cycles of a date, and how finely each is told apart: microseconds."""

DTYPES: Final = {
    "numbers": torch.float32,
    "dates": torch.int64,
    "codes": torch.int64,
    "tokens": torch.int32,
}


class Portable(nn.Module):
    """What ``model`` does with samples as they were measured, in evaluation mode.

    ``preprocessing`` is what ``Preprocessing.as_dict()`` gave (version 2). ``forward`` takes the tensors that
    ``input_names`` says, each with n samples: of a table ``numbers`` float32 (n, k) with NaN where a value is missing,
    ``dates`` int64 (n, d), microseconds since 1970 and the smallest integer where missing, and ``codes`` int64 (n, c),
    positions within the known categories from 1 on, 0 where missing or unknown; of images and arrays ``x``; of texts
    ``tokens`` int32 (n, words). It gives the class scores (n, classes) as the model has them, or the targets
    (n, targets) in their own units.
    """

    def __init__(self, model: nn.Module, preprocessing: Described) -> None:
        super().__init__()
        self.input_names = input_names(preprocessing)
        self.preprocess = _PREPROCESSING[preprocessing["kind"]](preprocessing)
        self.model = model
        self.postprocess = TargetUnits(preprocessing) if preprocessing["target_scale"] else nn.Identity()
        self.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict for n samples."""
        predicted: Tensor = self.postprocess(self.model(self.preprocess(*inputs)))
        return predicted


def input_names(preprocessing: Described) -> tuple[str, ...]:
    """The inputs of a portable model, in their order."""
    match preprocessing["kind"]:
        case "table":
            parts = {"numbers": "numbers", "dates": "dates", "codes": "categories"}
            return tuple(name for name, described in parts.items() if preprocessing[described])
        case "text":
            return ("tokens",)
        case _:
            return ("x",)


class TableColumns(nn.Module):
    """The columns of a table as a model sees them: numbers, missing indicators, dates, categories."""

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        self._names = input_names(preprocessing)
        self.parts = nn.ModuleDict({name: _PARTS[name](preprocessing) for name in self._names})

    def forward(self, *inputs: Tensor) -> Tensor:
        """From measured values to float32 (n, width)."""
        made = {name: self.parts[name](given) for name, given in zip(self._names, inputs, strict=True)}
        order = [made[name][0] for name in ("numbers",) if name in made]
        order += [made[name][1] for name in ("numbers", "dates") if name in made]
        order += [made[name][0] for name in ("dates", "codes") if name in made]
        return torch.cat(order, dim=1)


class Numbers(nn.Module):
    """Standardised numbers, 0 where one is missing, and an indicator for each that was ever missing."""

    mean: Tensor
    scale: Tensor
    indicators: Tensor

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        _constant(self, "mean", preprocessing["mean"], torch.float32)
        _constant(self, "scale", preprocessing["scale"], torch.float32)
        _constant(self, "indicators", _indicators(preprocessing["numbers"]), torch.int64)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """From (n, k) to (n, k) and (n, indicators)."""
        missing = torch.isnan(numbers)
        standardised = (numbers - self.mean) / self.scale
        known = torch.where(missing, torch.zeros_like(standardised), standardised)
        return known, missing.index_select(1, self.indicators).to(torch.float32)


class Dates(nn.Module):
    """Each date as its standardised time and its place in the year, in the week and, if it has a time, in the day."""

    indicators: Tensor

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        self.dates = nn.ModuleList(_Date(described) for described in preprocessing["dates"])
        _constant(self, "indicators", _indicators(preprocessing["dates"]), torch.int64)

    def forward(self, dates: Tensor) -> tuple[Tensor, Tensor]:
        """From (n, d) to (n, columns) and (n, indicators)."""
        missing = dates == MISSING_DATE
        columns = [date(dates[:, i], missing[:, i]) for i, date in enumerate(self.dates)]
        return torch.cat(columns, dim=1), missing.index_select(1, self.indicators).to(torch.float32)


class _Date(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, described: Described) -> None:
        super().__init__()
        _constant(self, "mean", described["mean"], torch.int64)
        _constant(self, "scale", described["scale"], torch.float64)
        self.cycles = nn.ModuleList(
            _Cycle(*cycle) for cycle in ([YEAR, WEEK, DAY] if described["has_time"] else [YEAR, WEEK])
        )

    def forward(self, date: Tensor, missing: Tensor) -> Tensor:
        microseconds = torch.where(missing, self.mean, date)
        time = ((microseconds - self.mean).to(torch.float64) / self.scale).to(torch.float32)
        places = torch.cat([cycle(microseconds) for cycle in self.cycles], dim=1)
        known = torch.where(missing.unsqueeze(1), torch.zeros_like(places), places)
        return torch.cat([time.unsqueeze(1), known], dim=1)


class _Cycle(nn.Module):
    places: Tensor

    def __init__(self, period: int, step: int) -> None:
        super().__init__()
        self._period, self._step = period, float(step)
        angles = [2 * math.pi * i * step / period for i in range(-(-period // step))]
        _constant(self, "places", [[math.sin(angle), math.cos(angle)] for angle in angles], torch.float32)

    def forward(self, microseconds: Tensor) -> Tensor:
        # In float64, which holds every such number exactly: some runtimes divide integers in float32.
        rest = torch.remainder(microseconds, self._period).to(torch.float64)
        return self.places.index_select(0, torch.floor(rest / self._step).to(torch.int64))


class Categories(nn.Module):
    """Positions of categories as groups of columns with a 1 at the position, or as they are."""

    sizes: Tensor
    columns: Tensor
    positions: Tensor

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        sizes = [described["positions"] for described in preprocessing["categories"]]
        _constant(self, "sizes", sizes, torch.int64)
        self._is_one_hot = preprocessing["encoding"] == "one_hot"
        if self._is_one_hot:
            columns = [(column, position) for column, size in enumerate(sizes) for position in range(size)]
            _constant(self, "columns", [column for column, _ in columns], torch.int64)
            _constant(self, "positions", [position for _, position in columns], torch.int64)

    def forward(self, codes: Tensor) -> tuple[Tensor]:
        """From (n, c) to (n, columns); a position that no category has counts as unknown."""
        known = torch.where((codes >= 0) & (codes < self.sizes), codes, torch.zeros_like(codes))
        if not self._is_one_hot:
            return (known.to(torch.float32),)
        return ((known.index_select(1, self.columns) == self.positions).to(torch.float32),)


class Standardised(nn.Module):
    """Images and arrays: float32, centred and scaled."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        _constant(self, "mean", preprocessing["mean"], torch.float32)
        _constant(self, "scale", preprocessing["scale"], torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """From (n, *shape) of any type to float32 (n, *shape)."""
        scaled: Tensor = (x.to(torch.float32) - self.mean) / self.scale
        return scaled


class Tokens(nn.Module):
    """Words are numbers already: no format here carries the splitting of a text."""

    def __init__(self, preprocessing: Described) -> None:  # noqa: ARG002 - made like the others
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        """The same (n, words)."""
        return tokens


class TargetUnits(nn.Module):
    """From standardised targets to those that were measured."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preprocessing: Described) -> None:
        super().__init__()
        _constant(self, "mean", preprocessing["target_mean"], torch.float32)
        _constant(self, "scale", preprocessing["target_scale"], torch.float32)

    def forward(self, outputs: Tensor) -> Tensor:
        """From (n, targets) to (n, targets)."""
        measured: Tensor = outputs * self.scale + self.mean
        return measured


_PREPROCESSING: Final[dict[str, Callable[[Described], nn.Module]]] = {
    "table": TableColumns,
    "image": Standardised,
    "array": Standardised,
    "text": Tokens,
}
_PARTS: Final[dict[str, Callable[[Described], nn.Module]]] = {
    "numbers": Numbers,
    "dates": Dates,
    "codes": Categories,
}


def _constant(module: nn.Module, name: str, value: Any, dtype: torch.dtype) -> None:
    module.register_buffer(name, torch.tensor(value, dtype=dtype))


def _indicators(columns: Sequence[Described]) -> list[int]:
    return [number for number, column in enumerate(columns) if column["indicator"]]
