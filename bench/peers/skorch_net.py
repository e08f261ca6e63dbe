"""skorch, without its printed log; it keeps every loss by itself."""

from typing import Any

import torch
from skorch import NeuralNetClassifier
from torch import nn

from peers.workload import LEARNING_RATE, WEIGHT_DECAY, Run, Workload, clock


class Timed(NeuralNetClassifier):
    """The classifier, timed from the beginning of training to its end."""

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        super().on_train_begin(*arguments, **named)
        self.started = clock()

    def on_train_end(self, *arguments: Any, **named: Any) -> None:
        self.seconds = clock() - self.started
        super().on_train_end(*arguments, **named)


def train(workload: Workload, iterations: int) -> Run:
    net = Timed(
        workload.torch_model(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=WEIGHT_DECAY,
        lr=LEARNING_RATE,
        batch_size=workload.batch_size,
        max_epochs=workload.epochs(iterations),
        iterator_train__sampler=workload.order(iterations),
        train_split=None,
        verbose=0,
        callbacks__print_log=None,
    )
    net.fit(workload.samples.x, workload.samples.y)
    losses = [loss for epoch in net.history[:, "batches", :, "train_loss"] for loss in epoch]
    return Run(len(losses), net.seconds, losses)
