"""Asks torch, in a short-lived child, which devices there are."""

from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from epochd.errors import ConfigurationError


def probe(context: ForkServerContext, wanted: str) -> list[str]:
    """List the devices for ``wanted`` (``auto``, ``cuda``, ``cuda:0,cuda:1``), best first.

    Raises ``ConfigurationError`` when the machine does not have them.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender,), name="epochd-probe")
    process.start()
    sender.close()
    try:
        found: list[str] = receiver.recv()
    except EOFError:
        raise ConfigurationError("The GPUs could not be counted; start with `--device cpu`.") from None
    finally:
        process.join()
    return choose(found, wanted)


def choose(found: list[str], wanted: str) -> list[str]:
    """Pick from the CUDA devices ``found`` what ``wanted`` names."""
    if wanted == "auto":
        return found or ["cpu"]
    named = [name.strip() for name in wanted.split(",")]
    chosen = found if wanted == "cuda" else named
    missing = [name for name in chosen if name not in {*found, "cpu"}]
    if missing or not chosen:
        there = ", ".join(["cpu", *found])
        raise ConfigurationError(f"device {wanted!r} is not on this machine, which has: {there}.")
    return chosen


def _report(connection: Connection) -> None:
    import torch  # noqa: PLC0415 - in the child alone

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    connection.send([f"cuda:{index}" for index in range(count)])
    connection.close()
