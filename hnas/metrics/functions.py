"""Torch's functions by what they do, under every name that a network may call them by."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.joins import cat
from hnas.metrics.pooling import average_pool


def named(names: str) -> set[Any]:
    """The functions of these names: methods of a tensor, functions of `torch`, and of `torch.nn.functional`."""
    owners = (torch, Tensor, F)
    return {getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)}


SUMS = named("add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __isub__")
PRODUCTS = named("mul mul_ __mul__ __rmul__ __imul__")
QUOTIENTS = named("div div_ __truediv__ __itruediv__")
JOINS = named("cat concat stack") | {cat}
AVERAGE_POOLS = {average_pool} | named(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d"
)
MAX_POOLS: dict[Any, int] = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3}
RELUS = named("relu relu_")
#: Functions of each entry by itself.
ENTRYWISE = named(
    "tanh sigmoid gelu silu mish elu celu selu softplus softsign leaky_relu relu6 hardtanh hardswish hardsigmoid "
    "logsigmoid tanhshrink exp log sqrt rsqrt square abs sin cos erf reciprocal"
)
CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
