"""Self-attention between the tokens of a sample (Vaswani et al., Attention Is All You Need, 2017)."""

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head attention of tokens (n, tokens, width) to each other; ``width`` is a multiple of ``heads``.

    Written out rather than by torch's fused kernel: its gradient is then repeatable bit for bit on CUDA as well.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.queries_keys_values.weight, gain=1 / math.sqrt(2))
        nn.init.zeros_(self.queries_keys_values.bias)
        nn.init.xavier_uniform_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, x: Tensor, is_padding: Tensor | None = None) -> Tensor:
        """New tokens; none takes anything from those that ``is_padding``, bool (n, tokens), marks.

        Where all are padding, each takes from all: numbers without meaning, but finite.
        """
        count, tokens, width = x.shape
        split = self.queries_keys_values(x).view(count, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(width // self.heads)
        if is_padding is not None:
            scores = scores.masked_fill(is_padding[:, None, None, :], torch.finfo(scores.dtype).min)
        mixed = scores.softmax(dim=-1).to(values.dtype) @ values
        outputs: Tensor = self.outputs(mixed.transpose(1, 2).reshape(count, tokens, width))
        return outputs
