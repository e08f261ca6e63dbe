"""What a worker hands to the process that runs an attempt. Plain data: it travels between processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from epochd.store.jobs import Claim


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """One attempt: which job, on which device, and where to record it."""

    database_url: str
    artifacts_dir: Path
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

    @classmethod
    def of(  # noqa: PLR0913 - each is one fact, all but the first by name
        cls,
        taken: Claim,
        *,
        database_url: str,
        artifacts_dir: Path,
        lease_seconds: float,
        threads: int = 1,
        log_level: str = "info",
    ) -> Self:
        """Make the order for a claimed attempt: worker and device are those that the claim wrote into the job."""
        job = taken.job
        assert job.worker is not None, "a claim names its worker"
        assert job.device is not None, "a claim names its device"
        return cls(
            database_url=database_url,
            artifacts_dir=artifacts_dir,
            attempt_id=taken.attempt_id,
            attempt=taken.attempt,
            job_number=job.number,
            job_id=job.id,
            spec=job.spec,
            plan=job.plan,
            worker=job.worker,
            device=job.device,
            threads=threads,
            lease_seconds=lease_seconds,
            log_level=log_level,
        )
