import pytest

from epochd.errors import OutOfMemoryError
from epochd.training.config import DataShape, ModelConfig, OptimizerConfig, TrainingConfig
from epochd.worker.memory import require_memory, require_memory_for_checkpoint


def config(hidden_size, **changes):
    model = ModelConfig(
        "mlp", DataShape("table", (65_536,), 10), {"hidden_sizes": (hidden_size, hidden_size)}
    )
    return TrainingConfig("classification", model, epochs=1, batch_size=1, **changes)


@pytest.mark.parametrize("require", [require_memory, require_memory_for_checkpoint])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_what_exceeds_every_memory_is_refused_before_it_is_made(require, optimizer):
    require(config(1, optimizer=OptimizerConfig(optimizer)))
    with pytest.raises(OutOfMemoryError, match="GB are free"):
        require(config(10_000_000, optimizer=OptimizerConfig(optimizer)))


def test_memory_of_a_gpu_is_for_torch_to_ask_but_its_checkpoints_are_made_beside_it():
    huge = config(10_000_000, device="cuda")
    require_memory(huge)
    with pytest.raises(OutOfMemoryError):
        require_memory_for_checkpoint(huge)
