"""A transformer for mixed tables (Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, 2021)."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from epochd.training.models.attention import SelfAttention


class FtTransformer(nn.Module):
    """Rows (n, numbers + columns of codes) to outputs (n, outputs): each column is a token (section 3.3).

    The first ``numbers`` columns are numbers; of the others, column i has the codes 0, 1, …, ``categories[i]`` - 1.
    One more token, the same for each row at first, gathers what the head reads.
    """

    def __init__(  # noqa: PLR0913 - what a description says, by name
        self,
        *,
        numbers: int,
        categories: Sequence[int],
        blocks: int,
        width: int,
        heads: int,
        dropout: float,
        outputs: int,
    ) -> None:
        super().__init__()
        self.tokens = _Tokens(numbers, categories, width)
        # The paper leaves out the first normalisation: a pre-norm transformer trains better so.
        self.blocks = nn.ModuleList(
            _Block(width, heads, dropout, is_first=number == 0) for number in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """One output a class or target."""
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        outputs: Tensor = self.head(tokens[:, 0])
        return outputs


class _Tokens(nn.Module):
    """The feature tokenizer: number j is a direction times x[j], a code a direction of its own, each with a bias."""

    codes_before: Tensor

    def __init__(self, numbers: int, categories: Sequence[int], width: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.gathering = nn.Parameter(torch.empty(1, width))
        self.directions = nn.Parameter(torch.empty(numbers, width)) if numbers else None
        self.embedding = nn.Embedding(sum(categories), width) if categories else None
        self.biases = nn.Parameter(torch.empty(numbers + len(categories), width))
        before = list(itertools.accumulate(categories, initial=0))[:-1]
        self.register_buffer("codes_before", torch.tensor(before, dtype=torch.int64), persistent=False)
        for parameter in self.parameters():
            # Uniform between ± 1 / √width, as the paper's.
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """Rows (n, columns) as tokens (n, 1 + columns, width), the gathering one first."""
        features = []
        if self.directions is not None:
            features.append(x[:, : self.numbers, None] * self.directions)
        if self.embedding is not None:
            features.append(self.embedding(x[:, self.numbers :].long() + self.codes_before))
        # Not len(x), which an export takes for a constant.
        gathering = self.gathering.expand(x.shape[0], 1, -1)
        return torch.cat([gathering, torch.cat(features, dim=1) + self.biases], dim=1)


class _Block(nn.Module):
    """Attention, then a gated perceptron on each token, each added to what came in and normalised before."""

    def __init__(self, width: int, heads: int, dropout: float, *, is_first: bool) -> None:
        super().__init__()
        self.attention_norm = nn.Identity() if is_first else nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), _Reglu(width, dropout))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """New tokens (n, tokens, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        outputs: Tensor = x + self.perceptron(x)
        return outputs


class _Reglu(nn.Module):
    """Linear(a · ReLU(b)) of two linear layers a and b (Shazeer, 2020); 4/3 as many hidden units as ``width``."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        hidden = max(1, width * 4 // 3)
        self.inputs = nn.Linear(width, 2 * hidden)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.outputs = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as ``x``."""
        value, gate = self.inputs(x).chunk(2, dim=-1)
        outputs: Tensor = self.outputs(self.dropout(value * gate.relu()))
        return outputs
