"""``epochd export --to pt2|onnx``: the model of a job that is done as a file that runs without epochd."""

import os
from contextlib import closing
from pathlib import Path

from epochd.contract.spec import JobSpec
from epochd.datasets.preprocessing import Preprocessing
from epochd.errors import ConfigurationError, ExportError, NotFoundError
from epochd.jobs.source_job import SourceJob, find_source
from epochd.settings import Settings
from epochd.store.database import Database, parse_url
from epochd.store.migrate import check_current
from epochd.training import weights
from epochd.training.export import Format
from epochd.worker.dataset_files import opener
from epochd.worker.exporting import Exported, Exporter
from epochd.worker.prepare import prepare_data

FROM_DESCRIPTION = ("job", "attempt", "dataset", "versions")


def export_model(
    settings: Settings, job_id: str, kind: Format, output: Path, *, force: bool
) -> tuple[Path, Exported]:
    """Write ``<job>.pt2`` or ``<job>.onnx`` into ``output``, checked on the job's validation split like the others.

    Raises ConfigurationError for what is wrong with the place, NotFoundError for a job that is not there or kept no
    weights, ExportError, DataError when its data set is gone, and DatabaseUnavailableError.
    """
    path = output / f"{job_id}.{kind}"
    if path.exists() and not force:
        raise ConfigurationError(f"{path} is there already; --force replaces it")
    url = parse_url(settings.resolved_database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise ConfigurationError(f"there is no database {url.database}; see --data-dir and --database-url")
    with closing(Database(settings.resolved_database_url, archives=settings.artifacts_dir.resolve())) as db:
        check_current(db)
        exporter = _exporter(settings, db, job_id)
        return path, _write(exporter, kind, path)


def _exporter(settings: Settings, db: Database, job_id: str) -> Exporter:
    with db.read() as tx:
        source = find_source(tx, job_id)
    folder, spec = _weights(job_id, source)
    model, description = weights.load(folder)
    fitted = Preprocessing.from_dict(
        {"input_shape": description["input_shape"], **description["preprocessing"]}
    )
    data = prepare_data(
        spec,
        opener(db, settings.datasets_dir.resolve()),
        memory_bytes=0,  # the samples are read again, some at a time
        fitted=fitted,
    )
    return Exporter(model, data, {name: description[name] for name in FROM_DESCRIPTION})


def _weights(job_id: str, source: SourceJob | None) -> tuple[Path, JobSpec]:
    if source is None:
        raise NotFoundError(f"there is no job {job_id}", code="job_not_found")
    if source.folder is None:
        message = f"{job_id} is {source.row.status} and has no weights to export"
        raise NotFoundError(message, code="no_weights")
    return source.folder, JobSpec.model_validate(source.row.initial_spec or source.row.spec)


def _write(exporter: Exporter, kind: Format, path: Path) -> Exported:
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        exported = exporter.export(kind, partial)
        if exported.file is None:
            raise ExportError(str(exported.message), code=exported.code)
        exported.file.path.replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for left in (partial / f"model.{kind}", partial):
            _remove(left)
    return exported


def _remove(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def show(settings: Settings, job_id: str, kind: Format, output: Path, *, force: bool) -> list[str]:
    """Export, and say in lines for people what came of it. Raises what ``export_model`` does."""
    path, exported = export_model(settings, job_id, kind, output, force=force)
    check = exported.check
    assert check is not None, "what was written was checked"
    how = f"{check.largest_difference:.2g} of {check.tolerance:.2g} allowed"
    return [str(path), f"checked on {check.samples:,} {exported.split} samples: differs by {how}"]
