"""The hard sigmoid, `min(max(x / 6 + 1/2, 0), 1)`, with the second derivative that torch's own lacks.

Torch raises an error where `F.hardsigmoid` is differentiated twice, even though its second derivative is zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.order import same_shape
from hnas.metrics.recorder import register, replace
from hnas.metrics.tape import Replay, TangentRule, Tangents, Tape


def hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """Replaces `torch.nn.functional.hardsigmoid`: same arguments, same values up to rounding of 1/6 to float32."""
    result = F.relu6(input + 3) / 6
    return input.copy_(result) if inplace else result


replace({F.hardsigmoid}, hard_sigmoid)


@dataclass
class HardSigmoidRule(TangentRule):
    """The rule of a hard sigmoid: `f′` is 1/6 at `rising` entries, else 0, and `f″` is zero."""

    rising: Tensor

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        return (Tangents(*(None if tangent is None else tangent * self.rising / 6 for tangent in read[0])),)


def _rule(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> TangentRule:
    # From the result, because a call in place overwrites x; and now, because the network may change the result.
    y = result.detach()
    return HardSigmoidRule((y > 0) & (y < 1))


register({hard_sigmoid}, _rule, same_shape)
