"""The job's artifacts, fetched to a lasting place and checked."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import httpx

from epochd.errors import InfrastructureError


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """A file whose digest is the one that the service announced."""

    path: Path
    bytes: int
    sha256: str


def download(client: httpx.Client, job_id: str, directory: Path) -> list[DownloadedFile]:
    """Fetch all artifacts of a job into ``directory``; raises InfrastructureError when a digest differs."""
    directory.mkdir(parents=True, exist_ok=True)
    url = f"/v1/jobs/{job_id}/artifacts"
    listed = client.get(url).raise_for_status().json()["data"]
    return [
        _fetch(client, f"{url}/{entry['name']}", directory / Path(entry["name"]).name, entry["sha256"])
        for entry in listed
    ]


def _fetch(client: httpx.Client, url: str, path: Path, announced: str) -> DownloadedFile:
    content = client.get(url).raise_for_status().content
    digest = hashlib.sha256(content).hexdigest()
    if digest != announced.removeprefix("sha256:"):
        raise InfrastructureError(
            f"{path.name} was damaged on the way: its digest is {digest}, not {announced}"
        )
    path.write_bytes(content)
    return DownloadedFile(path, len(content), digest)
