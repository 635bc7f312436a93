"""`θᵀ H g` from one forward pass in two directions, without the graph of a double backward.

    θᵀ H g = ∂²/∂ε∂δ L(θ + ε θ + δ g)  at ε = δ = 0

Every value x of the network has two directional derivatives, `p = ∂x/∂ε` and `q = ∂x/∂δ`. A layer with weight W and
gradient G maps them by

    p ↦ W p + W x,   q ↦ W q + G x

a linear operation maps each as it maps x, a ReLU and a max pooling pass of each what they passed of x, a function of
each entry multiplies them by its derivative, and batch norm is written out in `hnas.metrics.rules`. An operation
`y = f(x)` that is not linear bends: by the chain rule

    θᵀ H g = Σ_f ⟨∂L/∂y, f″(p, q)⟩

over all operations, layers (`f″ = W q + G p`) and the loss among them, so that second derivatives of values are never
carried along, as hyper-dual numbers (Fike and Alonso, 2011) carry them. `∂L/∂y` is what the backward pass for g sends
through `y` anyway: it is kept where an operation bends. Apart from that only values that the first forward pass has
anyway are kept, and they go as the pass moves on: a double backward holds twice what a training step holds.

`Trace` records the operations of the first pass, each with its rule. One without a rule, or a value that changed
otherwise than by a recorded operation, makes it `incomplete`: the engine then differentiates twice by autograd, which
takes any operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hnas.metrics import rules
from hnas.metrics.functions import AVERAGE_POOLS, ENTRYWISE, JOINS, PRODUCTS, QUOTIENTS, RELUS, SUMS, named
from hnas.metrics.norm import Coupling, Moments
from hnas.metrics.rules import Parts, Place, Rule, mapped, tensors_in

# Linear in the first argument; the others are numbers.
_MAPS = AVERAGE_POOLS | named(
    "neg mean sum clone contiguous view reshape flatten unflatten squeeze unsqueeze permute transpose movedim expand "
    "narrow select chunk split unbind __getitem__ flip roll pixel_shuffle pixel_unshuffle channel_shuffle"
)
_IN_PLACE = {
    getattr(owner, name): getattr(owner, twin)
    for owner in (torch, Tensor)
    for name, twin in [
        ("add_", "add"), ("__iadd__", "add"), ("sub_", "sub"), ("__isub__", "sub"), ("mul_", "mul"),
        ("__imul__", "mul"), ("div_", "div"), ("__itruediv__", "div"), ("relu_", "relu"),
    ]
    if hasattr(owner, name)
}  # fmt: skip


class _Known(NamedTuple):
    """A recorded value: its number, and how often it had been changed in place."""

    number: int
    version: int


@dataclass
class _Step:
    """One recorded operation and the numbers of the values that it reads and makes."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    rule: Rule


