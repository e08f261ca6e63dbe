"""What every request must be before an endpoint sees it."""

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, Final, NoReturn, get_origin

from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from epochd.api.errors import problem_of
from epochd.api.validation import param_errors
from epochd.errors import InvalidRequestError, ParamError, PayloadTooLargeError

_BODY_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
FORM: Final = "multipart/form-data"
UPLOAD_PATH: Final = "/v1/datasets"
UNSUPPORTED: Final = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class NoQuery(BaseModel, extra="forbid"):
    """The query of an endpoint that takes no parameters."""


Nothing = Annotated[NoQuery, Query()]
"""The type of its parameter."""


class StrictRequest(Request):
    """A request whose JSON is RFC 8259's, with every key once, and nothing that a database cannot keep."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            InvalidRequestError: code ``malformed_json``.

        """
        return parse_json(await self.body())


class StrictRoute(APIRoute):
    """A route that checks the media type, and tells what is wrong with a request as the contract says."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        models = self._models()
        takes_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            if takes_body:
                check_media_type(request)
            check_repetitions(request, models.get("query"))
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except RequestValidationError as error:
                errors = param_errors(error.errors(), error.body, models)
                raise InvalidRequestError.of(*errors) from error

        return handle_strictly

    def _models(self) -> dict[str, type[BaseModel]]:
        places = {"query": self.dependant.query_params, "body": self.dependant.body_params}
        return {
            place: model
            for place, fields in places.items()
            for field in fields
            if (model := _model_of(field.field_info.annotation)) is not None
        }


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def check_repetitions(request: Request, model: type[BaseModel] | None) -> None:
    """Refuse a query that gives a parameter twice which has one value.

    Raises:
        InvalidRequestError: code ``repeated``.

    """
    fields = model.model_fields if model is not None else {}
    given = request.query_params
    repeated = [
        name
        for name in given
        if name in fields and len(given.getlist(name)) > 1 and not _is_list(fields[name])
    ]
    if repeated:
        raise InvalidRequestError.of(
            *(ParamError(name, "must be given once", "repeated") for name in repeated)
        )


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list


def check_media_type(request: Request) -> None:
    """Refuse a body that does not say that it is JSON in UTF-8.

    Raises:
        HTTPException: 415.

    """
    if not _has_body(request):
        return
    declared = request.headers.getlist("content-type")
    if len(declared) != 1 or not _is_json(declared[0]):
        got = ", ".join(declared) or "none"
        raise HTTPException(
            UNSUPPORTED, f"The body must be JSON in UTF-8, with 'Content-Type: application/json'; got {got}."
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(UNSUPPORTED, "The body must come without Content-Encoding.")


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    charset = str(message.get_param("charset", "utf-8")).lower()
    return message.get_content_type() == "application/json" and charset in {"utf-8", "utf8"}


def parse_json(raw: bytes) -> Any:
    """Parse one JSON text.

    Raises:
        InvalidRequestError: code ``malformed_json``, saying where and why.

    """
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        _check_text(value)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        _malformed(f"is not valid JSON: {error.msg[:1].lower()}{error.msg[1:]} at {place}")
    except UnicodeDecodeError:
        _malformed("is not UTF-8")
    except RecursionError:
        _malformed("is nested too deeply")
    except ValueError as error:
        # json's own: an integer of more digits than Python converts.
        reason = str(error) if isinstance(error, _JsonError) else "holds a number of too many digits"
        _malformed(reason)
    return value


class _JsonError(ValueError):
    """What JSON allows and this service does not."""


def _malformed(reason: str) -> NoReturn:
    message = f"the body {reason}"
    raise InvalidRequestError(message, (ParamError("", message, "malformed_json"),), code="malformed_json")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _JsonError(f"gives the key {json.dumps(twice)[:80]} twice in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise _JsonError(f"holds {name}, which is no JSON; numbers must be finite")


def _check_text(root: Any) -> None:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            _check_characters(value)
        elif isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _check_characters(text: str) -> None:
    # Postgres keeps no NUL in a text, and half of a surrogate pair is no character at all.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _JsonError(r"holds a string with \u0000 or half of a surrogate pair")


class BodyLimit:
    """ASGI middleware: refuses bodies larger than ``max_bytes``, counted as they come."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through; reading more than allowed of its body raises ``PayloadTooLargeError``."""
        if scope["type"] != "http" or not _may_have_body(scope) or _is_upload(scope):
            await self.app(scope, receive, send)
            return
        if _declared_bytes(scope) > self.max_bytes:
            await problem_of(self._error())(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> AsgiMessage:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._error()
            return message

        await self.app(scope, receive_counted, send)

    def _error(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"The body may have at most {self.max_bytes} bytes (EPOCHD_MAX_BODY_BYTES)."
        )


def _is_upload(scope: Scope) -> bool:
    # It has a limit of its own, and goes to the disk as it comes.
    is_form: bool = dict(scope["headers"]).get(b"content-type", b"").lower().startswith(FORM.encode())
    return is_form and (scope["method"], scope["path"]) == ("POST", UPLOAD_PATH)


def _may_have_body(scope: Scope) -> bool:
    # By HTTP/1.1 no other header announces one (RFC 9112, section 6.3).
    return any(name in _BODY_HEADERS for name, _ in scope["headers"])


def _declared_bytes(scope: Scope) -> int:
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0
