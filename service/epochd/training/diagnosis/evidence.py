"""The evidence for each verdict in words. No torch."""

from epochd.training.diagnosis.reading import Reading
from epochd.training.diagnosis.thresholds import MIN_EPOCHS


def too_little(epochs: int, validated: int) -> str:
    """Fewer validated epochs than it takes."""
    if epochs >= MIN_EPOCHS and validated == 0:
        return "Nothing was validated, and the training loss alone does not tell overfitting from a good fit."
    return (
        f"{validated} validated epoch{'' if validated == 1 else 's'} so far; {MIN_EPOCHS} are needed to tell."
    )


def diverging(r: Reading, lowest: int) -> str:
    """Training loss has risen since the point ``lowest``."""
    return (
        f"The training loss itself rises: from {_n(r.train[lowest])} around epoch {r.epochs[lowest]} to "
        f"{_n(r.last_train)} (trivial predictor: {_n(r.baseline)})."
    )


def overfitting(r: Reading, train_then: float) -> str:
    """Validation has risen since its best epoch, when training lost ``train_then``."""
    return (
        f"The validation loss has risen from {_n(r.lowest)} around epoch {r.epochs[r.best]} to "
        f"{_n(r.last_validation)}, while the training loss went on falling from {_n(train_then)} to "
        f"{_n(r.last_train)}."
    )


def standstill(r: Reading) -> str:
    """Nothing moves, and nothing was learned."""
    return (
        f"The training loss stands at {_n(r.last_train)} and does not fall; the trivial predictor, which "
        f"knows no features, loses {_n(r.baseline)}."
    )


def still_learning(r: Reading) -> str:
    """Validation falls."""
    return f"{_falling(r)}: still learning."


def cut_short(r: Reading) -> str:
    """Validation falls, and no epoch will follow."""
    return f"{_falling(r)}: training ended while it was still learning."


def _falling(r: Reading) -> str:
    return (
        f"Over the last {r.epochs[-1] - r.epochs[-1 - r.tail]} epochs the validation loss fell by about "
        f"{_n(r.validation_fall)} to {_n(r.last_validation)}, the training loss by {_n(r.train_fall)} to "
        f"{_n(r.last_train)}"
    )


def noisy(r: Reading) -> str:
    """Validation jumps about."""
    return (
        f"The validation loss jumps from epoch to epoch by {_n(r.validation_noise)} (standard deviation) around "
        f"{_n(r.last_validation)}, so that no trend stands out; the training loss by {_n(r.train_noise)} around "
        f"{_n(r.last_train)}."
    )


def gap(r: Reading) -> str:
    """Validation has levelled off far above training."""
    return (
        f"{_levelled(r)}, far above the training loss of {_n(r.last_train)}: what is still learned of the training "
        "samples does not carry over to others."
    )


def plateau(r: Reading) -> str:
    """Neither loss moves, and much is left."""
    return (
        f"{_levelled(r)}, close to the training loss of {_n(r.last_train)}: further epochs change nothing, and "
        f"{100 * r.last_validation / r.baseline:.0f} % of what the trivial predictor loses ({_n(r.baseline)}) is left."
    )


def good_fit(r: Reading) -> str:
    """Neither loss moves, and little is left."""
    return f"{_levelled(r)}, close to the training loss of {_n(r.last_train)} (trivial predictor: {_n(r.baseline)})."


def unclear(r: Reading) -> str:
    """None of the others."""
    return (
        f"No clear picture: the validation loss lies at {_n(r.last_validation)} (lowest {_n(r.lowest)} "
        f"around epoch {r.epochs[r.best]}), the training loss at {_n(r.last_train)}, the trivial predictor's "
        f"at {_n(r.baseline)}."
    )


def _levelled(r: Reading) -> str:
    return (
        f"The validation loss has levelled off at {_n(r.last_validation)} (lowest {_n(r.lowest)}) since "
        f"epoch {r.level_since}"
    )


def _n(value: float) -> str:
    return f"{value:.4g}"
