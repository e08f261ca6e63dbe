import numpy as np
import pytest
from sqlalchemy import select

from epochd.store.rows import ROWS_A_STATEMENT, dump, insert_many, upsert
from epochd.store.tables import epoch_metrics, iteration_blocks

MANY = 2 * ROWS_A_STATEMENT[0] + 2 * ROWS_A_STATEMENT[1] + 3
HARD = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2**53 + 2.0, 1e23, 8.41e21, 9.5367431640625e-07]
"""Floats whose digits a careless reader rounds to a neighbour."""
WORDS = {"monitor": 'a "quoted" \\ word, \x00, 100 % and ?', "nothing": None, "loss": 0.1}


def row_of(attempt_id, number, metrics=WORDS, rate=0.1):
    return (attempt_id, number, number * 10, dump(metrics), rate, 1.5, number % 2 == 0)


def stored(database):
    with database.read() as tx:
        return [tuple(row) for row in tx.execute(select(*epoch_metrics.c).order_by(epoch_metrics.c.epoch))]


@pytest.mark.parametrize("count", [0, 1, ROWS_A_STATEMENT[1], MANY])
def test_any_number_of_rows_is_inserted_once(database, running, count):
    rows = [row_of(running.attempt_id, n) for n in range(1, count + 1)]
    with database.write() as tx:
        insert_many(tx, epoch_metrics, rows)
    assert stored(database) == [(*row[:3], WORDS, *row[4:]) for row in rows]


def test_floats_are_kept_to_the_last_bit(database, running):
    random = np.random.default_rng(0).standard_normal(MANY).tolist()
    values = [*HARD, *random]
    rows = [row_of(running.attempt_id, n, {"loss": v}, v) for n, v in enumerate(values, 1)]
    with database.write() as tx:
        insert_many(tx, epoch_metrics, rows)
    assert [(row[3]["loss"], row[4]) for row in stored(database)] == [(v, v) for v in values]


def test_a_float_of_numpy_is_kept_as_any_other(database, running):
    value = np.float64(1 / 3)
    with database.write() as tx:
        insert_many(tx, epoch_metrics, [row_of(running.attempt_id, 1, {"loss": value}, value)])
    [row] = stored(database)
    assert (row[3], row[4]) == ({"loss": 1 / 3}, 1 / 3)


def test_rows_whose_key_is_taken_are_replaced_when_asked_for(database, running):
    old = [row_of(running.attempt_id, n) for n in range(1, 31)]
    new = [row_of(running.attempt_id, n, {}, 7.0) for n in range(20, 61)]
    with database.write() as tx:
        insert_many(tx, epoch_metrics, old)
        insert_many(tx, epoch_metrics, new, overwrite=True)
    assert [(row[1], row[4]) for row in stored(database)] == [
        (n, 0.1 if n < 20 else 7.0) for n in range(1, 61)
    ]


def test_an_upsert_of_other_columns_is_another_statement(database, running):
    texts = dict.fromkeys(("train_loss", "learning_rate", "gradient_norm", "samples_per_second"), "[1]")
    whole = {"attempt_id": running.attempt_id, "block": 0, "first_iteration": 1, "iterations": 1}
    whole |= {"iterations_per_epoch": 5, **texts}
    with database.write() as tx:
        upsert(tx, iteration_blocks, [whole])
        upsert(tx, iteration_blocks, [{**whole, "iterations": 2}])
    with database.read() as tx:
        [found] = tx.execute(select(iteration_blocks.c.iterations)).scalars()
    assert found == 2
