"""The layers that the metrics are about, and the differentiable operation that stands in for them.

Every call of a convolution or a linear map on the weight of a `Conv` or `Linear` module becomes one `_Apply` node in
the autograd graph (`hnas.metrics.recorder`). One forward pass then serves four kinds of backward pass, told apart by
`Layers.phase`:

* `gradient`: `g_l = ∂L/∂θ_l` for every weight, itself differentiable;
* `grasp`, of networks that `hnas.metrics.curvature` has no rules for: given the cotangents `g_l` of those gradients,
  `θ_lᵀ (H g)_l` for every layer, a scalar each. Write `θ_l = c_l W_l` at `c_l = 1`; then
  `∂/∂c_l Σ_k ⟨∂L/∂θ_k, g_k⟩ = W_lᵀ (H g)_l`, and both terms of it are inner products of tensors which the pass holds
  anyway, so neither weight-shaped contraction of a double backward (`ȳ ⊗ v` and `z̄ ⊗ x`) is ever formed;
* `probe`: input gradients only, from cotangents that tell to which samples a layer's rows belong
  (`hnas.metrics.owners`), where the operations before it do not say so;
* `ntk`: input gradients only; each layer hands its input and output gradient to a callback that adds to Θ₀.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hnas.errors import UsageError
from hnas.metrics.geometry import Geometry
from hnas.metrics.norm import inner
from hnas.metrics.owners import IN_ORDER, Rows

#: The modules whose weights are measured.
MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


#: The modules of a network by their names, the network's own that of its class.
Modules = dict[str, nn.Module]


def modules_of(network: nn.Module) -> Modules:
    """All modules of `network`. Walking it takes a while, so it is done once."""
    return {name or type(network).__name__: module for name, module in network.named_modules()}


@dataclass
class Layer:
    """One weight of the network, as leaves of the graph: θ_l and the factor c_l of θ_l that GraSP needs."""

    name: str
    weight: Tensor
    factor: Tensor
    calls: int = 0


@dataclass
class Bias:
    """One bias of the network as a leaf of the graph, whichever layers use it, and the name of one of them."""

    owner: str
    value: Tensor
    calls: int = 0


@dataclass
class Call:
    """One call of a layer. `rows` says to which samples its rows belong, None where that is not known yet.

    `probed` are the gradients at its output in the passes that find it out, `visits` how often the pass for Θ₀ came.
    """

    layer: Layer
    bias: Bias | None
    geometry: Geometry
    rows: Rows | None
    probed: list[Tensor] = field(default_factory=list)
    visits: int = 0


Visit = Callable[[Call, Tensor, Tensor], None]


@dataclass
class Layers:
    """The layers of one network during one computation, found by the identity of their weights."""

    by_weight: dict[int, Layer]
    by_bias: dict[int, Bias]
    phase: str = "gradient"
    visit: Visit | None = None
    wanted: set[str] | None = None
    #: The calls of which it is not known to which samples their rows belong.
    doubtful: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, modules: Modules) -> Layers:
        """The Conv and Linear modules of a network; a weight shared by several modules is one layer.

        Raises `UsageError` for a weight that is computed from others, such as weight norm's.
        """
        found: dict[int, Layer] = {}
        biases: dict[int, Bias] = {}
        for name, module in modules.items():
            if isinstance(module, MODULES):
                weight, bias = module.weight, module.bias
                if not isinstance(weight, nn.Parameter) or not (bias is None or isinstance(bias, nn.Parameter)):
                    raise UsageError(
                        f"layer {name} has a weight or bias that is computed from other parameters, so it has no "
                        "gradient of its own; remove its parametrisation first"
                    )
                if id(weight) not in found:
                    leaf = weight.detach().requires_grad_()
                    factor = torch.ones((), dtype=weight.dtype, device=weight.device, requires_grad=True)
                    found[id(weight)] = Layer(name, leaf, factor)
                if bias is not None and id(bias) not in biases:
                    biases[id(bias)] = Bias(found[id(weight)].name, bias.detach().requires_grad_())
        return cls(found, biases)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.by_weight.values())

    def owner(self, parameter: Tensor) -> str | None:
        """The name of the layer whose weight or bias `parameter` is, None where it is neither."""
        layer, bias = self.by_weight.get(id(parameter)), self.by_bias.get(id(parameter))
        return layer.name if layer is not None else bias.owner if bias is not None else None

    def call(self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, in_order: bool) -> Call:
        """Note a call on these parameters, the weight one of a layer."""
        layer = self.by_weight[id(weight)]
        layer.calls += 1
        known = None if bias is None else self.by_bias.get(id(bias))
        if known is not None:
            known.calls += 1
        call = Call(layer, known, geometry, IN_ORDER if in_order else None)
        if not in_order:
            self.doubtful.append(call)
        return call

    def apply(self, call: Call, x: Tensor) -> Tensor:
        """What the layer makes of x, with the bias where that is one of a layer."""
        bias = None if call.bias is None else call.bias.value
        y: Tensor = _Apply.apply(x, call.layer.weight, call.layer.factor, bias, call, self)  # type: ignore[no-untyped-call]
        return y


class _Apply(torch.autograd.Function):
    """`y = θ * x + b` with θ = c W. Its backward does what `layers.phase` asks for."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, factor: Tensor, bias: Tensor | None, call: Call, layers: Layers
    ) -> Tensor:
        ctx.save_for_backward(x, weight, factor)
        ctx.call, ctx.layers = call, layers
        return call.geometry.apply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
        x, weight, factor = ctx.saved_tensors
        call, layers = ctx.call, ctx.layers
        geometry, layer, bias = call.geometry, call.layer, call.bias
        needed = ctx.needs_input_grad[0]
        gx = gw = gc = gb = None
        if layers.phase == "gradient":
            if torch.is_grad_enabled():
                gx, gw = _Adjoint.apply(gy, x, weight, factor, geometry, needed)  # type: ignore[no-untyped-call]
            else:
                wanted = layers.wanted
                gx, gw = geometry.adjoint(gy, x, weight, to_x=needed, to_kernel=wanted is None or layer.name in wanted)
                if bias is not None and (wanted is None or bias.owner in wanted):
                    gb = geometry.bias_adjoint(gy).sum(0)
        elif layers.phase == "ntk":
            assert layers.visit is not None
            call.visits += 1
            if call.visits > 1:
                raise UsageError(
                    f"layer {layer.name} runs again in the backward pass, so that its share in Θ₀ would count twice; "
                    "let the network's hooks and autograd functions leave layers alone"
                )
            layers.visit(call, x, gy)
            gx = geometry.adjoint(gy, x, weight, to_x=True, to_kernel=False)[0] if needed else None
        elif layers.phase == "probe":
            if call.rows is None:
                call.probed.append(gy)
            gx = geometry.adjoint(gy, x, weight, to_x=True, to_kernel=False)[0] if needed else None
        else:
            # ⟨gy, W * x⟩ = ⟨Wᵀ * gy, x⟩, and Wᵀ * gy is the input gradient.
            gx = geometry.adjoint(gy, x, weight, to_x=True, to_kernel=False)[0]
            assert gx is not None
            gc = inner(gx, x)
        return (gx if needed else None), gw, gc, gb, None, None


class _Adjoint(torch.autograd.Function):
    """`(θᵀ * gy, gy ⊗ x)`, the backward of `_Apply`, and its own backward given cotangents `(v, g)`.

    To gy: `θ * v + g * x`; to x: `gᵀ * gy`; to c: `⟨gy, W * v⟩`. The cotangent of θ is never formed.
    """

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, factor: Tensor, geometry: Geometry, needed: bool
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gy, x, weight)
        ctx.geometry = geometry
        gx, gw = geometry.adjoint(gy, x, weight, to_x=needed, to_kernel=True)
        assert gw is not None
        return gx, gw

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, g: Tensor | None) -> tuple[Any, ...]:
        gy, x, weight = ctx.saved_tensors
        geometry = ctx.geometry
        to_gy = to_x = to_c = None
        if g is not None:
            to_gy = geometry.apply(x, g)
            if ctx.needs_input_grad[1]:
                to_x = geometry.adjoint(gy, x, g, to_x=True, to_kernel=False)[0]
        if v is not None:
            through = geometry.apply(v, weight)
            to_c = inner(gy, through)
            to_gy = through if to_gy is None else to_gy.add_(through)
        return to_gy, to_x, None, to_c, None, None
