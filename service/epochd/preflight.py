"""What must hold before a process starts; each failure is one line that says what would be right."""

import ipaddress
import logging
import resource
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from epochd.errors import ConfigurationError
from epochd.jobs import directory
from epochd.settings import LOOPBACK_HOSTS, Settings
from epochd.store.database import Database, parse_url, safe_url
from epochd.store.migrate import head, upgrade

log = logging.getLogger("epochd")

OPEN_FILES = 65_536


def bind(host: str, port: int, backlog: int) -> socket.socket:
    """Take the address, so that nothing else is begun when it is not to be had; port 0 is a free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named asyncio switches Nagle's algorithm off; left at 0 it costs 40 ms an answer.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        hint = "; --port 0 takes a free one" if not isinstance(error, socket.gaierror) else ""
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}{hint}") from None
    return listener


def allow_many_connections() -> None:
    """Raise the limit on open files to ``OPEN_FILES``, or as far as it goes: each reader of a stream is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit on open files stays at %d: %s", soft, error)


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory; raises ConfigurationError when nothing can be written there."""
    _prepare(settings.data_dir, f"the data directory {settings.data_dir}", "--data-dir")


def prepare_mirrors(settings: Settings) -> None:
    """Make TensorBoard's directory; raises ConfigurationError for what no mirror could be kept in."""
    directory, server = settings.mirror_tensorboard, settings.mirror_mlflow
    if directory is not None:
        _prepare(directory, f"TensorBoard's directory {directory}", "--mirror-tensorboard")
    try:
        is_address = server is None or (urlsplit(server).hostname and urlsplit(server).port != 0)
    except ValueError:
        is_address = False
    if not is_address:  # not quoted: it may hold a password
        raise ConfigurationError(
            "the MLflow server's address cannot be read; a password is percent-encoded in it; see --mirror-mlflow"
        )


def _prepare(directory: Path, where: str, flag: str) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigurationError(f"cannot write to {where}: {error.strerror}; see {flag}") from None


def migrate(settings: Settings) -> str:
    """Bring the database to this version's schema and say where it is now, without its password."""
    upgrade(settings.resolved_database_url)
    return f"{safe_url(parse_url(settings.resolved_database_url))} at revision {head()}"


def claim_artifacts(settings: Settings) -> None:
    """Let the workers know which directory of artifacts is read here."""
    db = Database(settings.resolved_database_url)
    try:
        directory.claim(db, settings.artifacts_dir.resolve())
    finally:
        db.close()


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
