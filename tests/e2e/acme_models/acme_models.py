"""A perceptron whose hidden units are gated (Dauphin et al., 2017)."""

import math
from itertools import pairwise

from pydantic import BaseModel, Field
from torch import nn

KINDS = ("table", "image")


class Parameters(BaseModel):
    width: int = Field(64, ge=1, le=4096)
    depth: int = Field(2, ge=1, le=32)


def build(data, parameters):
    widths = [math.prod(data.input_shape), *[parameters.width] * parameters.depth]
    hidden = [nn.Sequential(nn.Linear(a, 2 * b), nn.GLU()) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], data.outputs))
