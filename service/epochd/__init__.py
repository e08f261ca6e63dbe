"""epochd trains models over HTTP and records every iteration and epoch."""

from typing import TYPE_CHECKING, Any

from epochd.contract.spec import JobSpec
from epochd.errors import EpochdError
from epochd.version import __version__

if TYPE_CHECKING:
    from epochd.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "EpochdError", "JobSpec", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the clients when they are asked for: the processes of the service need none."""
    if name in {"AsyncClient", "Client"}:
        from epochd import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
