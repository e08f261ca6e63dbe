import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from epochd.training import iteration_log
from epochd.training.augmentation import Augmentation
from epochd.training.config import AugmentationConfig, DataShape, ModelConfig, TrainingConfig
from epochd.training.events import EpochCompleted, IterationsCompleted
from epochd.training.trainer import Trainer

ALL = AugmentationConfig(horizontal_flip=True, vertical_flip=True, crop_padding=2)
IMAGE = ModelConfig("cnn", DataShape("image", (3, 8, 8), 3), {"channels": (4, 8), "hidden_size": 8})
CONFIG = TrainingConfig("classification", IMAGE, epochs=3, batch_size=16, seed=5)


def numbered(images: int, channels: int = 3, height: int = 5, width: int = 4) -> torch.Tensor:
    """Images whose pixels all differ, and from 0."""
    count = images * channels * height * width
    return torch.arange(1, count + 1, dtype=torch.float32).reshape(images, channels, height, width)


def augmentation(seed: int = 0, **how) -> Augmentation:
    return Augmentation(AugmentationConfig(**how), seed)


@pytest.mark.parametrize(("how", "axis"), [({"horizontal_flip": True}, 3), ({"vertical_flip": True}, 2)])
def test_half_of_the_images_are_mirrored(how, axis):
    x = numbered(400)
    changed = augmentation(**how)(x, 1, 1)
    mirrored = (changed == x.flip(axis)).flatten(1).all(1)
    kept = (changed == x).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 150 < mirrored.sum() < 250


def test_both_directions_are_mirrored_independently():
    x = numbered(400)
    changed = augmentation(horizontal_flip=True, vertical_flip=True)(x, 1, 1)
    for axes in ((), (2,), (3,), (2, 3)):
        expected = x.flip(axes) if axes else x
        assert 60 < (changed == expected).flatten(1).all(1).sum() < 140


def moved(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """An image moved by so many pixels, pixel by pixel."""
    _, height, width = x.shape
    result = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = x[:, row - down, column - right]
    return result


@pytest.mark.parametrize("padding", [1, 2, 7])
def test_every_crop_is_as_likely_and_filled_with_the_mean(padding):
    x = numbered(1).expand(3000, -1, -1, -1)
    changed = augmentation(crop_padding=padding)(x, 1, 1)
    distances = range(-padding, padding + 1)
    expected: dict[bytes, int] = {}
    for down in distances:
        for right in distances:
            key = moved(x[0], down, right).numpy().tobytes()
            expected[key] = expected.get(key, 0) + 1
    found: dict[bytes, int] = {}
    for image in changed:
        key = image.numpy().tobytes()
        found[key] = found.get(key, 0) + 1
    assert found.keys() <= expected.keys()
    for key, ways in expected.items():
        likely = 3000 * ways / (2 * padding + 1) ** 2
        assert abs(found.get(key, 0) - likely) < 6 * math.sqrt(likely)


def test_it_is_a_function_of_seed_epoch_and_iteration():
    x, one = numbered(32), Augmentation(ALL, 7)
    expected = one(x, 2, 9)
    state = torch.get_rng_state()
    one(x, 3, 1)
    torch.manual_seed(3)
    assert torch.equal(Augmentation(ALL, 7)(x, 2, 9), expected)
    assert torch.equal(one(x, 2, 9), expected)
    for other in (Augmentation(ALL, 8)(x, 2, 9), one(x, 3, 9), one(x, 2, 10)):
        assert not torch.equal(other, expected)
    torch.set_rng_state(state)
    one(x, 1, 1)
    assert torch.equal(torch.get_rng_state(), state)  # dropout's numbers stay what they are


@pytest.mark.parametrize("channels", [1, 3])
def test_both_memory_formats_give_the_same_images_and_are_kept(channels):
    x = numbered(16, channels)
    last = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    before = x.clone()
    one, other = Augmentation(ALL, 0)(x, 1, 1), Augmentation(ALL, 0)(last, 1, 1)
    assert torch.equal(one, other)
    assert (one.stride(), other.stride()) == (x.stride(), last.stride())
    assert torch.equal(x, before)
    assert torch.equal(last, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_changes_images_as_the_cpu_does():
    x = numbered(64)
    assert torch.equal(Augmentation(ALL, 0)(x.cuda(), 1, 1).cpu(), Augmentation(ALL, 0)(x, 1, 1))


# In a training


def losses(trainer: Trainer) -> bytes:
    return b"".join(
        event.train_loss.tobytes() for event in trainer.run() if isinstance(event, IterationsCompleted)
    )


def test_training_sees_other_images_every_epoch_and_validation_those_it_has(images):
    plain, augmented = (Trainer(replace(CONFIG, augmentation=how), images) for how in (None, ALL))
    assert augmented.evaluate() == plain.evaluate()
    assert losses(augmented) != losses(plain)
    model, validation = augmented.model.eval(), images.validation
    logits = model(torch.from_numpy(validation.x))
    accuracy = (logits.argmax(1).numpy() == validation.y).mean()
    assert augmented.evaluate()["validation_accuracy"] == pytest.approx(accuracy)
    # With frozen weights nothing but the images differs between the epochs.
    frozen = replace(CONFIG.optimizer, name="sgd", learning_rate=1e-30)
    trainer = Trainer(replace(CONFIG, augmentation=ALL, optimizer=frozen), images)
    epochs = [event.metrics for event in trainer.run() if isinstance(event, EpochCompleted)]
    assert len({epoch["train_loss"] for epoch in epochs}) == 3
    assert len({epoch["validation_loss"] for epoch in epochs}) == 1


def test_resumed_from_every_event_the_images_are_changed_alike(images, monkeypatch):
    config = replace(CONFIG, augmentation=ALL)
    twin = Trainer(config, images)
    expected = losses(twin)
    monkeypatch.setattr(iteration_log, "FETCH_SECONDS", 0.0)
    trainer, found, done = Trainer(config, images), b"", False
    while not done:
        resumed = Trainer(config, images)
        resumed.load_state_dict(trainer.state_dict())
        trainer = resumed
        with closing(trainer.run()) as events:
            event = next(events, None)
        found += event.train_loss.tobytes() if isinstance(event, IterationsCompleted) else b""
        done = trainer.stop_reason is not None and not isinstance(event, IterationsCompleted | EpochCompleted)
    assert found == expected
    for name, tensor in twin.model.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[name])


def test_another_augmentation_is_another_training(images):
    state = Trainer(replace(CONFIG, augmentation=ALL), images).state_dict()
    with pytest.raises(ValueError, match=r"augmentation\.crop_padding is 2 there and 1 here"):
        Trainer(replace(CONFIG, augmentation=replace(ALL, crop_padding=1)), images).load_state_dict(state)
    with pytest.raises(ValueError, match="augmentation"):
        Trainer(CONFIG, images).load_state_dict(state)


def test_only_images_are_changed(make_config, classification):
    with pytest.raises(ValueError, match="these samples are of the kind table"):
        Trainer(make_config(augmentation=ALL), classification)


def test_images_of_one_pixel_can_be_moved_away():
    x = np.ones((50, 1, 1, 1), dtype=np.float32)
    changed = augmentation(crop_padding=1)(torch.from_numpy(x), 1, 1)
    assert 0 < changed.sum() < 25
