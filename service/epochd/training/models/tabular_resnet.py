"""A residual network for tables (Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021)."""

from torch import Tensor, nn


class TabularResNet(nn.Module):
    """Rows (n, features) to outputs (n, outputs): a linear layer, ``blocks``, and a head.

    A block adds Linear(dropout(ReLU(Linear(batch_norm(x))))) to its input (section 3.2 of the paper); ``hidden`` is
    the number of units between the two. Initialised as torch does, like the paper's.
    """

    def __init__(  # noqa: PLR0913 - what a description says, by name
        self, *, features: int, blocks: int, width: int, hidden: int, dropout: float, outputs: int
    ) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.blocks = nn.Sequential(*[_Block(width, hidden, dropout) for _ in range(blocks)])
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """One output a class or target."""
        outputs: Tensor = self.head(self.blocks(self.first(x)))
        return outputs


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = x + self.residual(x)
        return outputs
