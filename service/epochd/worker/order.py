"""What a worker hands to the process that runs an attempt. Plain data: it travels between processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from epochd.settings import Settings
from epochd.store.amendments import AmendmentRow
from epochd.store.curve import Recorded
from epochd.store.jobs import Claim


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the files of all jobs are."""

    artifacts: Path
    checkpoints: Path
    spool: Path
    datasets: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take them from the settings, absolute: processes may differ in their working directories."""
        return cls(
            artifacts=settings.artifacts_dir.resolve(),
            checkpoints=settings.checkpoints_dir.resolve(),
            spool=(settings.data_dir / "spool").resolve(),
            datasets=settings.datasets_dir.resolve(),
        )


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """One attempt: which job, on which device, and where to record it.

    ``spec`` is what training began with, ``amendments`` what was asked for since; ``plan`` is as amended. Of what
    earlier attempts left, ``recorded`` bounds what may be resumed from; those up to ``restarted_after`` do not count.
    ``cancel_keep`` is there when the attempt is only to bring out weights. A data set that takes more than
    ``data_memory_bytes`` is read from the disk while it is trained on.
    """

    database_url: str
    folders: Folders
    attempt_id: int
    attempt: int
    job_number: int
    job_id: str
    spec: dict[str, Any]
    plan: dict[str, Any]
    worker: str
    device: str
    threads: int
    lease_seconds: float
    log_level: str
    recorded: Recorded = field(default_factory=Recorded)
    restarted_after: int = 0
    amendments: tuple[AmendmentRow, ...] = ()
    cancel_keep: str | None = None
    data_memory_bytes: int = 2**63

    @classmethod
    def of(  # noqa: PLR0913 - each is one fact, all but the first by name
        cls,
        taken: Claim,
        *,
        database_url: str,
        folders: Folders,
        lease_seconds: float,
        threads: int = 1,
        log_level: str = "info",
        data_memory_bytes: int = 2**63,
    ) -> Self:
        """Make the order for a claimed attempt: worker and device are those that the claim wrote into the job."""
        job = taken.job
        assert job.worker is not None, "a claim names its worker"
        assert job.device is not None, "a claim names its device"
        return cls(
            database_url=database_url,
            folders=folders,
            attempt_id=taken.attempt_id,
            attempt=taken.attempt,
            job_number=job.number,
            job_id=job.id,
            spec=job.initial_spec or job.spec,
            plan=job.plan,
            worker=job.worker,
            device=job.device,
            threads=threads,
            lease_seconds=lease_seconds,
            log_level=log_level,
            recorded=taken.recorded,
            restarted_after=job.restarted_after,
            amendments=taken.amendments,
            cancel_keep=job.cancel_keep,
            data_memory_bytes=data_memory_bytes,
        )
