"""Data sets: bring them, list and show them, remove them."""

import hashlib
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParam
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from epochd.api import dataset_examples, dataset_view, upload
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, SettingsDep
from epochd.api.errors import problem
from epochd.api.intake import ClientGoneError, Intake, IntakeDep
from epochd.api.params import get_idempotency_key
from epochd.api.requests import FORM, UNSUPPORTED, Nothing, check_media_type
from epochd.api.responses import describe
from epochd.contract.datasets import Dataset, DatasetFields, DatasetList, DatasetReference
from epochd.datasets import catalogue
from epochd.datasets.reading import Limits, Options
from epochd.errors import InvalidRequestError, ParamError
from epochd.intake import sources
from epochd.intake.child import Read
from epochd.intake.incoming import Incoming
from epochd.intake.order import Order, Reference, Upload
from epochd.jobs import datasets
from epochd.jobs.use import ID_PREFIX
from epochd.settings import Settings
from epochd.store import datasets as rows
from epochd.store.database import Database

router = APIRouter(route_class=GuardedRoute, tags=["datasets"])

_GONE: Final = 499
_TIMEOUT: Final = 408
KeyDep = Annotated[str | None, Depends(get_idempotency_key)]
DatasetKey = Annotated[
    str, PathParam(description="The id or the name of a data set.", examples=["iris"], max_length=200)
]


class ListQuery(BaseModel, extra="forbid"):
    """The query of the list of data sets."""

    limit: Annotated[int, Field(ge=1, le=200, description="Data sets a page.")] = 50
    after: Annotated[
        str | None, Field(max_length=64, description="The `next` of the page before.", examples=["42"])
    ] = None


@router.post(
    "/datasets",
    operation_id="create_dataset",
    summary="Bring a data set",
    status_code=201,
    response_model=Dataset,
    responses=describe(
        dataset_examples.CREATED, 401, 408, 413, 415, 422, 503, 507, conflicts=("dataset_name_taken",)
    ),
    openapi_extra={"requestBody": dataset_examples.REQUEST_BODY},
)
async def create_dataset(
    request: Request,
    db: DatabaseDep,
    settings: SettingsDep,
    intake: IntakeDep,
    idempotency_key: KeyDep,
    _query: Nothing,
) -> Any:
    """Upload a file as a form, or name where it is; it is read and checked before this answers."""
    try:
        async with intake.folder() as folder:
            arriving = _Arriving(request, db, settings, intake, folder)
            found = await arriving.arrive(idempotency_key)
    except (ClientDisconnect, ClientGoneError):
        return Response(status_code=_GONE)  # nobody reads it
    except upload.UploadStalledError as error:
        return problem(_TIMEOUT, error.code, error.message, headers={"Connection": "close"})
    body = dataset_view.whole(found.row).model_dump_json()
    headers = {"Location": f"/v1/datasets/{found.row.id}"}
    return Response(body, 201 if found.created else 200, headers, "application/json")


@router.get(
    "/datasets",
    operation_id="list_datasets",
    summary="List data sets, newest first",
    responses=describe(dataset_examples.LISTED, 401, 422, 503),
)
def list_datasets(query: Annotated[ListQuery, Query()], db: DatabaseDep) -> DatasetList:
    """A page of data sets; the built-in ones are the last."""
    built_in = [name for name in catalogue.names() if name != catalogue.SYNTHETIC]
    if query.after in built_in:
        return _built_in_page([], built_in[built_in.index(query.after) + 1 :], query.limit)
    with db.read() as tx:
        found, following = rows.page(tx, limit=query.limit, after=query.after)
    shown = [dataset_view.summary(row) for row in found]
    if following is not None:
        return DatasetList(data=shown, next=following)
    page = _built_in_page(shown, built_in, query.limit - len(found))
    # A full page of others, and nothing of these yet: the next one begins with them.
    return page if len(found) < query.limit else DatasetList(data=shown, next=str(found[-1].number))


def _built_in_page(before: list[Any], names: list[str], room: int) -> DatasetList:
    taken = names[:room]
    following = taken[-1] if taken and len(names) > room else None
    return DatasetList(data=[*before, *map(dataset_view.built_in_summary, taken)], next=following)


@router.get(
    "/datasets/{dataset}",
    operation_id="get_dataset",
    summary="Show a data set",
    responses=describe(dataset_examples.SHOWN, 401, 404, 422, 503),
)
def get_dataset(dataset: DatasetKey, db: DatabaseDep, _query: Nothing) -> Dataset:
    """All that is known of a data set: columns, classes, a preview and what was inferred."""
    if dataset in catalogue.names() and dataset != catalogue.SYNTHETIC:
        return dataset_view.built_in(dataset)
    with db.read() as tx:
        row = rows.get(tx, dataset.replace("\0", ""))
    return dataset_view.whole(row)