class Trace:
    """The operations of one forward pass on values that depend on the weights, in their order."""

    def __init__(self) -> None:
        #: What was met first that there is no rule for, or None.
        self.incomplete: str | None = None
        #: That of the network's batch norms.
        self.coupling = Coupling()
        self._known: Any = WeakIdKeyDictionary()
        self._steps: list[_Step] = []
        self._layers: dict[int, rules.Layer] = {}
        self._made = 0
        self._logits = -1

    def layer(self, key: str, x: Tensor, y: Tensor, weight: Tensor, apply: Callable[[Tensor, Tensor], Tensor]) -> None:
        """A layer made y of x: `apply(x, weight)`, perhaps plus a bias. `curvature` gets its gradient under `key`."""
        if x.requires_grad and x not in self._known:
            self.incomplete = "a value of unknown origin"
        if self.incomplete is None and y.requires_grad:
            rule = rules.Layer(key, x.detach(), weight.detach(), apply, rules.Cotangent())
            (number,) = self._record([x], [y], rule)
            self._layers[number] = rule
            rule.cotangent.watch(y)

    def batch_norm(self, x: Tensor, y: Tensor, centred: Tensor, moments: Moments, eps: float) -> None:
        """Batch norm made y of x, with `centred` = x − mean(x)."""
        if self.knows(x) and y.requires_grad:
            self._record([x], [y], rules.Norm(centred.detach(), moments, eps, self._layers.get(self._number(x))))

    def max_pool(self, x: Tensor, y: Tensor, indices: Tensor) -> None:
        """A max pooling made y of x: of each map the entries at `indices`, as torch's poolings return them."""
        if self.knows(x) and y.requires_grad:
            self._record([x], [y], rules.Gather(indices, x.shape[2:]))

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Any other function, with what it was called with and what it returned."""
        if self.incomplete is not None:
            return
        given = list(tensors_in((args, kwargs)))
        read = [value for value in given if value in self._known]
        made = list(tensors_in(result))
        if not any(value.requires_grad for value in made):
            return  # sizes, flags, constants, and what autograd is told to take for one
        rule = self._rule(function, args, kwargs, made[0])
        unseen = any(value.requires_grad and value not in self._known for value in given)
        if rule is None or unseen or not torch.is_grad_enabled():  # in place without a gradient: autograd sees nothing
            self.incomplete = getattr(function, "__name__", str(function))
            return
        self._record(read, made, rule)

    def knows(self, value: Any) -> bool:
        """Whether `value` is one of those recorded, and nothing without a rule was met."""
        return self.incomplete is None and isinstance(value, Tensor) and value in self._known

    def reads(self, values: Any) -> None:
        """The network is about to read `values`, whatever holds them: those recorded must be what they were.

        One that was changed through a view of it, by an assignment to its entries, without gradients, or detached is
        unknown.
        """
        for value in tensors_in(values):
            known = self._known.get(value)
            if known is not None and (value._version != known.version or not value.requires_grad):
                self.incomplete = self.incomplete or "a value that was changed"

    def _number(self, value: Tensor) -> int:
        """The number of a recorded value, −1 for any other."""
        known = self._known.get(value)
        return -1 if known is None else known.number

    def _record(self, read: Iterable[Tensor], made: Iterable[Tensor], rule: Rule) -> tuple[int, ...]:
        reads = tuple(map(self._number, read))
        makes = []
        for value in made:
            makes.append(self._made)
            self._known[value] = _Known(self._made, value._version)
            self._made += 1
        self._steps.append(_Step(reads, tuple(makes), rule))
        return tuple(makes)

    def _rule(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Rule | None:
        if function in RELUS:
            return rules.Mask(result.detach())
        first = bool(args) and self.knows(args[0])
        if function in ENTRYWISE:
            if not first or result is args[0]:  # in place there is no argument left to differentiate at
                return None
            cotangent = rules.Cotangent()
            cotangent.watch(result)
            return rules.Entrywise(function, args[0].detach(), args[0]._version, args[1:], kwargs, cotangent)
        others = any(value in self._known for value in tensors_in((args[1:], kwargs)))
        if function is F.pad:
            linear = first and not others and _pads_zeros(*args[1:], **kwargs)
        elif function in _MAPS or function in QUOTIENTS:
            linear = first and not others and kwargs.get("rounding_mode") is None
        elif function in PRODUCTS:
            linear = not (first and others)
        elif function in SUMS or function in JOINS:
            linear = True
            args, kwargs = _without_constants((args, kwargs), self._known, numbers=function in SUMS)
        else:
            linear = False
        if not linear or kwargs.get("out") is not None:
            return None
        args, kwargs = _places((args, kwargs), self._known)
        if any(value in self._known for value in tensors_in((args, kwargs))):
            return None  # one is in a container that is not looked into
        return rules.Linear(_IN_PLACE.get(function, function), args, kwargs, result.dtype)

    def finish(self, logits: Tensor) -> None:
        """The pass is over and returned `logits`; the next one is the backward pass for g."""
        self.reads(logits)
        if logits.requires_grad and not self.knows(logits):
            self.incomplete = self.incomplete or "logits of unknown origin"
        self._logits = self._number(logits)
        readers: dict[int, list[Rule]] = {}
        for step in self._steps:
            for slot in step.reads:
                readers.setdefault(slot, []).append(step.rule)
        calls = Counter(layer.key for layer in self._layers.values())
        for step in self._steps:  # a network may differentiate in its forward pass, too: that is not the pass for g
            if isinstance(step.rule, rules.Norm):
                step.rule.moments.backward = None
            elif isinstance(step.rule, rules.Entrywise):
                step.rule.cotangent.wanted = True
                if step.rule.x._version != step.rule.version:
                    self.incomplete = self.incomplete or "a value that was changed"
        for slot, layer in self._layers.items():
            layer.once = calls[layer.key] == 1
            layer.normalised = [type(rule) for rule in readers.get(slot, [])] == [rules.Norm] and slot != self._logits
            layer.cotangent.wanted = not layer.normalised
        self._layers.clear()

    def curvature(self, gradients: Mapping[str, Tensor | None], logits: Tensor, labels: Tensor) -> Tensor:
        """`θᵀ H g`, a float64 scalar, of the mean cross entropy of `logits` (m, classes) against `labels` (m,).

        `gradients` are those of the layers by key, None where the loss does not reach a weight. Uses up the trace.
        """
        shares = logits.double().softmax(1)
        run = rules.Pass(gradients, torch.zeros_like(shares[0, 0]))
        p, q = self._replay(run)
        if p is not None and q is not None:
            run.bend(((shares * p * q).sum(1) - (shares * p).sum(1) * (shares * q).sum(1)) / len(labels))
        return run.curvature

    def _replay(self, run: rules.Pass) -> Parts:
        last = {slot: number for number, step in enumerate(self._steps) for slot in step.reads}
        last[self._logits] = len(self._steps)
        values = {-1: rules.ZERO}
        steps, self._steps = self._steps[::-1], []
        for number in range(len(steps)):
            step = steps.pop()  # and with it what it holds of the first pass
            made = step.rule([values[slot] for slot in step.reads], run)
            for slot in step.reads:
                if slot >= 0 and last[slot] == number:
                    values.pop(slot, None)
            values.update((slot, parts) for slot, parts in zip(step.makes, made, strict=True) if slot in last)
        return values[self._logits]


def _places(arguments: Any, known: Any) -> Any:
    """`arguments` with each value of the network replaced by its place."""
    seen: list[Tensor] = []

    def place(value: Any) -> Any:
        if not isinstance(value, Tensor) or value not in known:
            return value
        seen.append(value)
        return Place(len(seen) - 1, value.shape)

    return mapped(arguments, place)


def _without_constants(arguments: Any, known: Any, *, numbers: bool) -> Any:
    """`arguments` of a sum or a concatenation with its constant terms zero: they have no derivative."""

    def zero(value: Any) -> Any:
        return torch.zeros_like(value) if isinstance(value, Tensor) and value not in known else value

    args, kwargs = mapped(arguments, zero)
    if numbers:
        args = tuple(value if isinstance(value, Tensor) else 0 for value in args)
        kwargs = {
            name: 0 if name == "other" and not isinstance(value, Tensor) else value for name, value in kwargs.items()
        }
    return args, kwargs


def _pads_zeros(pad: Any, mode: str = "constant", value: float | None = None) -> bool:
    return mode != "constant" or not value
