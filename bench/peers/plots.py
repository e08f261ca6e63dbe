"""Other ways to plot the loss of a long training: a row an iteration in SQL, and MLflow with its SQLite store."""

import logging
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy import text

from epochd.store.database import Database

Reader = Callable[[], Any]
LOGGED_AT_ONCE = 1000
"""What one call of MLflow's log_batch takes at most."""
BUCKETS = 499

_EXTREMES = """
SELECT iteration, train_loss FROM (
    SELECT iteration, train_loss,
        row_number() OVER (PARTITION BY (iteration - 1) / :width ORDER BY train_loss, iteration) AS low,
        row_number() OVER (PARTITION BY (iteration - 1) / :width ORDER BY train_loss DESC, iteration) AS high
    FROM points
) AS ranked WHERE low = 1 OR high = 1 ORDER BY iteration
"""


def rows(db: Database, loss: npt.NDArray[np.float32]) -> dict[str, Reader]:
    """Keep a row an iteration, and reduce them to at most 1000 points in SQL or in numpy."""
    values = [{"iteration": n, "loss": value} for n, value in enumerate(loss.tolist(), start=1)]
    with db.write() as tx:
        tx.execute(text("CREATE TABLE points (iteration BIGINT PRIMARY KEY, train_loss REAL)"))
        tx.execute(text("INSERT INTO points VALUES (:iteration, :loss)"), values)
    width = -(-len(loss) // BUCKETS)
    return {
        "rows, reduced in SQL": lambda: _in_sql(db, width),
        "rows, in numpy": lambda: _in_numpy(db, width),
    }


def _in_sql(db: Database, width: int) -> bytes:
    with db.read() as tx:
        found = tx.execute(text(_EXTREMES), {"width": width}).all()
    return orjson.dumps({"iteration": [row[0] for row in found], "train_loss": [row[1] for row in found]})


def _in_numpy(db: Database, width: int) -> bytes:
    with db.read() as tx:
        found = tx.execute(text("SELECT iteration, train_loss FROM points ORDER BY iteration")).all()
    loss = np.array([row[1] for row in found], np.float32)
    kept = set()
    for begin in range(0, len(loss), width):
        inside = loss[begin : begin + width]
        kept |= {begin + int(inside.argmin()), begin + int(inside.argmax())}
    places = np.array(sorted(kept))
    columns = {"iteration": places + 1, "train_loss": loss[places]}
    return orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)


def mlflow(directory: Path, loss: npt.NDArray[np.float32]) -> dict[str, Reader]:
    """Log a run to MLflow's SQLite store; nothing when it is not installed."""
    if find_spec("mlflow") is None:
        return {}
    metric: Any = import_module("mlflow.entities").Metric  # takes seconds, and may be missing
    sql_store: Any = import_module("mlflow.store.tracking.sqlalchemy_store").SqlAlchemyStore
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    store = sql_store(f"sqlite:///{directory}/mlflow.db", str(directory / "artifacts"))
    run = store.create_run("0", "bench", 0, [], "bench").info.run_id
    for begin in range(0, len(loss), LOGGED_AT_ONCE):
        part = enumerate(loss[begin : begin + LOGGED_AT_ONCE].tolist(), start=begin + 1)
        store.log_batch(run, [metric("train_loss", value, step, step) for step, value in part], [], [])
    return {
        "MLflow, whole history": lambda: store.get_metric_history(run, "train_loss"),
        "MLflow, 1000 sampled": lambda: store.get_metric_history_bulk_interval(
            [run], "train_loss", 1000, None, None
        ),
    }