@router.delete(
    "/datasets/{dataset}",
    operation_id="delete_dataset",
    summary="Remove a data set",
    status_code=204,
    response_class=Response,
    responses=describe(
        {204: {"description": "The data set is gone. Jobs that trained on it stay as they are."}},
        401,
        404,
        422,
        503,
        conflicts=("dataset_in_use", "dataset_built_in"),
    ),
)
def delete_dataset(dataset: DatasetKey, db: DatabaseDep, intake: IntakeDep, _query: Nothing) -> Response:
    """Remove a data set that no job needs which is not done."""
    datasets.delete(db, intake.directory, dataset.replace("\0", ""))
    return Response(status_code=204)


class _Arriving:
    """One request that brings a data set."""

    def __init__(
        self, request: Request, db: Database, settings: Settings, intake: Intake, folder: Incoming
    ) -> None:
        self._request, self._db, self._settings = request, db, settings
        self._intake, self._folder = intake, folder

    async def arrive(self, key: str | None) -> datasets.Registered:
        if self._request.headers.get("content-type", "").lower().startswith(FORM):
            return await self._upload(key)
        return await self._fetch(key)

    async def _upload(self, key: str | None) -> datasets.Registered:
        path, most = self._folder.file, self._settings.max_upload_bytes
        came = await upload.receive(self._request, path, most, self._intake.threads)
        name = _name(came.fields, came.file_name)
        digest = _request_digest(came.fields, came.sha256, came.file_name)
        source = Upload(path, came.file_name)
        return await self._bring(name, source, came.fields, key, digest, {"sha256": came.sha256})

    async def _fetch(self, key: str | None) -> datasets.Registered:
        if not self._request.headers.get("content-type", "").lower().startswith("application/json"):
            got = self._request.headers.get("content-type", "none")
            raise HTTPException(
                UNSUPPORTED,
                "The body must be a form with a file, 'Content-Type: multipart/form-data', or JSON that says where "
                f"the file is, 'Content-Type: application/json'; got {got}.",
            )
        check_media_type(self._request)
        given = upload.validated(DatasetReference, await self._request.json())
        address = sources.accepted(given.url, self._settings.accepted_sources)
        name = _name(given, address.name)
        digest = _request_digest(given, given.url, "")
        return await self._bring(
            name, Reference(given.url), given, key, digest, {"url": sources.shown(address)}
        )

    async def _bring(  # noqa: PLR0913, PLR0917 - each is one fact
        self,
        name: str,
        source: Upload | Reference,
        fields: DatasetFields,
        key: str | None,
        digest: str,
        told: dict[str, str],
    ) -> datasets.Registered:
        before = await run_in_threadpool(datasets.check_new, self._db, name, key, digest)
        if before is not None:
            return before
        read = await self._intake.read(self._request, self._order(name, source, fields), self._folder.lock)
        origin = {"format": read.format, "file": read.file_name, "bytes": read.file_bytes, **told}
        arrived = _arrived(name, self._folder, read, origin, key, digest)
        return await self._intake.register(self._db, arrived)

    def _order(self, name: str, source: Upload | Reference, fields: DatasetFields) -> Order:
        sizes = fields.image_size
        return Order(
            source,
            Options(
                name,
                target=tuple(fields.target) if fields.target else None,
                features=tuple(fields.features) if fields.features else None,
                task=fields.task,
                header=fields.header,
                image_size=(sizes[0], sizes[1]) if sizes else None,
                format=fields.format,
            ),
            Limits(unpacked_bytes=self._settings.max_unpacked_bytes),
            self._folder.path,
            self._settings.accepted_sources,
            self._settings.max_upload_bytes,
            self._intake.memory_bytes,
        )


def _arrived(  # noqa: PLR0913, PLR0917 - each is one fact
    name: str, folder: Incoming, read: Read, source: dict[str, Any], key: str | None, digest: str
) -> datasets.Arrived:
    return datasets.Arrived(
        name=name,
        folder=folder.path / "data",
        digest=read.digest,
        bytes=read.bytes,
        info=read.info,
        source=source,
        preview=read.preview,
        notes=read.notes,
        idempotency_key=key,
        request_digest=digest,
    )


def _name(fields: DatasetFields, file_name: str) -> str:
    if fields.name is not None and fields.name.startswith(ID_PREFIX):
        message = f"must not begin with {ID_PREFIX!r}, as ids do"
        raise InvalidRequestError.of(ParamError("name", message, "invalid_format"))
    if fields.name is not None:
        return fields.name
    stem = file_name.partition(".")[0][:200]
    try:
        return str(upload.validated(DatasetFields, {"name": stem}).name)
    except InvalidRequestError:
        message = f"is required: the file's name, {file_name[:80]!r}, gives none"
        raise InvalidRequestError.of(ParamError("name", message, "required")) from None


def _request_digest(fields: DatasetFields, content: str, file_name: str) -> str:
    sent = [fields.model_dump(mode="json", exclude_unset=True), content, file_name]
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()
