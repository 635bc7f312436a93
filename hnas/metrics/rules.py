"""What each kind of operation does to the two directional derivatives that `hnas.metrics.curvature` carries.

A rule is called with the parts `p, q` of the values that its operation reads and returns those of the values that it
makes. Where the operation f is not linear it tells the pass its `⟨∂L/∂f, f″(p, q)⟩`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hnas.metrics.norm import Moments, inner, input_gradient, like, matrix
from hnas.metrics.pooling import max_pool_places


class Parts(NamedTuple):
    """`p, q` of one value, each of its shape, or None where it is zero."""

    p: Tensor | None
    q: Tensor | None


ZERO = Parts(None, None)


@dataclass
class Pass:
    """One pass over the recorded operations: the layers' gradients by key, and the sum over those done, a scalar."""

    gradients: Mapping[str, Tensor | None]
    curvature: Tensor

    def bend(self, term: Tensor) -> None:
        """Add an operation's `⟨∂L/∂y, f″(p, q)⟩`, or the entries that make it up."""
        self.curvature = self.curvature + term.sum(dtype=torch.float64)


class Rule(Protocol):
    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        """The parts of what an operation returns, from those of what it reads; where it bends, it tells `run`."""


@dataclass
class Cotangent:
    """`∂L/∂y` of one value y of the network, from the first backward pass through y once it is `wanted`."""

    wanted: bool = False
    value: Tensor | None = None

    def watch(self, y: Tensor) -> None:
        """`y` is that value."""
        y.register_hook(self._see)  # type: ignore[no-untyped-call]

    def _see(self, gradient: Tensor) -> None:
        if self.wanted and not torch.is_grad_enabled():
            self.wanted, self.value = False, gradient


@dataclass
class Layer:
    """A weight W with gradient G on x.

    Where batch norm alone reads the layer, a scaling of its output is without effect but for ε. Then `p` is returned
    without its term W x, and f″ without W q: with their effect in `Norm` it comes to `−⟨∂L/∂y, G x⟩`, the negative of
    ‖G‖² where the weight is used once. So what cancels is never computed. `mixed` is then left for `Norm`, which knows
    the gradient at y.
    """

    key: str
    x: Tensor
    weight: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    cotangent: Cotangent
    once: bool = True
    normalised: bool = False
    mixed: Tensor | None = None

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        (p, q), gradient = read[0], run.gradients[self.key]
        scaled = None if p is None else self.apply(p, self.weight)
        moved = None if q is None else self.apply(q, self.weight)
        mixed = None if p is None or gradient is None else self.apply(p, gradient)
        pulled = None if gradient is None else self.apply(self.x, gradient)
        if not self.normalised:
            mixed = _sum(mixed, moved)
            if mixed is not None and self.cotangent.value is not None:
                run.bend(inner(self.cotangent.value, mixed))
            scaled = _sum(scaled, self.apply(self.x, self.weight))
        elif gradient is not None and self.once:
            run.bend(-gradient.double().square())
            self.mixed = mixed
        else:
            self.mixed = _sum(mixed, pulled, -1)
        return (Parts(scaled, _sum(moved, pulled)),)


def _sum(a: Tensor | None, b: Tensor | None, sign: int = 1) -> Tensor | None:
    """`a + sign b`, in place of a where there is one."""
    if a is None or b is None:
        return a if b is None else b if sign == 1 else -b
    return a.add_(b, alpha=sign)


