"""Finds the operator's models that are installed here, each looked at in a child of its own.

What a package does when it is imported, crash, hang or end the process, never reaches the worker.
"""

import logging
import re
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, Final

from epochd.contract.models import BUILTIN_MODELS, OPERATOR_MODEL
from epochd.contract.storable import require_storable
from epochd.jobs.parameter_schema import require_usable
from epochd.training import operator_package

log = logging.getLogger("epochd.worker")

PATIENCE_SECONDS: Final = 120.0
"""For the import of a package, which may load much."""


def discover(context: ForkServerContext, patience_seconds: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
    """Describe each usable model as ``OperatorPackage.describe`` does, by name.

    The log tells of the others, and why they cannot be used.
    """
    found = []
    for name, packages in operator_package.provided().items():
        described = _unusable_name(name, packages) or _look(context, name, patience_seconds)
        source = " and ".join(packages)
        if isinstance(described, str):
            log.error("the model %r of %s cannot be used: %s", name, source, described)
        else:
            log.info("the model %r of %s can be trained", name, source)
            found.append(described)
    return found


def _unusable_name(name: str, packages: Sequence[str]) -> str | None:
    if not re.fullmatch(OPERATOR_MODEL, name):
        return "its name has to be up to 100 letters, digits, dots, dashes and underscores, a letter first"
    if name in BUILTIN_MODELS:
        return "a model that comes with epochd has this name; take another"
    if len(packages) > 1:
        return "each of these packages has a model of this name; install one of them, or rename one"
    return None


def _look(context: ForkServerContext, name: str, patience_seconds: float) -> dict[str, Any] | str:
    """Describe one model in a child; what is wrong with it where it cannot be."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(name, sender), name=f"epochd-model-{name}", daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(patience_seconds):
            return f"its import took longer than {patience_seconds:g} s"
        described: dict[str, Any] | str = receiver.recv()
    except EOFError:
        process.join()
        return f"its import ended the process with code {process.exitcode}"
    finally:
        # Whatever threads or children the package has started end here; SIGTERM is ignored by this server's children.
        process.kill()
        process.join()
        receiver.close()
    return described


def _report(name: str, connection: Connection) -> None:
    connection.send(describe(name))
    connection.close()


def describe(name: str) -> dict[str, Any] | str:
    """Import a model's package, and describe it; or say what is wrong."""
    try:
        described = operator_package.load(name).describe()
        require_usable(described["parameters"])
        require_storable(described)
    except ValueError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's code
        return traceback.format_exc()
    return described
