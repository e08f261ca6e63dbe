"""How a comparison is shown, and what is said when there is none."""

import io

import pytest
from rich.console import Console

from epochd.api.compare import EXAMPLE
from epochd.client.compare import fetch, labels, show
from epochd.client.sparkline import LEVELS, sparkline
from epochd.errors import ServiceUnavailableError


def shown(found, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    show(console, found)
    return console.file.getvalue()


def changed(**changes):
    return {**EXAMPLE, **changes}


def test_each_job_is_called_by_what_sets_it_apart():
    assert labels(EXAMPLE) == ["batch_size 16  epochs 3", "batch_size 128  epochs 2"]
    assert labels(changed(differences=[])) == ["digits-16", "digits-128"]
    nameless = [{**job, "name": None} for job in EXAMPLE["data"]]
    assert labels(changed(differences=[], data=nameless)) == [job["id"] for job in EXAMPLE["data"]]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_figure_is_on_the_screen(width):
    text = shown(EXAMPLE, width)
    for part in ("0.2214", "1.204", "0.0213", "413 MB", "71,850", "lower is better, target 0.5"):
        assert part in text, part
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_curves_share_one_scale():
    small, large = (line for line in shown(EXAMPLE).splitlines() if any(level in line for level in LEVELS))
    assert LEVELS[0] in small
    assert LEVELS[-1] not in small
    assert LEVELS[-1] in large
    assert LEVELS[0] not in large


def test_notes_and_jobs_without_figures_are_shown():
    empty = {name: None if name.endswith(("value", "epoch", "second", "bytes")) else value
             for name, value in EXAMPLE["data"][0].items()}  # fmt: skip
    curves = {"epoch": [], "values": {job["id"]: [] for job in EXAMPLE["data"]}}
    text = shown(changed(data=[empty, empty], notes=["The jobs differ."], curves=curves, target=None))
    assert "! The jobs differ." in text


def test_values_beyond_the_bounds_are_drawn_at_their_edge():
    assert sparkline([0.01, 0.2, 100.0], 3, (0.1, 10.0)) == LEVELS[0] + LEVELS[1] + LEVELS[-1]
    assert sparkline([], 3, (0.1, 10.0)) == ""


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", ""])
def test_where_nobody_answers_it_says_what_to_give(url):
    with pytest.raises(ServiceUnavailableError, match="--url"):
        fetch(url, None, ["a", "b"])
