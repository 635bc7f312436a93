"""`θᵀ H g` from one forward pass in two directions, without the graph of a double backward.

    θᵀ H g = ∂²/∂ε∂δ L(θ + ε θ + δ g)  at ε = δ = 0

Every value x of the network has three parts, `p = ∂x/∂ε`, `q = ∂x/∂δ`, `r = ∂²x/∂ε∂δ`: x + p ε + q δ + r εδ is a
hyper-dual number (Fike and Alonso, 2011). A layer with weight W and gradient G maps them by

    p ↦ W p + W x,   q ↦ W q + G x,   r ↦ W r + W q + G p

A linear operation maps each part as it maps x, a ReLU and a max pooling pass of each part what they passed of x, a
function of each entry needs two of its derivatives, and batch norm is written out in `_Norm`. Only values that the
first forward pass has anyway are kept, and they go as the pass moves on: a double backward holds twice what a training
step holds, this pass less than once.

`Trace` records the operations of the first pass. One without a rule here makes it `incomplete`: the engine then
differentiates twice by autograd, which takes any operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hnas.metrics.joins import cat
from hnas.metrics.norm import like, matrix
from hnas.metrics.pooling import average_pool, max_pool_places


class Parts(NamedTuple):
    """`p, q, r` of one value, each of its shape, or None where it is zero."""

    p: Tensor | None
    q: Tensor | None
    r: Tensor | None


_ZERO = Parts(None, None, None)
Gradients = Mapping[str, Tensor | None]


def _functions(names: str) -> set[Any]:
    owners = (torch, Tensor, F)
    return {getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)}


# Linear in the first argument; the others are numbers.
_MAPS = _functions(
    "neg mean sum clone contiguous view reshape flatten unflatten squeeze unsqueeze permute transpose movedim expand "
    "narrow select chunk split unbind __getitem__ flip roll adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d pixel_shuffle pixel_unshuffle channel_shuffle"
) | {average_pool}
_SUMS = _functions("add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __isub__")
_JOINS = _functions("cat concat stack") | {cat}
_PRODUCTS = _functions("mul mul_ __mul__ __rmul__ __imul__")
_QUOTIENTS = _functions("div div_ __truediv__ __itruediv__")
_RELUS = _functions("relu relu_")
# Functions of each entry by itself.
_ENTRYWISE = _functions(
    "tanh sigmoid gelu silu mish elu celu selu softplus softsign leaky_relu relu6 hardtanh hardswish hardsigmoid "
    "logsigmoid tanhshrink exp log sqrt rsqrt square abs sin cos erf reciprocal"
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


class _Rule(Protocol):
    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        """The parts of what an operation returns, from those of what it reads."""


@dataclass
class _Step:
    """One recorded operation and the numbers of the values that it reads and makes."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    rule: _Rule


