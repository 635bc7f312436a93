"""Recording of a forward pass, function by function, and the registry of known functions.

`OPERATIONS` maps a torch function to its handler, its tangent rule, and whether its results keep the samples along the
first dimension. Operations register themselves; see `hnas.metrics.ops`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from hnas.errors import UsageError
from hnas.metrics.layers import Layers
from hnas.metrics.nested import tensors_in
from hnas.metrics.order import Keeps, Order
from hnas.metrics.passes import Passes
from hnas.metrics.statistics import Collector
from hnas.metrics.tape import TangentRule, Tape

_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Recorder(TorchFunctionMode):
    """While active, runs every torch function as `OPERATIONS` says, whichever module or function calls it.

    `tape` records the operations on values that depend on the weights, `order` the values whose first dimension is that
    of the images.
    """

    def __init__(self, layers: Layers, collector: Collector | None = None) -> None:
        super().__init__()
        self.layers, self.passes, self.tape = layers, Passes(), Tape()
        self.collector = collector or Collector(frozenset())
        self.order: Order
        #: Maps a copy that stands for a view, and its source, to each other, with the other's version at copy time.
        self.copies: Any = WeakIdKeyDictionary()
        #: Generators passed to functions, with their state before the first such call.
        self.generators: dict[torch.Generator, Tensor] = {}
        #: Number of batch norms that used batch statistics.
        self.normalised = 0
        #: Called with each function after it returns.
        self.watch: Callable[[Any], None] | None = None

    def run(self, network: nn.Module, images: Tensor) -> Any:
        """Return what `network` returns for `images`, recording the pass."""
        self.tape.images = self.collector.images
        self.order = Order(images)
        with self:
            return network(images)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is not None:
            self.generators.setdefault(generator, generator.get_state())
        self.tape.check((args, kwargs))
        if self.copies:
            self._refuse_changed_copies(tensors_in((args, kwargs)))
        result = self.call(func, args, kwargs)
        if self.watch is not None:
            self.watch(func)
        return result

    def call(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run `func` by its handler if it has one, and note the result."""
        operation = OPERATIONS.get(func)
        if operation is None or operation.handler is None:
            return self.plain(func, args, kwargs)
        return operation.handler(self, func, args, kwargs)

    def plain(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run `func` itself, and note the result."""
        return self.note(func, args, kwargs, func(*args, **kwargs))

    def note(self, func: Any, args: Args, kwargs: Kwargs, result: Any, rule: TangentRule | None = None) -> Any:
        """Note that `func` returned `result`, with the given or the registered rule, and return `result`."""
        made = [result] if isinstance(result, Tensor) else list(tensors_in(result))
        if not made:  # sizes and flags
            return result
        operation = OPERATIONS.get(func, _UNKNOWN)
        given = list(tensors_in((args, kwargs)))
        self._refuse_weights(func, given, result)
        if self.tape.takes(made):
            if rule is None and operation.rule is not None:
                rule = operation.rule(self.tape, func, args, kwargs, made[0])
            self.tape.record(name_of(func), given, made, rule)
        if operation.keeps_order is not None and "out" not in kwargs:
            for value in made:
                if operation.keeps_order(self.order, args, kwargs, value):
                    self.order.note(value)
        if operation.rectifies:
            self.collector.rectified(self.order, result)
        return result

    def copied(self, source: Tensor, copy: Tensor) -> None:
        """Note that `copy` stands for a view of `source` in another memory layout."""
        if copy.is_inference():  # counts no changes
            return
        for one, other in ((source, copy), (copy, source)):
            self.copies.setdefault(one, []).append((other, other._version))

    def _refuse_changed_copies(self, read: Iterable[Tensor]) -> None:
        for value in read:
            if any(other._version != version for other, version in self.copies.get(value, ())):
                raise UsageError(
                    "the network changes a value in place through a view that had to be copied, because convolutions "
                    "and batch norm return channels-last tensors here; use out-of-place operations after `view`"
                )

    def _refuse_weights(self, func: Any, read: Iterable[Tensor], result: Any) -> None:
        """Raise `UsageError` where a function other than a layer's own makes a differentiable value of its weight."""
        for value in read:
            layer = self.layers.by_weight.get(id(value))
            if layer is None or result is value:
                continue
            if any(made.requires_grad for made in tensors_in(result)) or enclosing_function() is not None:
                raise UsageError(
                    f"the weight of layer {layer.name} must be used only in convolutions and linear maps, but "
                    f"{name_of(func)} uses it"
                )


def enclosing_function() -> str | None:
    """Return the name of the innermost custom autograd function whose forward pass is running, if any."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not Recorder.run.__code__:
        if frame.f_code is _APPLY:
            name: str = frame.f_locals["cls"].__name__
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


def name_of(func: Any) -> str:
    """Return the name of a function for messages."""
    return getattr(func, "__name__", str(func))


#: Runs a function with its arguments, and notes what it did.
Handler = Callable[[Recorder, Any, Args, Kwargs], Any]
#: Makes the rule of one call, from its arguments and the first tensor it returned; None where the call has no rule.
MakeRule = Callable[[Tape, Any, Args, Kwargs, Tensor], TangentRule | None]


@dataclass(frozen=True)
class Operation:
    """A known function: its handler if it has one, its tangent rule, and the results that keep the samples' order.

    `rectifies` marks a ReLU, whose units are active where its output is positive.
    """

    handler: Handler | None = None
    rule: MakeRule | None = None
    keeps_order: Keeps | None = None
    rectifies: bool = False


_UNKNOWN = Operation()
OPERATIONS: dict[Any, Operation] = {}


def register(
    functions: Iterable[Any], rule: MakeRule | None = None, keeps_order: Keeps | None = None, *, rectifies: bool = False
) -> None:
    """Register the tangent rule and the order of samples for `functions`; what is not given stays as registered."""
    for function in functions:
        known = OPERATIONS.get(function, _UNKNOWN)
        OPERATIONS[function] = Operation(
            known.handler, rule or known.rule, keeps_order or known.keeps_order, rectifies or known.rectifies
        )


def handles(functions: Iterable[Any]) -> Callable[[Handler], Handler]:
    """Register the decorated function as the handler of `functions`."""

    def add(handler: Handler) -> Handler:
        for function in functions:
            known = OPERATIONS.get(function, _UNKNOWN)
            OPERATIONS[function] = Operation(handler, known.rule, known.keeps_order, known.rectifies)
        return handler

    return add


def replace(functions: Iterable[Any], by: Callable[..., Any]) -> None:
    """Run `by` in place of `functions`."""
    handles(functions)(lambda recorder, func, args, kwargs: recorder.plain(by, args, kwargs))


def named(names: str) -> set[Any]:
    """Return all functions with these names: tensor methods and functions of `torch` and `torch.nn.functional`.

    Raises `AttributeError` where a name is in none of the three.
    """
    found = set()
    for name in names.split():
        functions = {getattr(owner, name) for owner in (torch, Tensor, F) if hasattr(owner, name)}
        if not functions:
            raise AttributeError(f"torch, Tensor and torch.nn.functional have no {name}")
        found |= functions
    return found
