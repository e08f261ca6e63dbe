"""The clients against a real service: the API on a free port, and a stand-in that changes a job as a worker does."""

from tests.api.conftest import (  # noqa: F401 - fixtures
    Trainer,
    app,
    server,
    serving,
    settings,
    trainer,
)