class Trace:
    """The operations of one forward pass on values that depend on the weights, in their order."""

    def __init__(self) -> None:
        #: The name of the first function without a rule, or None.
        self.incomplete: str | None = None
        self._numbers: Any = WeakIdKeyDictionary()
        self._steps: list[_Step] = []
        self._layers: dict[int, _Layer] = {}
        self._made = 0
        self._viewed: set[int] = set()

    def layer(self, key: str, x: Tensor, y: Tensor, weight: Tensor, apply: Callable[[Tensor, Tensor], Tensor]) -> None:
        """A layer made y of x: `apply(x, weight)`, perhaps plus a bias. `curvature` gets its gradient under `key`."""
        if x.requires_grad and x not in self._numbers:
            self.incomplete = "a value of unknown origin"
        if self.incomplete is None and y.requires_grad:
            rule = _Layer(key, x.detach(), weight.detach(), apply)
            (number,) = self._record([x], [y], rule)
            self._layers[number] = rule

    def batch_norm(self, x: Tensor, y: Tensor, centred: Tensor, s: Tensor, a: Tensor, eps: float) -> None:
        """Batch norm made y of x, with `centred` = x − mean(x), s = 1/√(var(x) + ε) (C,) and a = γ s (C,)."""
        if self.knows(x) and y.requires_grad:
            self._record([x], [y], _Norm(centred.detach(), s, a, eps, self._layers.get(self._numbers[x])))

    def max_pool(self, x: Tensor, y: Tensor, indices: Tensor) -> None:
        """A max pooling made y of x: of each map the entries at `indices`, as torch's poolings return them."""
        if self.knows(x) and y.requires_grad:
            self._record([x], [y], _Gather(indices, x.shape[2:]))

    def operation(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Any other function, with what it was called with and what it returned."""
        if self.incomplete is not None:
            return
        given = list(_tensors((args, kwargs)))
        read = [value for value in given if value in self._numbers]
        made = list(_tensors(result))
        if not any(value.requires_grad for value in made):
            return  # sizes, flags, constants, and what autograd is told to take for one
        rule = self._rule(function, args, kwargs, made[0])
        unseen = any(value.requires_grad and value not in self._numbers for value in given)
        if rule is None or unseen or (function in _IN_PLACE and made[0].data_ptr() in self._viewed):
            self.incomplete = getattr(function, "__name__", str(function))
            return
        self._viewed.update(value.data_ptr() for value in (*read, *made) if any(each._is_view() for each in made))
        self._record(read, made, rule)

    def knows(self, value: Any) -> bool:
        """Whether `value` is one of those recorded, and nothing without a rule was met."""
        return self.incomplete is None and isinstance(value, Tensor) and value in self._numbers

    def _record(self, read: Iterable[Tensor], made: Iterable[Tensor], rule: _Rule) -> tuple[int, ...]:
        reads = tuple(self._numbers.get(value, -1) for value in read)
        makes = []
        for value in made:
            makes.append(self._made)
            self._numbers[value] = self._made
            self._made += 1
        self._steps.append(_Step(reads, tuple(makes), rule))
        return tuple(makes)

    def _rule(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> _Rule | None:
        if function in _RELUS:
            return _Mask(result.detach())
        first = bool(args) and self.knows(args[0])
        if function in _ENTRYWISE:
            # In place there is no argument left to differentiate at.
            return _Entrywise(function, args[0].detach(), args[1:], kwargs) if first and result is not args[0] else None
        others = any(value in self._numbers for value in _tensors((args[1:], kwargs)))
        if function is F.pad:
            linear = first and not others and _pads_zeros(*args[1:], **kwargs)
        elif function in _MAPS or function in _QUOTIENTS:
            linear = first and not others
        elif function in _PRODUCTS:
            linear = not (first and others)
        elif function in _SUMS or function in _JOINS:
            linear = True
            args, kwargs = _without_constants((args, kwargs), self._numbers, numbers=function in _SUMS)
        else:
            linear = False
        if not linear or kwargs.get("out") is not None:
            return None
        args, kwargs = _places((args, kwargs), self._numbers)
        if any(value in self._numbers for value in _tensors((args, kwargs))):
            return None  # one is in a container that is not looked into
        return _Linear(_IN_PLACE.get(function, function), args, kwargs)

    def curvature(self, gradients: Gradients, logits: Tensor, labels: Tensor) -> Tensor:
        """`θᵀ H g`, a float64 scalar, of the mean cross entropy of `logits` (m, classes) against `labels` (m,).

        `gradients` are those of the layers by key, None where the loss does not reach a weight. Uses up the trace.
        """
        shares = logits.detach().double().softmax(1)
        total = torch.zeros_like(shares[0, 0])
        p, q, r = self._replay(gradients, self._numbers[logits]) if logits in self._numbers else _ZERO
        if r is not None:
            error = shares.scatter_add(1, labels[:, None], torch.full_like(shares[:, :1], -1))
            total = total + (error * r).sum()
        if p is not None and q is not None:
            total = total + (shares * p * q).sum() - ((shares * p).sum(1) * (shares * q).sum(1)).sum()
        return total / len(labels)

    def _replay(self, gradients: Gradients, wanted: int) -> Parts:
        self._find_normalised()
        last = {slot: number for number, step in enumerate(self._steps) for slot in step.reads}
        last[wanted] = len(self._steps)
        values = {-1: _ZERO}
        steps, self._steps = self._steps[::-1], []
        for number in range(len(steps)):
            step = steps.pop()  # and with it what it holds of the first pass
            made = step.rule([values[slot] for slot in step.reads], gradients)
            for slot in step.reads:
                if slot >= 0 and last[slot] == number:
                    values.pop(slot, None)
            values.update((slot, parts) for slot, parts in zip(step.makes, made, strict=True) if slot in last)
        return values[wanted]

    def _find_normalised(self) -> None:
        """Tell the layers that nothing but one batch norm reads."""
        readers: dict[int, list[_Rule]] = {}
        for step in self._steps:
            for slot in step.reads:
                readers.setdefault(slot, []).append(step.rule)
        for slot, layer in self._layers.items():
            layer.normalised = len(readers.get(slot, [])) == 1 and isinstance(readers[slot][0], _Norm)
        self._layers.clear()


@dataclass
class _Layer:
    """A weight W with gradient G on x.

    Where batch norm alone reads the layer, a scaling of its output is without effect but for ε. Then `p` is returned
    without its term W x and `r` without q, which `_Norm` accounts for; so what cancels is never computed.
    """

    key: str
    x: Tensor
    weight: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    normalised: bool = False

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        (p, q, r) = read[0]
        gradient = gradients[self.key]
        moved = None if q is None else self.apply(q, self.weight)
        pulled = None if gradient is None else self.apply(self.x, gradient)
        mixed = None if r is None else self.apply(r, self.weight)
        if p is not None and gradient is not None:
            mixed = _sum(mixed, self.apply(p, gradient))
        scaled = None if p is None else self.apply(p, self.weight)
        if self.normalised:
            mixed = _sum(mixed, pulled, -1)
        else:
            mixed = _sum(mixed, moved)
            scaled = _sum(scaled, self.apply(self.x, self.weight))
        return (Parts(scaled, _sum(moved, pulled), mixed),)


def _sum(a: Tensor | None, b: Tensor | None, sign: int = 1) -> Tensor | None:
    """`a + sign b`, in place of a where there is one."""
    if a is None or b is None:
        return a if b is None else b if sign == 1 else -b
    return a.add_(b, alpha=sign)


@dataclass
class _Norm:
    """Batch norm: with `d = x − mean(x)`, `s = (mean(d²) + ε)^−½`, `a = γ s`, and `P, Q, R` the parts of x, centred,

        p ↦ a (P − α d),   α = s² mean(d P)
        q ↦ a (Q − β d),   β = s² mean(d Q)
        r ↦ a (R − α Q − β P + (3 α β − s² mean(d R) − s² mean(P Q)) d)

    After a layer whose p lacks d and whose r lacks q, these hold with `α − ε s²` for α: what the missing terms add to
    each line cancels but for that, since `s² mean(d²) = 1 − ε s²`.
    """

    centred: Tensor
    s: Tensor
    a: Tensor
    eps: float
    layer: _Layer | None

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        normalised = self.layer is not None and self.layer.normalised
        if not normalised and all(part is None for part in read[0]):
            return (_ZERO,)
        d, s, a = matrix(self.centred), self.s, self.a
        n = len(d)
        p, q, r = (torch.zeros_like(d) if part is None else matrix(part) for part in read[0])
        buffer = torch.empty_like(d)
        p1, q1, r1 = (part.sum(0) / n for part in (p, q, r))
        dp, dq, dr, pq = (torch.mul(x, y, out=buffer).sum(0) * (s * s / n) for x, y in ((d, p), (d, q), (d, r), (p, q)))
        alpha = dp - self.eps * s * s if normalised else dp
        beta = dq
        square = 3 * alpha * beta - dr - pq + s * s * p1 * q1
        # The layer's own memory is written over where nothing else reads it.
        out = (p, q, r) if normalised else (torch.empty_like(d), torch.empty_like(d), buffer)
        torch.addcmul(a * (alpha * q1 + beta * p1 - r1), r, a, out=out[2])
        out[2].addcmul_(q, -a * alpha).addcmul_(p, -a * beta).addcmul_(d, a * square)
        torch.addcmul(-a * p1, p, a, out=out[0]).addcmul_(d, -a * alpha)
        torch.addcmul(-a * q1, q, a, out=out[1]).addcmul_(d, -a * beta)
        return (Parts(*(like(part, self.centred) for part in out)),)


@dataclass
class _Mask:
    """A ReLU that returned `y`."""

    y: Tensor

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        passed = torch.ops.aten.threshold_backward
        return (Parts(*(None if part is None else passed(part, self.y, 0) for part in read[0])),)


@dataclass
class _Entrywise:
    """`y = f(x)`, entry by entry: `p ↦ f′ p, q ↦ f′ q, r ↦ f′ r + f″ p q`, with f′ and f″ from autograd."""

    function: Callable[..., Tensor]
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        (p, q, r) = read[0]
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(x, *self.args, **self.kwargs).sum(), x, create_graph=True)
            bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(slope)
        slope = slope.detach()
        r = None if r is None else slope * r
        if p is not None and q is not None:
            r = _sum(bend * p * q, r)
        return (Parts(None if p is None else slope * p, None if q is None else slope * q, r),)


@dataclass
class _Gather:
    """A max pooling of maps of this size."""

    indices: Tensor
    size: torch.Size

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        places = max_pool_places(self.indices, self.size)

        def taken(part: Tensor) -> Tensor:
            return like(matrix(part).reshape(-1).index_select(0, places).view(-1, part.shape[1]), self.indices)

        return (Parts(*(None if part is None else taken(part) for part in read[0])),)


@dataclass
class _Linear:
    """A linear `function`, with a `_Place` for each value of the network among its arguments, in their order."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any

    def __call__(self, read: list[Parts], gradients: Gradients) -> Iterable[Parts]:
        made = [self._part([parts[i] for parts in read]) for i in range(3)]
        count = max((len(part) for part in made if part is not None), default=1)
        columns: list[list[Tensor | None]] = [[None] * count if part is None else list(part) for part in made]
        return (Parts(*values) for values in zip(*columns, strict=True))

    def _part(self, read: list[Tensor | None]) -> list[Tensor] | None:
        some = next((part for part in read if part is not None), None)
        if some is None:
            return None

        def filled(value: Any) -> Any:
            if isinstance(value, _Place):
                part = read[value.number]
                return some.new_zeros(value.shape) if part is None else part
            return value

        return list(_tensors(self.function(*_mapped(self.args, filled), **_mapped(self.kwargs, filled))))


@dataclass(frozen=True)
class _Place:
    """Stands for the `number`-th value of the network among a function's arguments, of this shape."""

    number: int
    shape: torch.Size


def _places(arguments: Any, known: Any) -> Any:
    """`arguments` with each value of the network replaced by its place."""
    seen: list[Tensor] = []

    def place(value: Any) -> Any:
        if not isinstance(value, Tensor) or value not in known:
            return value
        seen.append(value)
        return _Place(len(seen) - 1, value.shape)

    return _mapped(arguments, place)


def _without_constants(arguments: Any, known: Any, *, numbers: bool) -> Any:
    """`arguments` of a sum or a concatenation with its constant terms zero: they have no derivative."""

    def zero(value: Any) -> Any:
        return torch.zeros_like(value) if isinstance(value, Tensor) and value not in known else value

    args, kwargs = _mapped(arguments, zero)
    if numbers:
        args = tuple(value if isinstance(value, Tensor) else 0 for value in args)
        kwargs = {
            name: 0 if name == "other" and not isinstance(value, Tensor) else value for name, value in kwargs.items()
        }
    return args, kwargs


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to what its tuples, lists and dictionaries hold."""
    if type(value) in (tuple, list):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return change(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _pads_zeros(pad: Any, mode: str = "constant", value: float | None = None) -> bool:
    return mode != "constant" or not value
