"""The tape of one forward pass: its operations in order, each with its rule for tangents.

Every value x of the network has two tangents, `p = ∂x/∂ε` and `q = ∂x/∂δ` at ε = δ = 0 for the weights θ + ε θ + δ g
(`hnas.metrics.grasp`). The rule of an operation `y = f(x)` maps the tangents of x to those of y (a JVP), and adds
`⟨∂L/∂y, f″(p, q)⟩` to the replay if f is nonlinear. The rules stand beside their operations, in `hnas.metrics.ops`; the
tape itself knows none.

The tape is `incomplete`, and cannot be replayed, after an operation without a rule, or after a value changes other than
by a recorded operation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hnas.metrics.nested import tensors_in
from hnas.metrics.unseen_uses import graph


class Tangents(NamedTuple):
    """The tangents `p, q` of one value, each of its shape, None where zero."""

    p: Tensor | None
    q: Tensor | None


ZERO = Tangents(None, None)


@dataclass
class Replay:
    """One pass of the tangents: the layers' gradients by name, and the running sum `curvature`, a scalar."""

    gradients: Mapping[str, Tensor | None]
    curvature: Tensor

    def add(self, term: Tensor) -> None:
        """Add an operation's `⟨∂L/∂y, f″(p, q)⟩`, or a tensor whose entries sum to it."""
        self.curvature = self.curvature + term.sum(dtype=torch.float64)


@dataclass
class Cotangent:
    """The cotangent `∂L/∂y` of one value, or data equivalent to it, from the next backward pass once `wanted`."""

    wanted: bool = False
    value: Any = None

    def keep(self, value: Any) -> None:
        """Store the cotangent if it is wanted; called when a backward pass reaches y."""
        if self.wanted:
            self.wanted, self.value = False, value


class TangentRule(ABC):
    """How one recorded operation f maps tangents.

    A rule runs after the whole forward pass, when the network may have changed x or y in place: take what depends on
    their values when the rule is made, or compare versions in `prepare`. It must not change the tangents that it reads.
    """

    def prepare(self, readers: Sequence[TangentRule], *, returned: bool) -> str | None:
        """Mark the cotangents that the rule needs; called after the forward pass, before the backward pass for g.

        `readers` are the rules of the operations that read the results of f; `returned` says whether f returned the
        logits. Returns why the operation cannot be replayed, or None.
        """
        return None

    @abstractmethod
    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        """Return the tangents of f's results for those of its inputs, and add `⟨∂L/∂y, f″(p, q)⟩` to `replay`."""


class _Known(NamedTuple):
    """A recorded value: its number, and its version, which counts changes in place."""

    number: int
    version: int


@dataclass
class _Step:
    """One recorded operation, and the numbers of the values that it reads and makes."""

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    rule: TangentRule


class Tape:
    """The operations of one forward pass on values that depend on the weights, in order."""

    def __init__(self) -> None:
        #: Why the tape cannot be replayed, or None.
        self.incomplete: str | None = None
        #: The images where their gradient is needed: a value that depends on them alone is a constant to the tape.
        self.images: Tensor | None = None
        self._known: Any = WeakIdKeyDictionary()
        self._steps: list[_Step] = []
        self._made = 0
        self._logits = -1

    def stop(self, reason: str) -> None:
        """Make the tape incomplete for this reason, unless it has one already."""
        self.incomplete = self.incomplete or reason

    def __contains__(self, value: Any) -> bool:
        """Whether `value` is recorded."""
        return isinstance(value, Tensor) and value in self._known

    def knows(self, value: Any) -> bool:
        """Whether `value` is recorded and the tape complete."""
        return self.incomplete is None and value in self

    def takes(self, made: Iterable[Tensor]) -> bool:
        """Whether to record an operation with these results; those on sizes, flags and constants are not recorded."""
        return self.incomplete is None and any(value.requires_grad and not self.of_images(value) for value in made)

    def of_images(self, value: Tensor) -> bool:
        """Whether `value` requires a gradient only because the images do."""
        if self.images is None or not value.requires_grad:
            return False
        return all(getattr(node, "variable", self.images) is self.images for node in graph(value))

    def check(self, values: Any) -> None:
        """Check that the recorded tensors in `values`, which the network is about to read, are unchanged.

        A tensor changed through a view, by assignment to its entries, without gradients, or detached makes the tape
        incomplete.
        """
        for value in tensors_in(values):
            known = self._known.get(value)
            if known is not None and (value._version != known.version or not value.requires_grad):
                self.stop("a value that was changed")

    def maker(self, value: Tensor) -> TangentRule | None:
        """Return the rule of the operation that made `value`, if recorded."""
        number = self._number(value)
        return next((step.rule for step in reversed(self._steps) if number in step.makes), None)

    def record(self, name: str, given: Sequence[Tensor], made: Sequence[Tensor], rule: TangentRule | None) -> bool:
        """Record that the function `name` made `made` from `given`, where `takes(made)`; return whether it could.

        It could not without a rule, for inputs of unknown origin, for complex results, since rules are those of real
        functions, or where autograd is off, because changes in place then go unnoticed.
        """
        unseen = any(value.requires_grad and value not in self._known and not self.of_images(value) for value in given)
        if rule is None or unseen or not torch.is_grad_enabled() or any(value.is_complex() for value in made):
            self.stop(name)
            return False
        reads = tuple(self._known[value].number for value in given if value in self._known)
        makes = range(self._made, self._made + len(made))
        self._made = makes.stop
        for number, value in zip(makes, made, strict=True):
            self._known[value] = _Known(number, value._version)
        self._steps.append(_Step(reads, tuple(makes), rule))
        return True

    def _number(self, value: Tensor) -> int:
        """Return the number of a recorded value, −1 for any other."""
        known = self._known.get(value)
        return -1 if known is None else known.number

    def finish(self, logits: Tensor) -> None:
        """Close the tape after the forward pass that returned `logits`; the backward pass for g must come next."""
        self.check(logits)
        if logits.requires_grad and not self.knows(logits):
            self.stop("logits of unknown origin")
        self._logits = self._number(logits)
        readers: dict[int, list[TangentRule]] = {}
        for step in self._steps:
            for number in step.reads:
                readers.setdefault(number, []).append(step.rule)
        for step in self._steps:
            reading = [rule for number in step.makes for rule in readers.get(number, [])]
            reason = step.rule.prepare(reading, returned=self._logits in step.makes)
            if reason is not None:
                self.stop(reason)
        if self.incomplete is not None:
            self._steps.clear()

    def replay(self, replay: Replay) -> Tangents:
        """Return the tangents of the logits. Consumes the tape: each step is freed once it is done."""
        last = {number: place for place, step in enumerate(self._steps) for number in step.reads}
        last[self._logits] = len(self._steps)
        values = {-1: ZERO}
        steps, self._steps = self._steps[::-1], []
        for place in range(len(steps)):
            step = steps.pop()
            made = step.rule([values[number] for number in step.reads], replay)
            for number in step.reads:
                if last[number] == place:
                    values.pop(number, None)
            values.update(
                (number, tangents) for number, tangents in zip(step.makes, made, strict=True) if number in last
            )
        return values[self._logits]
