"""ReLU and other elementwise functions: `p ↦ f′ p, q ↦ f′ q, f″(p, q) = f″ p q`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hnas.metrics.order import same_shape
from hnas.metrics.recorder import Recorder, handles, named, register
from hnas.metrics.tape import Cotangent, Replay, TangentRule, Tangents, Tape
from hnas.spaces.dag.forward import again


@dataclass
class ReluRule(TangentRule):
    """The rule of a ReLU with output `y`: it passes a tangent wherever it passed its input.

    It may keep y itself, because autograd refuses to differentiate a ReLU whose output was changed.
    """

    y: Tensor

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        """Multiply the tangents by `f′`, which is 1 where y is positive, else 0."""
        passed = torch.ops.aten.threshold_backward
        return (Tangents(*(None if tangent is None else passed(tangent, self.y, 0) for tangent in read[0])),)


@dataclass
class EntrywiseRule(TangentRule):
    """The rule of `y = f(x)`, elementwise, with f′ and f″ from autograd, which must differentiate f twice.

    `version` is that of x when f read it, since autograd itself may need only y and not notice a change of x.
    """

    function: Callable[..., Tensor]
    x: Tensor
    version: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cotangent: Cotangent = field(default_factory=Cotangent)

    def prepare(self, readers: Sequence[TangentRule], *, returned: bool) -> str | None:
        """Want `∂L/∂y`. Refuse if x has changed since, because f must be differentiated at the original x."""
        self.cotangent.wanted = True
        return None if self.x._version == self.version else "a value that was changed"

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        (p, q) = read[0]
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(x, *self.args, **self.kwargs).sum(), x, create_graph=True)
            second = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else None
        slope = slope.detach()
        if second is not None and p is not None and q is not None and self.cotangent.value is not None:
            replay.add(self.cotangent.value * second * p * q)
        return (Tangents(None if p is None else slope * p, None if q is None else slope * q),)


def _relu(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> TangentRule:
    return ReluRule(result.detach())


def _entrywise(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> TangentRule | None:
    if not args or args[0] not in tape or result is args[0]:  # an in-place call destroys the x to differentiate at
        return None
    rule = EntrywiseRule(function, args[0].detach(), args[0]._version, args[1:], kwargs)
    result.register_hook(rule.cotangent.keep)  # type: ignore[no-untyped-call]
    return rule


register(named("relu relu_"), _relu, same_shape)
register(
    named(
        "tanh sigmoid gelu silu mish elu celu selu softplus softsign leaky_relu relu6 hardtanh hardswish logsigmoid "
        "tanhshrink exp log sqrt rsqrt square abs sin cos erf reciprocal"
    ),
    _entrywise,
    same_shape,
)
register(named("relu relu_ relu6 leaky_relu leaky_relu_ prelu"), rectifies=True)


@handles(named("hardtanh hardtanh_"))
def rectified_below(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run a hard tanh. With the lower bound 0 it is a ReLU: `nn.ReLU6` calls it with the bounds 0 and 6."""
    result = recorder.plain(func, args, kwargs)
    if kwargs.get("min_val", args[1] if len(args) > 1 else -1) == 0:
        recorder.collector.rectified(recorder.order, result)
    return result


@handles({again})
def rectified_again(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the same ReLU output, counted once more for another layer that reads it."""
    recorder.collector.rectified(recorder.order, args[0])
    return args[0]


# These have no tangent rule yet.
register(
    named("clamp clamp_ hardtanh_ leaky_relu_ elu_ threshold prelu pow")
    | named("group_norm layer_norm instance_norm local_response_norm"),
    keeps_order=same_shape,
)
