"""Old iterations leave the database of a real service, and nobody who asks for them can tell."""

from collections.abc import Callable
from typing import Any

import pytest

SHORT = {"dataset": "digits", "epochs": 3, "batch_size": 64}


@pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.torture)], indirect=True
)
def test_it_archives_what_is_old_when_it_starts(
    start_service: Callable[..., Any], wait_until: Callable[..., Any]
):
    service = start_service()
    job_id = service.submit(**SHORT)
    service.wait(job_id)

    def answers(running: Any) -> list[bytes]:
        asked = [{}, {"points": 20}, {"points": 20, "reduction": "mean"}, {"format": "csv"}, {"attempt": 1}]
        url = f"/v1/jobs/{job_id}/iterations"
        stream = running.client.get(
            f"/v1/jobs/{job_id}/events",
            params={"iterations": "true"},
            headers={"Accept": "text/event-stream"},
        )
        found = [running.client.get(url, params=params).raise_for_status().content for params in asked]
        return [*found, stream.content]

    before, kept = answers(service), service.artifacts(job_id)
    assert "metrics.parquet" not in kept
    assert service.end() == 0

    again = start_service("--keep-iterations-days", "0")
    wait_until(lambda: "metrics.parquet" in again.artifacts(job_id), "the iterations were archived")
    assert answers(again) == before
    files = again.artifacts(job_id)
    assert files.pop("metrics.parquet")[:4] == b"PAR1"
    assert files == kept
    assert again.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert again.end() == 0
    assert "Traceback" not in again.errors
