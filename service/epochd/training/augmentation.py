"""Images of a mini-batch changed at random, on the device, by a seed: flips and crops of the padded image."""

import torch
from torch import Tensor
from torch.nn import functional

from epochd.training.config import AugmentationConfig
from epochd.training.device import mixed_seed


class Augmentation:
    """Changes mini-batches of images; what happens to one is a function of (seed, epoch, iteration) alone.

    A padded crop moves an image by up to ``crop_padding`` pixels up or down and left or right, each distance as likely
    as any other; 0, the mean of the images that training gets, fills what is uncovered. Then half of the images are
    mirrored, for each of the two directions that is asked for. The draws are made on the CPU, so that they are the
    same on every device, and depend on nothing that anybody else draws.
    """

    def __init__(self, config: AugmentationConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._generator = torch.Generator()

    def __call__(self, x: Tensor, epoch: int, iteration: int) -> Tensor:
        """A new mini-batch for ``x`` (n, channels, height, width), in its memory format; ``x`` stays as it is."""
        self._generator.manual_seed(mixed_seed("augmentation", self._seed, epoch, iteration))
        if x.stride(1) != 1:
            return self._changed(x, height=2, width=3)
        # Channels last: worked on as it lies in memory.
        return self._changed(x.permute(0, 2, 3, 1), height=1, width=2).permute(0, 3, 1, 2)

    def _changed(self, x: Tensor, *, height: int, width: int) -> Tensor:
        if self._config.crop_padding > 0:
            x = self._cropped(x, height, width)
        if self._config.horizontal_flip:
            x = self._flipped(x, width)
        if self._config.vertical_flip:
            x = self._flipped(x, height)
        return x

    def _flipped(self, x: Tensor, axis: int) -> Tensor:
        chosen = torch.randint(2, (len(x), 1, 1, 1), generator=self._generator, dtype=torch.bool)
        return torch.where(chosen.to(x.device), x.flip(axis), x)

    def _cropped(self, x: Tensor, height: int, width: int) -> Tensor:
        top, left = (self._starts(len(x), x.shape[axis]).to(x.device) for axis in (height, width))
        windows = self._padded(x, height).unfold(height, x.shape[height], 1).unfold(width, x.shape[width], 1)
        # The windows' places first; what is in a window in the order of x.
        inside = [{height: 4, width: 5}.get(axis, axis) for axis in (1, 2, 3)]
        images = torch.arange(len(x), device=x.device)
        return windows.permute(0, height, width, *inside)[images, top, left]

    def _starts(self, images: int, size: int) -> Tensor:
        """Where the window of each image begins in the padded one."""
        padding = self._config.crop_padding
        starts = torch.randint(-padding, padding + 1, (images,), generator=self._generator)
        return starts.clamp_(-size, size).add_(min(padding, size))

    def _padded(self, x: Tensor, height: int) -> Tensor:
        """The images with a margin, which is no wider than the image: a window beyond it would be as empty."""
        padding = self._config.crop_padding
        rows, columns = (min(padding, x.shape[axis]) for axis in (height, height + 1))
        channels = () if height == 2 else (0, 0)  # noqa: PLR2004 - they come last
        return functional.pad(x, (*channels, columns, columns, rows, rows))
