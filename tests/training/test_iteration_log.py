import math

import numpy as np
import torch

from epochd.training.iteration_log import BLOCK_ITERATIONS, IterationLog


def write(log: IterationLog, loss: float, norm: float = 1.0, samples: int = 4) -> bool:
    log.losses[log.position].fill_(loss)
    log.norms[log.position].fill_(norm)
    return log.add(0.5, samples)


def test_the_very_first_iteration_is_due_at_once():
    log = IterationLog(torch.device("cpu"))
    assert write(log, 3.0)
    block, samples = log.fetch(epoch=1, first_iteration=1)
    assert (block.epoch, block.first_iteration, block.last_iteration) == (1, 1, 1)
    assert samples == [4]


def test_a_block_holds_at_most_1024_iterations():
    log = IterationLog(torch.device("cpu"))
    write(log, 0.0)
    log.fetch(1, 1)
    for number in range(BLOCK_ITERATIONS):
        log.restart_clock()  # so that only the count makes it due
        assert write(log, float(number)) == (number == BLOCK_ITERATIONS - 1)
    block, _ = log.fetch(epoch=2, first_iteration=2)
    assert block.train_loss.tolist() == list(range(BLOCK_ITERATIONS))
    assert block.last_iteration == BLOCK_ITERATIONS + 1


def test_columns_are_float32_of_equal_length_and_outlive_the_next_block():
    log = IterationLog(torch.device("cpu"))
    write(log, 1.0, samples=2)
    write(log, 2.0, samples=1)
    first, samples = log.fetch(1, 1)
    assert samples == [2, 1]
    write(log, 9.0)
    log.fetch(1, 3)
    assert first.train_loss.tolist() == [1.0, 2.0]
    columns = (first.train_loss, first.learning_rate, first.gradient_norm, first.samples_per_second)
    assert {(column.dtype, column.shape) for column in columns} == {(np.dtype(np.float32), (2,))}
    assert (first.samples_per_second > 0).all()


def test_a_block_ends_with_the_first_loss_that_is_not_finite():
    for bad in (math.nan, math.inf):
        log = IterationLog(torch.device("cpu"))
        for loss in (1.0, bad, math.nan):
            write(log, loss)
        block, samples = log.fetch(1, 11)
        assert block.last_iteration == 12
        assert samples == [4, 4]
        assert not np.isfinite(block.train_loss[-1])


def test_a_gradient_norm_that_is_not_finite_is_nan():
    log = IterationLog(torch.device("cpu"))
    write(log, 1.0, norm=math.inf)
    write(log, 1.0, norm=math.nan)
    write(log, 1.0, norm=2.0)
    block, _ = log.fetch(1, 1)
    assert np.isnan(block.gradient_norm[:2]).all()
    assert block.gradient_norm[2] == 2.0


def test_rates_are_those_of_each_iteration():
    log = IterationLog(torch.device("cpu"))
    log.restart_clock()
    write(log, 1.0, samples=10)
    write(log, 1.0, samples=20)
    log._since, log._times = 100.0, [100.5, 102.5]
    block, _ = log.fetch(1, 1)
    assert block.samples_per_second.tolist() == [20.0, 10.0]
