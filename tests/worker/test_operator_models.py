"""What a worker makes of the packages that it finds; no package may harm it."""

import logging
import time

import pytest
from tests.packages import BUILD, WIDE, install

from epochd.store import models, workers
from epochd.worker.operator_models import discover

BAD = {
    "raises": "raise RuntimeError('no licence')",
    "exits": "import os; os._exit(3)",
    "leaves": "import sys; sys.exit('no')",
    "hangs": "import time; time.sleep(1000)",
    "has_no_build": "TASKS = ('regression',)",
    "has_a_parameter_called_name": f"{BUILD}\nPARAMETERS = {{'type': 'object', 'properties': {{'name': {{}}}}}}",
    "has_no_schema": f"{BUILD}\nPARAMETERS = {{'type': 'objekt'}}",
    "mlp": BUILD,
    "1st": BUILD,
}
REASONS = {
    "raises": "no licence",
    "exits": "code 3",
    "leaves": "code 1",
    "hangs": "longer than",
    "has_no_build": "no function build",
    "has_a_parameter_called_name": "the model's own",
    "has_no_schema": "has to be of the type",
    "mlp": "comes with epochd",
    "1st": "a letter first",
    "twice": "each of these packages",
}


@pytest.fixture
def packages(tmp_path, monkeypatch, executor):
    monkeypatch.syspath_prepend(str(tmp_path))
    executor.start()
    return tmp_path


def test_nothing_is_started_where_nothing_is_installed(packages):
    assert discover(None) == []


def test_good_packages_are_described_whatever_the_others_do(packages, executor, caplog):
    install(packages, WIDE, "good")
    for number, (name, code) in enumerate(BAD.items()):
        install(packages, code, name, package=f"bad-{number}")
    for number in range(2):
        install(packages, BUILD, "twice", package=f"twin-{number}")
    executor.wait_until_ready()
    with caplog.at_level(logging.INFO, "epochd.worker"):
        [good] = discover(executor._context, patience_seconds=2)
    assert good["name"] == "good"
    assert good["parameters"]["properties"]["width"]["default"] == 16
    told = {
        record.args[0]: record.getMessage() for record in caplog.records if record.levelno == logging.ERROR
    }
    assert set(told) == set(REASONS)
    for name, reason in REASONS.items():
        assert reason in told[name], told[name]


def test_a_worker_publishes_its_models_and_trains_them(
    packages, database, queue, start_worker, wait_until, wait_done
):
    install(packages, WIDE, "acme")
    start_worker()
    wait_until_published(database)
    with database.read() as tx:
        assert models.get(tx, "acme").description["package"]["version"] == "1.2.0"
        assert [row.models for row in workers.alive(tx)] == [["acme"]]
    row = wait_done(
        queue({"dataset": "iris", "epochs": 2, "batch_size": 16, "model": {"name": "acme", "width": 7}})
    )
    assert (row.status, row.error) == ("succeeded", None)


def wait_until_published(database):
    for _ in range(600):
        with database.read() as tx:
            if models.every(tx):
                return
        time.sleep(0.05)
    pytest.fail("the worker has published nothing")
