"""The command line against a real service: the API on a free port, and a stand-in for its worker."""

from tests.api.conftest import app, server, settings, trainer  # noqa: F401 - fixtures
