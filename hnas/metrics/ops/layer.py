"""A layer, convolution or linear map: its node in the autograd graph and its tangent rule.

    y = W x + b        p ↦ W p + W x,   q ↦ W q + G x,   f″(p, q) = W q + G p

with the gradient G of the weight W. The node's backward is what the current pass makes of it (`hnas.metrics.passes`).
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
from hnas.metrics.recorder import Recorder, function_around, name_of
from hnas.metrics.tape import ZERO, Cotangent, Replay, TangentRule, Tangents


class NormalisesRule(TangentRule):
    """The rule of an operation that a scaling of what it reads has no effect on but for a small ε."""


@dataclass
class LayerRule(TangentRule):
    """One call of a layer on x.

    Where a `NormalisesRule` alone reads what the layer made, `p` is returned without its term W x, and f″ without W q:
    with their effect in that rule it comes to `−⟨∂L/∂y, G x⟩`, the negative of ‖G‖² where the weight is used `once`. So
    what cancels is never computed. `mixed` is then left for that rule, which knows the gradient at y.
    """

    layer: Layer
    x: Tensor
    map: LayerMap
    cotangent: Cotangent = field(default_factory=Cotangent)
    once: bool = True
    normalised: bool = False
    mixed: Tensor | None = None

    def prepare(self, readers: Sequence[TangentRule], *, returned: bool) -> str | None:
        """`∂L/∂y` is wanted unless the layer is normalised."""
        self.once = self.layer.calls == 1
        self.normalised = not returned and len(readers) == 1 and isinstance(readers[0], NormalisesRule)
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
    """`a + sign b`, in place of a where there is one."""
    if a is None or b is None:
        return a if b is None else b if sign == 1 else -b
    return a.add_(b, alpha=sign)


class LayerNode(torch.autograd.Function):
    """`y = W x + b` in the graph, with the leaves of a call's layer and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: Call, passes: Passes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.call, ctx.passes = call, passes
        return call.map.apply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        current = ctx.passes.current
        to_x = ctx.needs_input_grad[0] and (current.to_images or not ctx.call.reads_images)
        gx, gw, gb = current.back(ctx.call, x, weight, gy, to_x=to_x)
        return gx, gw, gb, None, None


@dataclass
class Invocation:
    """The arguments of a function that a layer may be behind, and the map that it is on one sample less.

    `unbatched` is the number of dimensions of an input without a batch, `zeros` what is put around the input first.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    map: LayerMap
    unbatched: int
    zeros: list[int] | None = None


def call_layer(recorder: Recorder, func: Any, args: Any, kwargs: Any, invocation: Invocation) -> Tensor:
    """Run `func(*args, **kwargs)`, through a `LayerNode` where the weight is a layer's."""
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
    if bias is not None and leaf is None:  # a bias of no layer: computed, or a parameter of the network's own
        y = y + (bias.view(-1, *(1,) * (y.dim() - 2)) if call.map.convolution else bias)
    elif recorder.collector.fisher is not None:
        call.keep(y)
    if tape.takes([y]):
        if bias is not None and bias in tape:
            tape.record(name_of(func), [x, bias], [y], None)
        else:
            rule = LayerRule(call.layer, x.detach(), call.map)
            if tape.record(name_of(func), [x], [y], rule):
                y.register_hook(rule.cotangent.keep)  # type: ignore[no-untyped-call]
    return recorder.call(Tensor.squeeze, (y, 0), {}) if single else y


def _check(layer: Layer, weight: Tensor, x: Tensor) -> None:
    """Raise `UsageError` for a call of a layer that cannot be measured."""
    function = function_around()
    if function is not None:
        raise UsageError(
            f"layer {layer.name} is called inside the autograd function {function}, whose backward pass is code of "
            "its own; let the network call its layers itself, or save memory with torch.utils.checkpoint"
        )
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        raise UsageError(
            f"layer {layer.name} is called under torch.autocast, in another precision than that of its weights; "
            "let the network compute in one precision"
        )
    if x.dtype != weight.dtype:
        hint = "" if x.is_floating_point() else "; if these are the images, give floating-point numbers"
        raise UsageError(f"layer {layer.name} has weights of {weight.dtype}, but reads {x.dtype}{hint}")
    if weight.data_ptr() != layer.weight.data_ptr():
        raise UsageError(
            f"the network's forward pass replaces the weight of layer {layer.name}; let it leave its weights alone"
        )
