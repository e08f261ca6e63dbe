"""What data sets there are and what is in them, without reading one: the API process plans jobs with this."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from epochd.datasets.info import Column, DatasetInfo
from epochd.errors import InvalidRequestError, ParamError

SYNTHETIC = "synthetic"
FLOAT32_BYTES = 4
MAX_SYNTHETIC_BYTES = 2**31
MAX_NAMED = 20

IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
WINE = (
    "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
    "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline",
)  # fmt: skip
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
NUCLEUS = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
BREAST_CANCER = (
    *(f"mean {name}" for name in NUCLEUS),
    *(f"{name} error" for name in NUCLEUS),
    *(f"worst {name}" for name in NUCLEUS),
)


def _numbers(names: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


_BUILTIN = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits", "classification", 1797, (1, 8, 8), tuple("0123456789"), 0,
            "Handwritten digits: grey images of 8x8 pixels (UCI, Alpaydin and Kaynak).", "image",
            target_names=("digit",), class_counts=(178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
        ),
        DatasetInfo(
            "iris", "classification", 150, (4,), ("setosa", "versicolor", "virginica"), 0,
            "Lengths and widths of the sepals and petals of three species of iris (Fisher, 1936).",
            columns=_numbers(IRIS), target_names=("species",), class_counts=(50, 50, 50),
        ),
        DatasetInfo(
            "wine", "classification", 178, (13,), ("class_0", "class_1", "class_2"), 0,
            "Chemical analyses of wines of three cultivars (UCI).",
            columns=_numbers(WINE), target_names=("cultivar",), class_counts=(59, 71, 48),
        ),
        DatasetInfo(
            "breast_cancer", "classification", 569, (30,), ("malignant", "benign"), 0,
            "Measurements of cell nuclei from breast masses (UCI, Wisconsin diagnostic).",
            columns=_numbers(BREAST_CANCER), target_names=("diagnosis",), class_counts=(212, 357),
        ),
        DatasetInfo(
            "diabetes", "regression", 442, (10,), None, 1,
            "Progression of diabetes one year after ten baseline measurements (Efron et al., 2004).",
            columns=_numbers(DIABETES), target_names=("progression",),
        ),
    )
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Every name that ``describe`` knows."""
    return (*_BUILTIN, SYNTHETIC)


def describe(dataset: str | Mapping[str, Any], others: Sequence[str] = ()) -> DatasetInfo:
    """Describe a built-in data set by its name, or a synthetic one by its spec with all values filled in.

    ``others`` are names of data sets that are not built in, for the message.

    Raises ``InvalidRequestError`` (code ``unknown_dataset``) for a name that is not there.
    """
    if isinstance(dataset, Mapping):
        return _describe_synthetic(dataset)
    if dataset not in _BUILTIN:
        raise InvalidRequestError.of(ParamError("dataset", _unknown(dataset, others), "unknown_dataset"))
    return _BUILTIN[dataset]


def synthetic_bytes(*, samples: int, features: int, outputs: int) -> int:
    """Bytes of float32 that a synthetic data set takes: samples, targets or labels, and cluster centres."""
    return FLOAT32_BYTES * (samples * (features + outputs) + outputs * features)


def _describe_synthetic(spec: Mapping[str, Any]) -> DatasetInfo:
    samples, features = spec["samples"], spec["features"]
    info = DatasetInfo(SYNTHETIC, spec["task"], samples, (features,), None, 0, "")
    if info.task == "regression":
        kind = "A noisy linear function"
        return replace(info, targets=spec["targets"], description=f"{kind} of {features} features.")
    classes = tuple(str(label) for label in range(spec["classes"]))
    return replace(
        info, classes=classes, description=f"{len(classes)} Gaussian clusters in {features} dimensions."
    )


def _unknown(name: str, others: Sequence[str]) -> str:
    known = (*names(), *others)
    close = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(name.lower(), known, n=1)
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    guess = f" Did you mean {close[0]!r}?" if close else ""
    if name == SYNTHETIC:
        guess = ' Send it as an object: {"name": "synthetic", …}.'
    return f"There is no data set {name!r}.{guess} There are: {', '.join(known[:MAX_NAMED])}{more}."
