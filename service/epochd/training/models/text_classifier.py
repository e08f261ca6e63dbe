"""A transformer encoder over the words of a text (Vaswani et al., Attention Is All You Need, 2017)."""

import torch
from torch import Tensor, nn

from epochd.training.models.attention import SelfAttention

PADDING = 0
"""The number that fills up a text shorter than the others."""
EMBEDDING_DEVIATION = 0.02


class TextClassifier(nn.Module):
    """Word numbers, integers (n, words) with 0 as padding behind a text, to outputs (n, outputs).

    Words are embedded, with their positions; ``blocks`` of attention and perceptron follow, normalised before each
    (Xiong et al., 2020), and the head reads the mean of the words. Padding changes nothing: it is neither attended
    to nor in the mean. A text without words is the zero vector to the head.
    """

    def __init__(  # noqa: PLR0913 - what a description says, by name
        self,
        *,
        vocabulary: int,
        sequence_length: int,
        blocks: int,
        width: int,
        heads: int,
        dropout: float,
        outputs: int,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.positions = nn.Parameter(torch.empty(sequence_length, width))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        nn.init.normal_(self.words.weight, std=EMBEDDING_DEVIATION)
        nn.init.normal_(self.positions, std=EMBEDDING_DEVIATION)
        with torch.no_grad():
            self.words.weight[PADDING].zero_()

    def forward(self, x: Tensor) -> Tensor:
        """One output a class or target."""
        is_padding = x == PADDING
        tokens = self.dropout(self.words(x) + self.positions[: x.shape[1]])
        for block in self.blocks:
            tokens = block(tokens, is_padding)
        is_word = (~is_padding).to(tokens.dtype).unsqueeze(-1)
        mean = (self.norm(tokens) * is_word).sum(dim=1) / is_word.sum(dim=1).clamp(min=1)
        outputs: Tensor = self.head(mean)
        return outputs


class _Block(nn.Module):
    """Attention, then a perceptron on each token, each added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, is_padding: Tensor) -> Tensor:
        """New tokens (n, words, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), is_padding))
        outputs: Tensor = x + self.dropout(self.perceptron(x))
        return outputs
