"""A job as a notebook shows it: its state in a table, and its losses as a picture. No script, nothing fetched."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from epochd.client.series import Series
from epochd.contract.job import Job

WIDTH, HEIGHT, MARGIN = 560, 160, 4
CURVES: Final = (("train_loss", "#7a8794", "training"), ("validation_loss", "#c2410c", "validation"))


def as_html(job: Job, epochs: Series) -> str:
    """Write it; what callers chose, such as a name, is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _rows(job)
    )
    return f"<div><table>{rows}</table>{_picture(epochs)}</div>"


def _rows(job: Job) -> list[tuple[str, str]]:
    progress, best = job.progress, job.selected_checkpoint
    rows = [
        ("job", f"{job.id}{f' ({job.name})' if job.name else ''}"),
        ("status", f"{job.status}{f', {job.stop_reason}' if job.stop_reason else ''}"),
        ("epochs", f"{progress.epoch} of {progress.epochs}, {progress.iteration} iterations"),
        ("diagnosis", f"{job.diagnosis.verdict}: {job.diagnosis.evidence}"),
    ]
    if best is not None and best.metric is not None:
        rows.append(("kept", f"epoch {best.epoch}: {best.metric} {best.value:.4g}"))
    if job.error is not None:
        rows.append(("error", job.error.message))
    return rows


def _picture(epochs: Series) -> str:
    curves = [(epochs.get(name, []), colour, label) for name, colour, label in CURVES]
    logs = [[_log(value) for value in values] for values, _, _ in curves]
    known = [value for values in logs for value in values if value is not None]
    if len(known) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    lines = "".join(
        f"<polyline fill='none' stroke='{colour}' stroke-width='2' points='{_points(values, low, span)}'/>"
        for values, (_, colour, _) in zip(logs, curves, strict=True)
    )
    legend = " ".join(f"<span style='color:{colour}'>&#9632; {label}</span>" for _, colour, label in curves)
    return (
        f"<svg role='img' aria-label='Loss by epoch' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' "
        f"height='{HEIGHT}'>{lines}</svg><div>{legend}, loss by epoch on a logarithmic scale, "
        f"{math.exp(low):.3g} to {math.exp(low + span):.3g}</div>"
    )


def _log(value: Any) -> float | None:
    return math.log(value) if isinstance(value, int | float) and value > 0 else None


def _points(values: Sequence[float | None], low: float, span: float) -> str:
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    last = max(len(values) - 1, 1)
    return " ".join(
        f"{MARGIN + wide * at / last:.1f},{MARGIN + high * (1 - (value - low) / span):.1f}"
        for at, value in enumerate(values)
        if value is not None
    )
