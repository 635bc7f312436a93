"""The layers that the metrics are about, and the differentiable operation that stands in for them.

Every call of a convolution or a linear map on the weight of a `Conv` or `Linear` module becomes one `_Apply` node in
the autograd graph. One forward pass then serves three kinds of backward pass, told apart by `Layers.phase`:

* `gradient`: `g_l = ∂L/∂θ_l` for every weight, itself differentiable;
* `grasp`, of networks that `hnas.metrics.curvature` has no rules for: given the cotangents `g_l` of those gradients,
  `θ_lᵀ (H g)_l` for every layer, a scalar each. Write `θ_l = c_l W_l` at `c_l = 1`; then
  `∂/∂c_l Σ_k ⟨∂L/∂θ_k, g_k⟩ = W_lᵀ (H g)_l`, and both terms of it are inner products of tensors which the pass holds
  anyway, so neither weight-shaped contraction of a double backward (`ȳ ⊗ v` and `z̄ ⊗ x`) is ever formed;
* `ntk`: input gradients only; each layer hands its input and output gradient to a callback that adds to Θ₀.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from hnas.errors import UsageError
from hnas.metrics.curvature import Trace
from hnas.metrics.geometry import Geometry, per_dimension
from hnas.metrics.joins import cat
from hnas.metrics.norm import batch_norm, inner
from hnas.metrics.pooling import average_pool
from hnas.metrics.rules import tensors_in

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_DROPOUTS = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
}  # fmt: skip
_MAX_POOLS: dict[Any, int] = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3}
_STAND_INS: dict[Any, Any] = {F.avg_pool2d: average_pool, torch.cat: cat, torch.concat: cat}
_VIEWS: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


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


Visit = Callable[[Layer, Bias | None, Geometry, Tensor, Tensor], None]


@dataclass
class Layers:
    """The layers of one network during one computation, found by the identity of their weights."""

    by_weight: dict[int, Layer]
    by_bias: dict[int, Bias]
    phase: str = "gradient"
    visit: Visit | None = None
    wanted: set[str] | None = None
    batch: int = 0

    @classmethod
    def of(cls, network: nn.Module) -> Layers:
        """The Conv and Linear modules of `network`; a weight shared by several modules is one layer.

        Raises `UsageError` for a weight that is computed from others, such as weight norm's.
        """
        found: dict[int, Layer] = {}
        biases: dict[int, Bias] = {}
        for name, module in network.named_modules():
            if isinstance(module, _LAYERS):
                name = name or type(module).__name__
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

    @contextmanager
    def recorded(self, batch: int, trace: Trace) -> Iterator[None]:
        """Within, calls of these layers go through `_Apply`, whichever module or function makes them.

        All that happens to values that depend on the weights is noted in `trace`.
        """
        self.batch = batch
        with _Recorder(self, trace):
            yield


class _Recorder(TorchFunctionMode):
    def __init__(self, layers: Layers, trace: Trace) -> None:
        super().__init__()
        self.layers, self.trace = layers, trace
        # Copies where the network meant a view, and what they are copies of: of each the other, and its version then.
        self.twins: Any = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.trace.reads((args, kwargs))
        if self.twins:
            self._refuse_changed_twins(tensors_in((args, kwargs)))
        if func is F.batch_norm:
            return batch_norm(*args, **kwargs, trace=self.trace)
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _VIEWS:
            try:
                result = func(*args, **kwargs)
            except RuntimeError:
                # Convolutions and batch norm return channels last here, which a flattening view does not take.
                func = _VIEWS[func]
                result = func(*args, **kwargs)
                for one, other in ((args[0], result), (result, args[0])):
                    self.twins.setdefault(one, []).append((other, other._version))
            self.trace.operation(func, args, kwargs, result)
            return result
        func = _STAND_INS.get(func, func)
        if func in _MAX_POOLS and self._pools(_MAX_POOLS[func], args, kwargs):
            y, indices = func(*args, **{**kwargs, "return_indices": True})
            self.trace.max_pool(args[0], y, indices)
            return y
        if func is F.linear:
            call = _linear_call(*args, **kwargs)
        elif func in _CONVOLUTIONS:
            call = _convolution_call(_CONVOLUTIONS[func], *args, **kwargs)
        else:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) or (isinstance(result, tuple) and any(isinstance(r, Tensor) for r in result)):
                self._refuse_weights(func, tensors_in((args, kwargs)))
                self.trace.operation(func, args, kwargs, result)
            return result
        x, weight, bias, geometry, padding = call
        if padding is not None:
            unpadded, x = x, F.pad(x, padding)
            self.trace.operation(F.pad, (unpadded, padding), {}, x)
        layer = self.layers.by_weight.get(id(weight))
        if layer is None:
            return func(*args, **kwargs)
        if x.dim() < 2 or x.shape[0] != self.layers.batch:
            raise UsageError(
                f"layer {layer.name} reads a tensor of shape {tuple(x.shape)}, but its first dimension must be the "
                f"batch of {self.layers.batch} samples for per-sample gradients to exist"
            )
        layer.calls += 1
        known = None if bias is None else self.layers.by_bias.get(id(bias))
        if known is not None:
            known.calls += 1
        y = _Apply.apply(  # type: ignore[no-untyped-call]
            x, layer.weight, layer.factor, known and known.value, geometry, layer, known, self.layers
        )
        if bias is not None and known is None:  # a bias of no layer: computed, or a parameter of the network's own
            y = y + (bias.view(-1, *(1,) * (y.dim() - 2)) if geometry.convolution else bias)
        if self.trace.knows(bias):
            self.trace.operation(func, (x, bias), {}, y)
        else:
            self.trace.layer(layer.name, x, y, layer.weight, geometry.apply)
        return y

    def _pools(self, dimensions: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a max pooling is one of a batch of maps that the trace knows, and returns no indices itself."""
        known = bool(args) and self.trace.knows(args[0]) and args[0].dim() == dimensions + 2
        return known and not kwargs.get("return_indices")

    def _refuse_changed_twins(self, read: Iterable[Tensor]) -> None:
        for value in read:
            if any(twin._version != version for twin, version in self.twins.get(value, ())):
                raise UsageError(
                    "the network changes a value in place through a view of it, which is a copy here, because "
                    "convolutions and batch norm return channels last; let it work out of place after `view`"
                )

    def _refuse_weights(self, func: Any, read: Iterable[Tensor]) -> None:
        for value in read:
            layer = self.layers.by_weight.get(id(value))
            if layer is not None:
                raise UsageError(
                    f"the weight of layer {layer.name} is used by {getattr(func, '__name__', func)}, and only its use "
                    "in a convolution or a linear map can be measured"
                )


