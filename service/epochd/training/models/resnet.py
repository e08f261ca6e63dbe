"""Residual networks for images (He et al., Deep Residual Learning for Image Recognition, 2016)."""

from collections.abc import Sequence

from torch import Tensor, nn


class ResNet(nn.Module):
    """Images (n, channels, height, width) to outputs (n, outputs).

    ``blocks`` are those of each of the four stages, of which each but the first halves height and width and has
    twice as many channels as the one before; the first has ``width``. With ``bottleneck`` a block is a 3×3
    convolution between two of 1×1, which give four times as many channels, else two of 3×3. A ``large_stem`` is the
    paper's 7×7 convolution of stride 2 with pooling; the other one, a 3×3 convolution, leaves small images their
    size (section 4.2 of the paper). The stride of a bottleneck is in its 3×3 convolution (Goyal et al., 2017).
    """

    def __init__(  # noqa: PLR0913 - what a description says, by name
        self,
        *,
        channels: int,
        blocks: Sequence[int],
        bottleneck: bool,
        width: int,
        large_stem: bool,
        dropout: float,
        outputs: int,
    ) -> None:
        super().__init__()
        self.stem = _stem(channels, width, large=large_stem)
        block = Bottleneck if bottleneck else BasicBlock
        stages, inputs = [], width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for number in range(count):
                stages.append(block(inputs, inner, stride=2 if stage and not number else 1))
                inputs = inner * block.EXPANSION
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(inputs, outputs)
        self.apply(_initialise)
        for made in stages:
            # Each block begins as the identity, which trains better (Goyal et al., 2017, section 5.1).
            nn.init.zeros_(made.residual[-1].get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """One output a class or target."""
        features = self.stages(self.stem(x))
        # A mean, not adaptive pooling, whose gradient is not repeatable on CUDA.
        outputs: Tensor = self.head(self.dropout(features.mean(dim=(2, 3))))
        return outputs


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the shortcut."""

    EXPANSION = 1

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, width, 3),
            nn.BatchNorm2d(width),
        )
        self.shortcut = _shortcut(inputs, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The features, added to what came in."""
        outputs: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return outputs


class Bottleneck(nn.Module):
    """A 3×3 convolution between two of 1×1, beside the shortcut."""

    EXPANSION = 4

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        outputs = width * self.EXPANSION
        self.residual = nn.Sequential(
            _convolution(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The features, added to what came in."""
        outputs: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return outputs


def _stem(channels: int, width: int, *, large: bool) -> nn.Sequential:
    if not large:
        return nn.Sequential(_convolution(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU())
    pooling = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(_convolution(channels, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(), pooling)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    # Batch normalisation follows, which takes any bias away again.
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def _initialise(module: nn.Module) -> None:
    """He et al., Delving Deep into Rectifiers, 2015, by the fan-out; other modules as torch does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
