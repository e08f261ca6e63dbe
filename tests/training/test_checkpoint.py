import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from epochd.errors import CorruptCheckpointError, InfrastructureError
from epochd.training.checkpoint import MAGIC, CheckpointFolder, CheckpointHeader, Progress

STATE = {
    "version": 1,
    "values": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "empty": torch.empty(0),
    "randomness": torch.arange(8, dtype=torch.uint8),
    "nested": [{"momentum": torch.full((3,), math.nan)}, None, True, "text", 2**80, 0.1, math.inf],
}
NOTHING_RECORDED = Progress(attempt=1, origin=(0, 0), epoch=0, iteration=0)


def header(iteration: int, attempt: int = 1, **changes) -> CheckpointHeader:
    facts = CheckpointHeader(
        job_id="job_1",
        attempt=attempt,
        trained_by=attempt,
        epoch=iteration // 10,
        iteration=iteration,
        is_best=False,
        threads=1,
        fingerprint="f",
        saved_at="2026-01-31T09:00:00.123Z",
        reason="epoch",
        versions={"epochd": "0", "torch": "2"},
    )
    return dataclasses.replace(facts, **changes)


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints" / "job_1")


@pytest.fixture
def names(folder):
    """List what is found, newest first, as (attempt, iteration)."""
    return lambda: [(one.attempt, one.iteration) for one in folder.found()]


def save_all(folder: CheckpointFolder, *headers: CheckpointHeader) -> None:
    for one in headers:
        folder.save(one, STATE)