# The two below have the parameter names of torch's functions, which may be called with keywords. They return the input,
# the weight, the bias, the geometry, and the zeros to put around the input first.
def _linear_call(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:  # noqa: A002
    return input, weight, bias, Geometry(convolution=False), None


def _convolution_call(
    dimensions: int,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    zeros = None
    dilation = per_dimension(dilation, dimensions)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # Zeros are added here rather than by the convolution: an even kernel needs one more on the right.
        zeros = [n for t in reversed(total) for n in (t // 2, t - t // 2)]
        padding = 0
    geometry = Geometry(True, per_dimension(stride, dimensions), per_dimension(padding, dimensions), dilation, groups)
    return input, weight, bias, geometry, zeros


class _Apply(torch.autograd.Function):
    """`y = θ * x + b` with θ = c W. Its backward does what `layers.phase` asks for."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, factor: Tensor, bias: Tensor | None, geometry: Geometry, layer: Layer,
        owner: Bias | None, layers: Layers,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, factor)
        ctx.geometry, ctx.layer, ctx.bias, ctx.layers = geometry, layer, owner, layers
        return geometry.apply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
        x, weight, factor = ctx.saved_tensors
        geometry, layer, bias, layers = ctx.geometry, ctx.layer, ctx.bias, ctx.layers
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
            layers.visit(layer, bias, geometry, x, gy)
            gx = geometry.adjoint(gy, x, weight, to_x=True, to_kernel=False)[0] if needed else None
        else:
            # ⟨gy, W * x⟩ = ⟨Wᵀ * gy, x⟩, and Wᵀ * gy is the input gradient.
            gx = geometry.adjoint(gy, x, weight, to_x=True, to_kernel=False)[0]
            assert gx is not None
            gc = inner(gx, x)
        return (gx if needed else None), gw, gc, gb, None, None, None, None


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
