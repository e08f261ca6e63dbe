"""The Trainer of Hugging Face's transformers, with everything off that can be."""

import tempfile
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from peers.workload import EngineOrder, Run, Workload, adamw, clock


class Samples(Dataset[dict[str, Tensor]]):
    """The samples by the names of the model's arguments."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self._x[index], "labels": self._y[index]}


class WithLoss(nn.Module):
    """The model, which gives its loss and keeps it at each iteration."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.CrossEntropyLoss()
        self.losses: list[float] = []

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.model(x)
        loss: Tensor = self.loss(outputs, labels)
        self.losses.append(loss.item())
        return {"loss": loss, "logits": outputs}


class InEngineOrder(Trainer):
    """The Trainer, with the engine's order of samples."""

    order: EngineOrder

    def _get_train_sampler(self, *_: Any) -> EngineOrder:
        return self.order


class Timer(TrainerCallback):
    """Seconds from the beginning of training to its end."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = clock() - self.started


def train(workload: Workload, iterations: int) -> Run:
    model, timer = WithLoss(workload.torch_model()), Timer()
    optimizer = adamw(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = InEngineOrder(
            model,
            _arguments(folder, workload.batch_size, iterations),
            train_dataset=Samples(*workload.tensors()),
            optimizers=(optimizer, ConstantLR(optimizer, factor=1.0)),
            callbacks=[timer],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.order = workload.order(iterations)
        trainer.train()
    return Run(len(model.losses), timer.seconds, model.losses)


def _arguments(folder: str, batch_size: int, iterations: int) -> TrainingArguments:
    return TrainingArguments(
        folder,
        max_steps=iterations,
        per_device_train_batch_size=batch_size,
        max_grad_norm=0.0,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
