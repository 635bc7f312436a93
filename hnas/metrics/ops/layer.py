"""The common part of convolutions and linear maps: the node in the autograd graph and the tangent rule.

    y = W x + b        p ↦ W p + W x,   q ↦ W q + G x,   f″(p, q) = W q + G p

with the gradient G of the weight W. In the backward pass, the node does what the current pass asks
(`hnas.metrics.passes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.layers import Call, Layer, LayerMap
from hnas.metrics.layout import inner
from hnas.metrics.passes import Passes
from hnas.metrics.recorder import Recorder, enclosing_function, name_of
from hnas.metrics.tape import ZERO, Cotangent, Replay, TangentRule, Tangents


class NormalisesRule(TangentRule):
    """The rule of an operation that is invariant to the scale of its input, up to a small ε."""


@dataclass
class LayerRule(TangentRule):
    """The rule of one call of a layer on x.

    If only a `NormalisesRule` reads the output, and `y − W x` is constant in each of its channels (`shifts_channels`),
    `p` omits its term W x and f″ its term W q. Through that rule these terms contribute `−⟨∂L/∂y, G x⟩`, which is
    −‖G‖² if the weight is used `once`, so terms that cancel are never computed. `mixed` is then left to that rule,
    which knows the cotangent of y.
    """

    layer: Layer
    x: Tensor
    map: LayerMap
    shifts_channels: bool
    cotangent: Cotangent = field(default_factory=Cotangent)
    once: bool = True
    normalised: bool = False
    mixed: Tensor | None = None

    def prepare(self, readers: Sequence[TangentRule], *, returned: bool) -> str | None:
        """Want `∂L/∂y`, unless the layer is normalised."""
        self.once = self.layer.calls == 1
        alone = not returned and len(readers) == 1 and isinstance(readers[0], NormalisesRule)
        self.normalised = alone and self.shifts_channels
        self.cotangent.wanted = not self.normalised
        return None

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        p, q = read[0] if read else ZERO  # the images have no tangents
        gradient, weight = replay.gradients[self.layer.name], self.layer.weight.detach()
        scaled = None if p is None else self.map.apply(p, weight)
        moved = None if q is None else self.map.apply(q, weight)
        mixed = None if p is None or gradient is None else self.map.apply(p, gradient)
        pulled = None if gradient is None else self.map.apply(self.x, gradient)
        if not self.normalised:
            mixed = _sum(mixed, moved)
            if mixed is not None and self.cotangent.value is not None:
                replay.add(inner(self.cotangent.value, mixed))
            scaled = _sum(scaled, self.map.apply(self.x, weight))
        elif gradient is not None and self.once:
            replay.add(-gradient.double().square())
            self.mixed = mixed
        else:
            self.mixed = _sum(mixed, pulled, -1)
        return (Tangents(scaled, _sum(moved, pulled)),)


def _sum(a: Tensor | None, b: Tensor | None, sign: int = 1) -> Tensor | None:
    """Return `a + sign b`, in place of a if it exists."""
    if a is None or b is None:
        return a if b is None else b if sign == 1 else -b
    return a.add_(b, alpha=sign)


class LayerNode(torch.autograd.Function):
    """`y = W x + b` in the graph, with the leaves of the call's layer and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: Call, passes: Passes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.passes = call, passes
        return call.map.apply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        current = ctx.passes.current
        if torch.is_grad_enabled():
            ctx.passes.nested = True
        to_x = ctx.needs_input_grad[0] and (current.to_images or not ctx.call.reads_images)
        gx, gw, gb = current.back(ctx.call, x, weight, gy, to_x=to_x)
        return gx, gw, gb, None, None


@dataclass
class Invocation:
    """The arguments of a convolution or linear map, before it is known whether the weight is a layer's.

    `map` is the map without its weight, `unbatched` the number of dimensions of an input without a batch, and `zeros`
    the padding to apply to the input first.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    map: LayerMap
    unbatched: int
    zeros: list[int] | None = None


def call_layer(recorder: Recorder, func: Any, args: Any, kwargs: Any, invocation: Invocation) -> Tensor:
    """Run `func(*args, **kwargs)`, through a `LayerNode` if the weight is a layer's."""
    x = invocation.x
    single = x.dim() == invocation.unbatched
    in_order = recorder.order.knows(x) and not single
    layer = recorder.layers.by_weight.get(id(invocation.weight))
    if layer is None:
        y: Tensor = recorder.plain(func, args, kwargs)
    else:
        _check(layer, invocation.weight, x)
        y = _through_node(recorder, func, invocation, single=single, in_order=in_order)
    if in_order:
        recorder.order.note(y)
    return y


def _through_node(recorder: Recorder, func: Any, invocation: Invocation, *, single: bool, in_order: bool) -> Tensor:
    x, bias, tape = invocation.x, invocation.bias, recorder.tape
    if invocation.zeros is not None:
        x = recorder.call(torch.nn.functional.pad, (x, invocation.zeros), {})
    if single:
        x = recorder.call(Tensor.unsqueeze, (x, 0), {})
    call = recorder.layers.call(invocation.weight, bias, invocation.map, in_order=in_order)
    call.reads_images = tape.of_images(x)
    leaf = None if call.bias is None else call.bias.value
    y: Tensor = LayerNode.apply(x, call.layer.weight, leaf, call, recorder.passes)  # type: ignore[no-untyped-call]
    if bias is not None and leaf is None:  # not a layer's bias: computed, or some other parameter of the network
        y = y + (bias.view(-1, *(1,) * (y.dim() - 2)) if call.map.convolution else bias)
    elif recorder.collector.fisher is not None and y.requires_grad:
        call.keep(y)
    if tape.takes([y]):
        if bias is not None and bias in tape:
            tape.record(name_of(func), [x, bias], [y], None)
        else:
            # A linear map of more dimensions has its channels last, whereas norms have them second.
            channels_second = call.map.convolution or x.dim() == 2
            shifts_channels = channels_second and (bias is None or bias.dim() < 2)
            rule = LayerRule(call.layer, x.detach(), call.map, shifts_channels)
            if tape.record(name_of(func), [x], [y], rule):
                y.register_hook(rule.cotangent.keep)  # type: ignore[no-untyped-call]
    return recorder.call(Tensor.squeeze, (y, 0), {}) if single else y


def _check(layer: Layer, weight: Tensor, x: Tensor) -> None:
    """Raise `UsageError` for a call of a layer that cannot be measured."""
    function = enclosing_function()
    if function is not None:
        raise UsageError(
            f"layer {layer.name} is called inside the autograd function {function}, which has its own backward pass; "
            "call layers outside of it, or use torch.utils.checkpoint if it is to save memory"
        )
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        raise UsageError(
            f"layer {layer.name} is called under torch.autocast, in another precision than its weights; "
            "use one precision for the whole network"
        )
    if x.dtype != weight.dtype:
        hint = "" if x.is_floating_point() else "; if these are the images, pass floating-point numbers"
        raise UsageError(f"layer {layer.name} must read {weight.dtype} like its weights, got {x.dtype}{hint}")
    if weight.data_ptr() != layer.weight.data_ptr():
        raise UsageError(f"the forward pass must not replace weights, but it replaces that of layer {layer.name}")
