"""What a network does in its forward pass, function by function, while its layers' calls are taken over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from hnas.errors import UsageError
from hnas.metrics.curvature import Trace
from hnas.metrics.functions import CONVOLUTIONS, MAX_POOLS
from hnas.metrics.geometry import Geometry, per_dimension
from hnas.metrics.layers import Layer, Layers
from hnas.metrics.norm import batch_norm
from hnas.metrics.order import Order
from hnas.metrics.rules import tensors_in
from hnas.metrics.standins import DROPOUTS, OPENED, REPLACED, standing_in

_VIEWS: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


class Recorder(TorchFunctionMode):
    """While it is entered, calls of `layers` go through them, whichever module or function makes them.

    All that happens to values that depend on the weights is noted in `trace`, and in `order` what happens to those
    whose first dimension is that of the images.
    """

    def __init__(self, layers: Layers, trace: Trace) -> None:
        super().__init__()
        self.layers, self.trace = layers, trace
        self.order: Order
        # Copies where the network meant a view, and what they are copies of: of each the other, and its version then.
        self.twins: Any = WeakIdKeyDictionary()
        #: Generators that were passed to functions, each with its state before.
        self.generators: dict[torch.Generator, Tensor] = {}
        #: How many batch norms took the batch's statistics.
        self.normalised = 0
        #: Told of every function after it was called.
        self.watch: Callable[[Any], None] | None = None

    def run(self, network: nn.Module, images: Tensor) -> Any:
        """What `network` returns for `images`."""
        self.order = Order(images)
        with self:
            return network(images)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "generator" in kwargs and kwargs["generator"] is not None:
            self.generators.setdefault(kwargs["generator"], kwargs["generator"].get_state())
        self.trace.reads((args, kwargs))
        if self.twins:
            self._refuse_changed_twins(tensors_in((args, kwargs)))
        if func in OPENED:
            with self:
                result = OPENED[func](*args, **kwargs)
        else:
            if func in REPLACED:
                func, args, kwargs = standing_in(func, args, kwargs)
            result = self._called(func, args, kwargs)
        if self.watch is not None:
            self.watch(func)
        return result

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.linear or func in CONVOLUTIONS:
            return self._layer(func, args, kwargs)
        if func is F.batch_norm:
            self.normalised += bool(kwargs.get("training", args[5] if len(args) > 5 else False))
            result = batch_norm(*args, **kwargs, trace=self.trace)
        elif func in _VIEWS:
            result = self._viewed(func, args, kwargs)
        elif func in MAX_POOLS and self._pools(MAX_POOLS[func], args, kwargs):
            result, indices = func(*args, **{**kwargs, "return_indices": True})
            self.trace.max_pool(args[0], result, indices)
        else:
            result = self._other(func, args, kwargs)
        self.order.operation(func, args, kwargs, result)
        return result

    def _viewed(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        try:
            result = func(*args, **kwargs)
        except RuntimeError:
            # Convolutions and batch norm return channels last here, which a flattening view does not take.
            func = _VIEWS[func]
            result = func(*args, **kwargs)
            for one, other in ((args[0], result), (result, args[0])):
                self.twins.setdefault(one, []).append((other, other._version))
        self._refuse_weights(func, args[:1], result)
        self.trace.operation(func, args, kwargs, result)
        return result  # type: ignore[no-any-return]

    def _other(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) or (
            isinstance(result, (tuple, list)) and any(isinstance(r, Tensor) for r in result)
        ):
            self._refuse_weights(func, tensors_in((args, kwargs)), result)
            self.trace.operation(func, args, kwargs, result)
        elif func is Tensor.register_hook:
            self.trace.incomplete = self.trace.incomplete or "a hook"  # it may change gradients, as no operation does
        return result

    def _layer(self, func: Any, args: Any, kwargs: Any) -> Any:
        dimensions = CONVOLUTIONS.get(func, 0)
        x, weight, bias, geometry, padding = (
            _convolution_call(dimensions, *args, **kwargs) if dimensions else _linear_call(*args, **kwargs)
        )
        layer = self.layers.by_weight.get(id(weight))
        single = x.dim() == (dimensions + 1 if dimensions else 1)
        in_order = self.order.knows(x) and not single
        if layer is None:
            y = self._other(func, args, kwargs)
        else:
            self._check(layer, weight, x)
            y = self._measured(func, x, weight, bias, geometry, padding, single=single, in_order=in_order)
        if in_order:
            self.order.note(y)
        return y

    def _measured(
        self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, padding: list[int] | None,
        *, single: bool, in_order: bool,
    ) -> Tensor:  # fmt: skip
        if padding is not None:
            x = self._noted(F.pad, x, padding)
        if single:
            x = self._noted(Tensor.unsqueeze, x, 0)
        call = self.layers.call(weight, bias, geometry, in_order=in_order)
        y = self.layers.apply(call, x)
        if bias is not None and call.bias is None:  # a bias of no layer: computed, or a parameter of the network's own
            y = y + (bias.view(-1, *(1,) * (y.dim() - 2)) if geometry.convolution else bias)
        if self.trace.knows(bias):
            self.trace.operation(func, (x, bias), {}, y)
        else:
            self.trace.layer(call.layer.name, x, y, call.layer.weight, geometry.apply)
        return self._noted(Tensor.squeeze, y, 0) if single else y

    def _noted(self, func: Any, value: Tensor, argument: Any) -> Tensor:
        result: Tensor = func(value, argument)
        self.trace.operation(func, (value, argument), {}, result)
        return result

    def _check(self, layer: Layer, weight: Tensor, x: Tensor) -> None:
        """Raise `UsageError` where a call of a layer is none that can be measured."""
        function = _function_around()
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

    def _refuse_weights(self, func: Any, read: Iterable[Tensor], result: Any) -> None:
        """Raise `UsageError` where a function makes more of a layer's weight than a number without a gradient."""
        for value in read:
            layer = self.layers.by_weight.get(id(value))
            if layer is None or result is value:
                continue
            if any(made.requires_grad for made in tensors_in(result)) or _function_around() is not None:
                raise UsageError(
                    f"the weight of layer {layer.name} is used by {getattr(func, '__name__', func)}, and only its use "
                    "in a convolution or a linear map can be measured"
                )


def _function_around() -> str | None:
    """The name of the innermost custom autograd function that is in its forward pass, if any."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not Recorder.run.__code__:
        if frame.f_code is _APPLY:
            name: str = frame.f_locals["cls"].__name__
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


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
