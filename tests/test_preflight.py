"""What is made sure of before a process starts."""

import resource
import subprocess
import sys

import pytest
from pydantic import ValidationError

from epochd.errors import ConfigurationError
from epochd.preflight import allow_many_connections, prepare_mirrors
from epochd.settings import Settings

SCRIPT = """
import resource
from epochd.preflight import OPEN_FILES, allow_many_connections
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
allow_many_connections()
allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
allow_many_connections()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
print(allowed)
"""


def test_the_limit_on_open_files_is_raised_as_far_as_allowed():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 256


@pytest.mark.parametrize(
    "error", [ValueError("not allowed to raise maximum limit"), OSError(1, "not permitted")]
)
def test_a_limit_that_cannot_be_raised_is_told_and_lived_with(monkeypatch, caplog, error):
    def refuse(*_arguments):
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_many_connections()
    assert "the limit on open files stays at 256" in caplog.text


def test_a_stream_is_never_silent_for_as_long_as_its_readers_wait():
    assert Settings(heartbeat_seconds=30).heartbeat_seconds == 30
    with pytest.raises(ValidationError, match="heartbeat_seconds"):
        Settings(heartbeat_seconds=31)


def test_a_mirror_that_cannot_be_is_told_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"TensorBoard's directory .*--mirror-tensorboard"):
        prepare_mirrors(Settings(mirror_tensorboard=tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        prepare_mirrors(Settings(mirror_mlflow="http://user:sec/ret@mlflow"))
    assert "sec" not in caught.value.message
    prepare_mirrors(Settings(mirror_tensorboard=tmp_path / "new", mirror_mlflow="http://u:p@mlflow:5000"))
    assert (tmp_path / "new").is_dir()
