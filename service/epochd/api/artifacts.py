"""The files that a job left: what there is, and the files themselves, whole or in ranges."""

import base64
import os
import re
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from epochd.api import conditional, examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep, SettingsDep
from epochd.api.errors import problem
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.job import Artifact, ArtifactList
from epochd.errors import NotFoundError
from epochd.store import artifacts, jobs
from epochd.store.artifacts import ArtifactRow

router = APIRouter(route_class=GuardedRoute, tags=["artifacts"])

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_RANGES: Final = re.compile(
    r"bytes=\s*(\d{1,18}-\d{0,18}|-\d{1,18})(\s*,\s*(\d{1,18}-\d{0,18}|-\d{1,18}))*\s*", re.IGNORECASE
)

_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_HEADERS: Final = {
    "ETag": {"description": "The SHA-256 digest, quoted.", "schema": {"type": "string"}},
    "Repr-Digest": {
        "description": "The SHA-256 digest of the whole file (RFC 9530).",
        "schema": {"type": "string"},
        "example": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    },
    "Content-Disposition": {"description": "The name to save it under.", "schema": {"type": "string"}},
}


@router.get(
    "/jobs/{job_id}/artifacts",
    operation_id="list_artifacts",
    summary="List the files that a job left",
    responses=describe(
        {200: {"content": {"application/json": {"example": examples.ARTIFACTS}}}}, 401, 404, 422, 503
    ),
)
def list_artifacts(job_id: JobIdDep, db: DatabaseDep, _query: Nothing) -> ArtifactList:
    """Name, size and digest of each file; empty until the job is done."""
    with db.read() as tx:
        rows = artifacts.of_job(tx, jobs.get(tx, job_id).number)
    return ArtifactList(data=[_show(row) for row in rows])


def _show(row: ArtifactRow) -> Artifact:
    return Artifact(
        name=row.name,
        media_type=row.media_type,
        bytes=row.bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )


@router.get(
    "/jobs/{job_id}/artifacts/{name}",
    operation_id="get_artifact",
    summary="Download a file that a job left",
    response_class=Response,
    responses=describe(
        {
            200: {"description": "The file.", "headers": _HEADERS, "content": _BINARY},
            206: {
                "description": "The parts that `Range` asked for.",
                "headers": _HEADERS,
                "content": _BINARY,
            },
            304: {"description": "`If-None-Match` names the file's `ETag`: the caller has it already."},
        },
        401,
        404,
        416,
        422,
        503,
    ),
)
@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
def get_artifact(
    request: Request,
    job_id: JobIdDep,
    name: Annotated[str, PathParam(description="The artifact's `name`.", examples=["model.safetensors"])],
    db: DatabaseDep,
    settings: SettingsDep,
    _query: Nothing,
) -> Any:
    """The file as it was written; `Range` requests resume a download."""
    if not _NAME.fullmatch(name):
        raise NotFoundError("The job has no artifact of such a name.", code="artifact_not_found")
    with db.read() as tx:
        row = artifacts.get(tx, jobs.get(tx, job_id).number, name)
    etag = f'"{row.sha256}"'
    headers = {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{_base64(row.sha256)}:",
        "X-Content-Type-Options": "nosniff",
    }
    if conditional.is_known(request, headers):
        return conditional.not_modified(headers)
    path = settings.artifacts_dir / row.path
    return RangedFile(
        path, headers=headers, media_type=row.media_type, filename=row.name, stat_result=_stat(path, name)
    )


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _stat(path: Path, name: str) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        message = f"{name} was recorded, but its file is gone from the data directory."
        raise NotFoundError(message, code="artifact_file_missing") from None


def _is_well_formed(asked: str) -> bool:
    return _RANGES.fullmatch(asked) is not None and all(
        not (start and end) or int(start) <= int(end) for start, end in _parse(asked)
    )


def _parse(asked: str) -> list[tuple[str, str]]:
    """Split ``bytes=0-9,-5`` into pairs of digits, either of which may be empty."""
    pairs = [part.strip().partition("-") for part in asked.partition("=")[2].split(",")]
    return [(start, end) for start, _, end in pairs]


class RangedFile(FileResponse):
    """A file that ignores a malformed ``Range`` (RFC 9110) and answers one out of bounds with a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the parts asked for."""
        asked = Headers(scope=scope).get("range")
        if asked is not None and not _is_well_formed(asked):
            kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
            await super().__call__({**scope, "headers": kept}, receive, send)
        elif asked is not None and not self._satisfies(asked, Headers(scope=scope).get("if-range")):
            await self._out_of_bounds()(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _satisfies(self, asked: str, if_range: str | None) -> bool:
        validators = (self.headers["etag"], self.headers["last-modified"])
        if if_range is not None and if_range not in validators:
            return True  # the file has changed since: the range does not count
        size = int(self.headers["content-length"])
        return all(int(start) < size if start else min(int(end), size) > 0 for start, end in _parse(asked))

    def _out_of_bounds(self) -> Response:
        size = self.headers["content-length"]
        return problem(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            f"The file has {size} bytes; ask for a range within them.",
            headers={"Content-Range": f"bytes */{size}"},
        )
