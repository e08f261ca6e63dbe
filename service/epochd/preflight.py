"""What must hold before a process starts; each failure is one line that says what would be right."""

import ipaddress
import socket
import tempfile

from epochd.errors import ConfigurationError
from epochd.settings import LOOPBACK_HOSTS, Settings
from epochd.store.database import parse_url, safe_url
from epochd.store.migrate import head, upgrade

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Take the address, so that nothing else is begun when it is not to be had; port 0 is a free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named asyncio switches Nagle's algorithm off; left at 0 it costs 40 ms an answer.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        hint = "; --port 0 takes a free one" if not isinstance(error, socket.gaierror) else ""
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}{hint}") from None
    return listener


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory; raises ConfigurationError when nothing can be written there."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
    except OSError as error:
        where = f"the data directory {settings.data_dir}"
        raise ConfigurationError(f"cannot write to {where}: {error.strerror}; see --data-dir") from None


def migrate(settings: Settings) -> str:
    """Bring the database to this version's schema and say where it is now, without its password."""
    upgrade(settings.resolved_database_url)
    return f"{safe_url(parse_url(settings.resolved_database_url))} at revision {head()}"


def refuse_open_door(settings: Settings) -> None:
    """Raise ConfigurationError when others could reach the service and nobody would ask who they are."""
    if settings.insecure or settings.accepted_api_keys or is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"refusing to listen on {settings.host} without authentication, as anybody there could start jobs; "
        "set EPOCHD_API_KEYS, or say --insecure if that is meant"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; a name that is not `localhost` counts as reachable."""
    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