@dataclass
class Norm:
    """Batch norm: with `d = x − mean(x)`, `s = (mean(d²) + ε)^−½`, `a = γ s`, and `P, Q` the parts of x, centred,

        p ↦ a (P − α d),   α = s² mean(d P)
        q ↦ a (Q − β d),   β = s² mean(d Q)
        f″(p, q) = a ((3 α β − s² mean(P Q)) d − α Q − β P)

    After a layer whose p lacks d and whose f″ lacks Q, these hold with `α − ε s²` for α: what the missing terms add to
    each line cancels but for that, since `s² mean(d²) = 1 − ε s²`.
    """

    centred: Tensor
    moments: Moments
    eps: float
    layer: Layer | None

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        normalised = self.layer is not None and self.layer.normalised
        if not normalised and all(part is None for part in read[0]):
            return (ZERO,)
        assert self.moments.forward is not None
        s, a = self.moments.forward
        d = matrix(self.centred)
        n = len(d)
        p, q = (torch.zeros_like(d) if part is None else matrix(part) for part in read[0])
        buffer = torch.empty_like(d)
        p1, q1 = (part.sum(0) / n for part in (p, q))
        dp, beta, pq = (torch.mul(x, y, out=buffer).sum(0) * (s * s / n) for x, y in ((d, p), (d, q), (p, q)))
        alpha = dp - self.eps * s * s if normalised else dp
        if self.moments.backward is not None:
            cotangent, m1, m2 = self.moments.backward
            gy = matrix(cotangent)
            gp, gq = (torch.mul(gy, x, out=buffer).sum(0) - n * m1 * x1 for x, x1 in ((p, p1), (q, q1)))
            square = 3 * alpha * beta - pq + s * s * p1 * q1
            run.bend(a * (square * m2 * n / s - alpha * gq - beta * gp))
            if self.layer is not None and self.layer.mixed is not None:
                gradient = input_gradient(gy, d, s, a, m1, m2, buffer)
                run.bend(inner(gradient, matrix(self.layer.mixed)))
                self.layer.mixed = None
        # The layer's own memory is written over where nothing else reads it.
        out = (p, q) if normalised else (torch.empty_like(d), buffer)
        torch.addcmul(-a * p1, p, a, out=out[0]).addcmul_(d, -a * alpha)
        torch.addcmul(-a * q1, q, a, out=out[1]).addcmul_(d, -a * beta)
        return (Parts(*(like(part, self.centred) for part in out)),)


@dataclass
class Mask:
    """A ReLU that returned `y`."""

    y: Tensor

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        passed = torch.ops.aten.threshold_backward
        return (Parts(*(None if part is None else passed(part, self.y, 0) for part in read[0])),)


@dataclass
class Entrywise:
    """`y = f(x)`, entry by entry: `p ↦ f′ p, q ↦ f′ q, f″(p, q) = f″ p q`, with f′ and f″ from autograd.

    `version` is how often x had been changed in place when f read it: autograd itself may need only y.
    """

    function: Callable[..., Tensor]
    x: Tensor
    version: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cotangent: Cotangent

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        (p, q) = read[0]
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(x, *self.args, **self.kwargs).sum(), x, create_graph=True)
            bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else None
        slope = slope.detach()
        if bend is not None and p is not None and q is not None and self.cotangent.value is not None:
            run.bend(self.cotangent.value * bend * p * q)
        return (Parts(None if p is None else slope * p, None if q is None else slope * q),)


@dataclass
class Gather:
    """A max pooling of maps of this size."""

    indices: Tensor
    size: torch.Size

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        places = max_pool_places(self.indices, self.size)

        def taken(part: Tensor) -> Tensor:
            return like(matrix(part).reshape(-1).index_select(0, places).view(-1, part.shape[1]), self.indices)

        return (Parts(*(None if part is None else taken(part) for part in read[0])),)


@dataclass
class Linear:
    """A linear `function`, with a `Place` for each value of the network among its arguments, in their order.

    `dtype` is that of the result: in place an operation keeps it whatever it adds.
    """

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    dtype: torch.dtype

    def __call__(self, read: list[Parts], run: Pass) -> Iterable[Parts]:
        made = [self._part([parts[i] for parts in read]) for i in range(2)]
        count = max((len(part) for part in made if part is not None), default=1)
        columns: list[list[Tensor | None]] = [[None] * count if part is None else list(part) for part in made]
        return (Parts(*values) for values in zip(*columns, strict=True))

    def _part(self, read: list[Tensor | None]) -> list[Tensor] | None:
        some = next((part for part in read if part is not None), None)
        if some is None:
            return None

        def filled(value: Any) -> Any:
            if isinstance(value, Place):
                part = read[value.number]
                return some.new_zeros(value.shape) if part is None else part
            return value

        made = tensors_in(self.function(*mapped(self.args, filled), **mapped(self.kwargs, filled)))
        return [part.to(self.dtype) for part in made]


@dataclass(frozen=True)
class Place:
    """Stands for the `number`-th value of the network among a function's arguments, of this shape."""

    number: int
    shape: torch.Size


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to what its tuples, lists and dictionaries hold."""
    if type(value) in (tuple, list):
        return type(value)(mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return change(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among what a function was called with or returned, in tuples, lists and dictionaries too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
