"""Where the service is, and how to sign in."""

import os
from typing import Any, Final

from epochd.errors import ConfigurationError

DEFAULT_URL: Final = "http://127.0.0.1:8000"


def options(url: str | None, key: str | None) -> dict[str, Any]:
    """What an httpx client is made with.

    Raises ConfigurationError for an address that is none.
    """
    address = (url or os.environ.get("EPOCHD_URL") or DEFAULT_URL).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"{address!r} is no address of a service; send one such as {DEFAULT_URL}")
    secret = key or os.environ.get("EPOCHD_KEY")
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return {"base_url": address, "headers": headers}