def assert_equal_states(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal_states(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_equal_states(*pair)
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
        assert first.dtype == second.dtype
    else:
        assert first == second


def test_what_is_saved_is_found_and_loaded(folder):
    saved = folder.save(header(120, 3, is_best=True, reason="pause"), STATE)
    assert saved.path == folder.root / "attempt-3" / "iteration-120.ckpt"
    assert saved.bytes == saved.path.stat().st_size
    (found,) = folder.found()
    assert found.header == saved.header == header(120, 3, is_best=True, reason="pause")
    assert (found.name, found.problem) == ("attempt-3/iteration-120.ckpt", None)
    assert_equal_states(folder.load(found), STATE)


def test_the_head_of_the_file_can_be_read_by_anybody(folder):
    path = folder.save(header(7), STATE).path
    magic, facts, _ = path.read_bytes().split(b"\n", 2)
    assert magic + b"\n" == MAGIC
    assert json.loads(facts) == dataclasses.asdict(header(7))


def test_larger_states_come_back_whole(folder):
    """Larger than every buffer between torch and the file."""
    state = {"a": torch.randn(3_000_001), "b": torch.randn(7)}
    folder.save(header(1), state)
    assert_equal_states(folder.load(folder.found()[0]), state)


def test_torch_checks_its_sums_again_afterwards(folder):
    folder.save(header(1), STATE)
    assert torch.serialization.get_crc32_options()


def test_newest_first_over_all_attempts(folder, names):
    save_all(folder, header(20), header(100), header(30, 2), header(20, 2), header(9, 10))
    assert names() == [(1, 100), (2, 30), (2, 20), (1, 20), (10, 9)]
    assert [one.attempt for one in folder.found(before_attempt=2)] == [1, 1]


def test_nothing_was_ever_saved(folder):
    assert folder.found() == []
    folder.prune(1, NOTHING_RECORDED)
    folder.remove()


def test_saving_again_replaces(folder):
    folder.save(header(10), {"a": 1})
    folder.save(header(10, reason="pause"), {"a": 2})
    (found,) = folder.found()
    assert found.header.reason == "pause"
    assert folder.load(found) == {"a": 2}


def test_other_files_are_no_checkpoints(folder, names):
    save_all(folder, header(10))
    for name in (
        "attempt-1/.iteration-20.ckpt.123.tmp",
        "attempt-1/iteration-x.ckpt",
        "iteration-5.ckpt",
        "attempt-2",
    ):
        (folder.root / name).write_bytes((folder.root / "attempt-1" / "iteration-10.ckpt").read_bytes())
    assert names() == [(1, 10)]


def assert_found_out(folder: CheckpointFolder, what: str) -> None:
    """Either the header cannot be read, and it says why, or the file is not loaded."""
    (found,) = folder.found()
    if found.header is None:
        assert found.problem, what
        return
    with pytest.raises(CorruptCheckpointError):
        pytest.fail(f"{what}: loaded as {folder.load(found)}")


def test_a_file_cut_anywhere_is_found_out(folder):
    path = folder.save(header(10), STATE).path
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert_found_out(folder, f"cut after {length} of {len(content)} bytes")
    path.write_bytes(content)
    assert_equal_states(folder.load(folder.found()[0]), STATE)


def test_any_byte_altered_is_found_out(folder):
    path = folder.save(header(10), STATE).path
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        content[position] ^= 1 << position % 8
        assert_found_out(folder, f"altered at {position} of {len(content)} bytes")
    path.write_bytes(content + b"\n")
    assert_found_out(folder, "one byte longer")
    path.write_bytes(content)
    assert_equal_states(folder.load(folder.found()[0]), STATE)


def test_a_checkpoint_in_the_wrong_place_is_not_used(folder):
    path = folder.save(header(10), STATE).path
    path.rename(path.with_name("iteration-20.ckpt"))
    (found,) = folder.found()
    assert (found.iteration, found.header) == (20, None)
    assert found.problem == "the header is that of another checkpoint"


def test_an_unreadable_file_is_listed_with_its_reason(folder):
    save_all(folder, header(10))
    (folder.root / "attempt-1" / "iteration-20.ckpt").mkdir()
    unreadable, readable = folder.found()
    assert unreadable.problem == "the file cannot be read: Is a directory"
    assert readable.header == header(10)


def test_a_file_that_has_gone_is_corrupt(folder):
    save_all(folder, header(10))
    (found,) = folder.found()
    found.path.unlink()
    with pytest.raises(CorruptCheckpointError, match="cannot be read: No such file") as caught:
        folder.load(found)
    assert str(folder.root) not in caught.value.message


def test_nothing_is_executed_by_loading(folder, tmp_path):
    """A file with the right digest, but with more than tensors and plain values in it."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    folder.save(header(10), {"trap": Trap()})
    with pytest.raises(CorruptCheckpointError, match="not one that this version reads"):
        folder.load(folder.found()[0])
    assert not (tmp_path / "executed").exists()


def recorded(iteration: int, *, attempt: int = 1, origin: tuple[int, int] = (0, 0)) -> Progress:
    return Progress(attempt=attempt, origin=origin, epoch=iteration // 10, iteration=iteration)


def test_the_newest_stay_and_the_best(folder, names):
    save_all(folder, header(10, is_best=True), header(20, is_best=True), header(30), header(40), header(50))
    folder.prune(2, recorded(50))
    assert names() == [(1, 50), (1, 40), (1, 20)]


def test_the_newest_recorded_stays_while_the_database_is_away(folder, names):
    save_all(folder, *(header(iteration) for iteration in (10, 20, 30, 40, 50)))
    folder.prune(1, recorded(35))
    assert names() == [(1, 50), (1, 30)]
    save_all(folder, header(60))
    folder.prune(1, recorded(35))
    assert names() == [(1, 60), (1, 30)]
    folder.prune(1, recorded(60))
    assert names() == [(1, 60)]


def test_an_iteration_whose_epoch_is_not_recorded_is_not_enough(folder, names):
    save_all(folder, header(15), header(20), header(30))
    folder.prune(1, Progress(attempt=1, origin=(0, 0), epoch=1, iteration=20))
    assert names() == [(1, 30), (1, 15)]


def test_where_the_attempt_began_stays_until_a_newer_one_is_recorded(folder, names):
    save_all(folder, header(20), header(30), header(40, 2), header(50, 2))
    folder.prune(1, recorded(30, attempt=2, origin=(30, 1)))
    assert names() == [(2, 50), (1, 30)]
    folder.prune(1, recorded(50, attempt=2, origin=(30, 1)))
    assert names() == [(2, 50)]


def test_what_was_not_trained_through_protects_nothing(folder, names):
    """Attempt 2 could not read the newer ones of attempt 1 and trained iterations 21 … again."""
    save_all(folder, header(20), header(110), header(30, 2))
    progress = recorded(20, attempt=2, origin=(20, 1))
    folder.prune(1, progress)
    assert names() == [(1, 110), (2, 30), (1, 20)], (
        "nothing of its own is recorded: the old curve still stands"
    )
    folder.prune(1, dataclasses.replace(progress, epoch=12, iteration=120))
    assert names() == [(2, 30)]


def test_a_damaged_one_at_the_very_iteration_protects_nothing(folder, names):
    """Attempt 3 began at iteration 20 with attempt 1's checkpoint, because that of attempt 2 was damaged."""
    save_all(folder, header(20), header(20, 2), header(30, 3))
    folder.prune(1, recorded(20, attempt=3, origin=(20, 1)))
    assert (1, 20) in names()


def test_an_attempt_touches_nothing_of_a_later_one(folder, names):
    """It was suspended, lost its lease, and woke up: its successor's checkpoints are not its business."""
    save_all(folder, header(100), header(50, 2), header(60, 2), header(110))
    folder.prune(1, recorded(110))
    assert names() == [(1, 110), (2, 60), (2, 50)]


def test_unreadable_ones_do_not_count(folder, names):
    save_all(folder, header(10), header(20), header(30))
    (folder.root / "attempt-1" / "iteration-30.ckpt").write_bytes(b"torn")
    folder.prune(2, recorded(30))
    assert (1, 20) in names()
    assert (1, 10) in names()


def test_what_killed_attempts_left_half_written_is_discarded(folder):
    save_all(folder, header(10), header(20, 2))
    for attempt in (1, 2):
        (folder.root / f"attempt-{attempt}" / ".iteration-30.ckpt.77.tmp").write_bytes(b"half")
    folder.discard_unfinished(before_attempt=2)
    left = sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*.*"))
    assert left == [
        "attempt-1/iteration-10.ckpt",
        "attempt-2/.iteration-30.ckpt.77.tmp",
        "attempt-2/iteration-20.ckpt",
    ]


def test_all_of_a_job_are_removed(folder):
    save_all(folder, header(10), header(20, 2))
    folder.remove()
    assert not folder.root.exists()
    assert folder.root.parent.exists()


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", PRELUDE + script, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import json, os, random, resource, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from epochd.errors import InfrastructureError
from epochd.training.checkpoint import CheckpointFolder, CheckpointHeader, Progress
folder = CheckpointFolder(Path(sys.argv[1]))
HEADER = CheckpointHeader("job_1", 1, 1, 0, 1, False, 1, "f", "now", "epoch", {})
"""


def test_a_full_disk_is_named_and_changes_nothing(folder):
    """The limit on file sizes stands in for a full disk: the kernel refuses the write in the same place."""
    saved = folder.save(header(10), STATE)
    script = """
state = {"a": torch.randn(50_000)}
size = folder.save(replace(HEADER, iteration=11), state).bytes
for limit in (0, 10, 500, 5_000, size // 2, size - 33, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        folder.save(replace(HEADER, iteration=12), state)
    except InfrastructureError as error:
        print(error.code)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
folder.save(replace(HEADER, iteration=13), state)
"""
    assert run(script, folder.root).split() == ["disk_full"] * 7
    assert sorted(path.name for path in saved.path.parent.iterdir()) == [
        "iteration-10.ckpt",
        "iteration-11.ckpt",
        "iteration-13.ckpt",
    ]
    for found in folder.found():
        folder.load(found)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users reach; pytest closes its own to them."""
    with tempfile.TemporaryDirectory(prefix="epochd-checkpoints-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_written_is_named(public_folder):
    """Run by root, the test becomes another user, whom the folder does not admit."""
    root = public_folder / "job_1"
    root.mkdir()
    root.chmod(0o555)
    script = """
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    folder.save(HEADER, {"a": torch.ones(3)})
except InfrastructureError as error:
    print(error.code, error.message)
"""
    code, message = run(script, root).strip().split(" ", 1)
    assert code == "data_dir_not_writable"
    assert message == "The worker could not write a checkpoint into its data directory: Permission denied."
    assert list(root.iterdir()) == []


def test_a_file_in_the_way_is_named(folder):
    folder.root.parent.mkdir(parents=True)
    folder.root.write_text("in the way")
    with pytest.raises(InfrastructureError, match="Not a directory") as caught:
        folder.save(header(10), STATE)
    assert caught.value.code == "data_dir_not_writable"


def test_killed_while_writing_at_any_moment(folder):
    """Whatever a killed process leaves can be loaded, and what it had reported as saved is there."""
    script = """
def write_until_killed(attempt, report):
    state = {"a": torch.full((400_000,), float(attempt))}
    for iteration in range(1, 10_000):
        header = replace(HEADER, attempt=attempt, trained_by=attempt, iteration=iteration)
        folder.save(header, state)
        os.write(report, b"%d " % iteration)
        folder.prune(2, Progress(attempt, (0, 0), 0, iteration - 1))

torch.set_num_threads(1)
moments = random.Random(7)
unfinished = 0
for attempt in range(1, 31):
    reported, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        write_until_killed(attempt, report)
    os.close(report)
    first = os.read(reported, 65536)
    time.sleep(moments.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with open(reported, "rb") as rest:
        newest = max(map(int, (first + rest.read()).split()))
    unfinished += len(list(folder.root.glob("attempt-*/.*.tmp")))
    folder.discard_unfinished(before_attempt=attempt + 1)
    mine = [one for one in folder.found() if one.attempt == attempt]
    assert mine[0].iteration in (newest, newest + 1), (newest, mine)
    for one in mine:
        assert one.header is not None, one
        assert folder.load(one)["a"].eq(attempt).all()
    assert not list(folder.root.glob("attempt-*/.*.tmp"))
print(unfinished)
"""
    assert int(run(script, folder.root)) > 0, "no kill came during a write: the moments are badly chosen"
