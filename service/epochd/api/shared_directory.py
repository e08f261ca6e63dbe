"""Where several API processes keep what they measure: a directory that ends with the ``serve`` it belongs to.

It lies below the data directory, which others may use as well: the services of other machines, or of this one. Each
holds a lock on its own as long as it lives, and takes away what it finds without.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

log = logging.getLogger("epochd.api")

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads this variable when it is imported."""
OF_OTHERS: Final = (VARIABLE, VARIABLE.lower())
_LOCK: Final = "lock"


def leave_others_alone() -> None:
    """Forget a directory that the surrounding environment names: it is somebody else's."""
    for name in OF_OTHERS:
        os.environ.pop(name, None)


@contextmanager
def shared_directory(data_dir: Path) -> Iterator[Path]:
    """Make such a directory, for as long as the block lasts; those that nobody uses any more are removed."""
    parent = data_dir / ".metrics"
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with (parent / _LOCK).open("w") as begins:
            _lock(begins, fcntl.LOCK_EX)  # nobody takes a directory away before it is locked
            _remove_stale(parent)
            directory = Path(tempfile.mkdtemp(dir=parent))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            _lock(stack.enter_context((directory / _LOCK).open("w")))
        yield directory


def _lock(file: IO[str], how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> bool:
    """Lock a file; False when somebody else has, or when there are no locks on such a file system."""
    try:
        fcntl.flock(file, how)
    except OSError:
        return False
    return True


def _remove_stale(parent: Path) -> None:
    for directory in [path for path in parent.iterdir() if path.is_dir()]:
        if _is_stale(directory):
            log.debug("removing %s, which nobody uses any more", directory)
            shutil.rmtree(directory, ignore_errors=True)


def _is_stale(directory: Path) -> bool:
    try:
        with (directory / _LOCK).open("w") as file:
            return _lock(file)
    except OSError:  # it is gone, or somebody else's
        return False
