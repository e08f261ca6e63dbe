"""Lightning, with everything off that can be: no logger, no progress bar, no checkpoints."""

import logging
import warnings

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from peers.workload import Run, Workload, adamw, clock


class Module(lightning.LightningModule):
    """The model, its loss kept at each iteration."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.CrossEntropyLoss()
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        loss: Tensor = self.loss(self.model(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.model)

    def on_train_start(self) -> None:
        self.started = clock()

    def on_train_end(self) -> None:
        self.seconds = clock() - self.started


def train(workload: Workload, iterations: int) -> Run:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Module(workload.torch_model())
    dataset, order = TensorDataset(*workload.tensors()), workload.order(iterations)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=iterations,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings(action="ignore"):
        trainer.fit(module, DataLoader(dataset, batch_size=workload.batch_size, sampler=order))
    return Run(len(module.losses), module.seconds, module.losses)
