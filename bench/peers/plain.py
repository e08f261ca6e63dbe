"""PyTorch without a framework: the loop of the tutorials, and the least that a training step takes."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from peers.workload import Run, Workload, adamw, clock


def textbook(workload: Workload, iterations: int) -> Run:
    """A ``DataLoader``, ``zero_grad``, ``backward``, ``step`` and ``loss.item()``."""
    model, loss_function, losses = workload.torch_model(), nn.CrossEntropyLoss(), []
    optimizer = adamw(model)
    dataset, order = TensorDataset(*workload.tensors()), workload.order(iterations)
    loader = DataLoader(dataset, batch_size=workload.batch_size, sampler=order)
    started = clock()
    for _ in range(workload.epochs(iterations)):
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return Run(len(losses), clock() - started, losses)


def bare(workload: Workload, iterations: int) -> Run:
    """Forward, backward and update on one fixed mini-batch, in eager PyTorch at its best; nothing else.

    At its best: the fused optimizer, and images channels-last.
    """
    model, loss_function = workload.torch_model(), nn.CrossEntropyLoss()
    x, y = (tensor[: workload.batch_size] for tensor in workload.tensors())
    if x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = adamw(model, fused=True)
    started = clock()
    for _ in range(iterations):
        optimizer.zero_grad()
        loss_function(model(x), y).backward()
        optimizer.step()
    return Run(iterations, clock() - started, [])
