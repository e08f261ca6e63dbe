"""Who may ask: callers with one of the configured API keys."""

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from epochd.api.deps import SettingsDep, get_settings
from epochd.api.requests import StrictRoute
from epochd.errors import UnauthorizedError

_bearer = HTTPBearer(
    scheme_name="api_key", description="An API key of the operator's `EPOCHD_API_KEYS`.", auto_error=False
)


async def authenticate(
    settings: SettingsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Let a caller in.

    Raises:
        UnauthorizedError: keys are configured, and the request carries none of them.

    """
    accepted = settings.accepted_api_keys
    if not accepted:
        return
    if credentials is None:
        raise UnauthorizedError("This service wants an API key: send 'Authorization: Bearer <key>'.")
    if not _is_accepted(credentials.credentials, accepted):
        raise UnauthorizedError("The API key is not one of those that this service accepts.")


class GuardedRoute(StrictRoute):
    """A route that asks for the key before it looks at anything else of a request, as a dependency cannot."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler of ``StrictRoute``."""
        handle = super().get_route_handler()

        async def handle_if_allowed(request: Request) -> Response:
            await let_in(request)
            return await handle(request)

        return handle_if_allowed


async def let_in(request: Request) -> None:
    """Do what ``authenticate`` does, outside FastAPI's dependencies."""
    await authenticate(await get_settings(request), await _bearer(request))


def _is_accepted(key: str, accepted: tuple[str, ...]) -> bool:
    # All are compared, whatever comes out: the time taken says nothing about any key.
    given = _digest(key)
    return any([hmac.compare_digest(given, _digest(one)) for one in accepted])  # noqa: C419 - no short cut


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
