"""What a network does in its forward pass, function by function, and the registry of the functions that are known.

`OPERATIONS` says of a torch function how it is run, by which rule it maps tangents, and whether its results have the
samples along their first dimension. The operations register themselves: see `hnas.metrics.ops`.
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
    """While it is entered, functions run as `OPERATIONS` says, whichever module or function calls them.

    All that happens to values that depend on the weights is noted in `tape`, and in `order` what happens to those whose
    first dimension is that of the images.
    """

    def __init__(self, layers: Layers, collector: Collector | None = None) -> None:
        super().__init__()
        self.layers, self.passes, self.tape = layers, Passes(), Tape()
        self.collector = collector or Collector(frozenset())
        self.order: Order
        #: Copies where the network meant a view, and their sources: of each the other, with its version at the copy.
        self.copies: Any = WeakIdKeyDictionary()
        #: Generators that were passed to functions, each with its state before.
        self.generators: dict[torch.Generator, Tensor] = {}
        #: How many batch norms took the batch's statistics.
        self.normalised = 0
        #: Called with every function after it has returned.
        self.watch: Callable[[Any], None] | None = None

    def run(self, network: nn.Module, images: Tensor) -> Any:
        """What `network` returns for `images`."""
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
        """Run `func` as its operation says, and note what it did."""
        operation = OPERATIONS.get(func)
        if operation is None or operation.handler is None:
            return self.plain(func, args, kwargs)
        return operation.handler(self, func, args, kwargs)

    def plain(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run `func` itself, and note what it did."""
        return self.note(func, args, kwargs, func(*args, **kwargs))

    def note(self, func: Any, args: Args, kwargs: Kwargs, result: Any, rule: TangentRule | None = None) -> Any:
        """Note that `func` returned `result`, which is handed back, by this rule or the one registered."""
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
        """`copy` stands for what would be a view of `source` in another layout."""
        for one, other in ((source, copy), (copy, source)):
            self.copies.setdefault(one, []).append((other, other._version))

    def _refuse_changed_copies(self, read: Iterable[Tensor]) -> None:
        for value in read:
            if any(other._version != version for other, version in self.copies.get(value, ())):
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
            if any(made.requires_grad for made in tensors_in(result)) or function_around() is not None:
                raise UsageError(
                    f"the weight of layer {layer.name} is used by {name_of(func)}, and only its use in a convolution "
                    "or a linear map can be measured"
                )


def function_around() -> str | None:
    """The name of the innermost custom autograd function that is in its forward pass, if any."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not Recorder.run.__code__:
        if frame.f_code is _APPLY:
            name: str = frame.f_locals["cls"].__name__
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


def name_of(func: Any) -> str:
    """What messages call a function."""
    return getattr(func, "__name__", str(func))


#: Runs a function with its arguments, and notes what it did.
Handler = Callable[[Recorder, Any, Args, Kwargs], Any]
#: The rule of one call of a function, with the first tensor that it returned, or None where the call has none.
MakeRule = Callable[[Tape, Any, Args, Kwargs, Tensor], TangentRule | None]


@dataclass(frozen=True)
class Operation:
    """What is known of a function: its way to run, else its own; how a call maps tangents; which results keep order.

    `rectifies` where it is a ReLU, whose units are active where what it returns is positive.
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
    """Say how these functions map tangents and keep the samples' order; what is said already stays."""
    for function in functions:
        known = OPERATIONS.get(function, _UNKNOWN)
        OPERATIONS[function] = Operation(
            known.handler, rule or known.rule, keeps_order or known.keeps_order, rectifies or known.rectifies
        )


def handles(functions: Iterable[Any]) -> Callable[[Handler], Handler]:
    """Have the decorated function run these instead of themselves."""

    def add(handler: Handler) -> Handler:
        for function in functions:
            known = OPERATIONS.get(function, _UNKNOWN)
            OPERATIONS[function] = Operation(handler, known.rule, known.keeps_order, known.rectifies)
        return handler

    return add


def replace(functions: Iterable[Any], by: Callable[..., Any]) -> None:
    """Have `by` run instead of these."""
    handles(functions)(lambda recorder, func, args, kwargs: recorder.plain(by, args, kwargs))


def named(names: str) -> set[Any]:
    """The functions of these names: methods of a tensor, functions of `torch`, and of `torch.nn.functional`."""
    owners = (torch, Tensor, F)
    return {getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)}
