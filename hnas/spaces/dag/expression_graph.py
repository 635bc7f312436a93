"""Expression graphs: the nodes of a cell as sums of terms, before the layers among them have names.

    value = Σ n · term        term = an input of the cell, the output of a layer, or a pooling of a value

A layer owns weights, so it is a node of the graph: `nodes[k]` reads only nodes before it. Everything else is written
out where it is read, so values that are equal as functions of the inputs and of the layers' outputs are equal tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

# Terms are named tuples, which compare and hash in C. Their fields differ in number or type, so no two kinds are equal.


class Input(NamedTuple):
    """An input of the cell, by its name in keys: `x`, or `x0` and `x1` where a cell has two."""

    name: str

    def text(self, layer: Callable[[int], str], ordered: bool) -> str:
        """The term in a key, with layers called `layer(index)`; see `text`."""
        return self.name

    def layers(self) -> Iterable[int]:
        """The indices of the layers that it reads."""
        return ()

    def renamed(self, new: Mapping[int, int]) -> Input:
        """The term with layer i called `new[i]`."""
        return self

    def place(self) -> tuple[int, str | int]:
        """Its place among the terms of a value."""
        return 0, self.name


class LayerOutput(NamedTuple):
    """The output of the layer that is node `number` of the graph."""

    number: int

    def text(self, layer: Callable[[int], str], ordered: bool) -> str:
        return layer(self.number)

    def layers(self) -> Iterable[int]:
        return (self.number,)

    def renamed(self, new: Mapping[int, int]) -> LayerOutput:
        return LayerOutput(new[self.number])

    def place(self) -> tuple[int, str | int]:
        return 1, self.number


class Pooling(NamedTuple):
    """A pooling of a value: it owns no weights, so its kind and the value say all of it."""

    kind: str
    reads: Value

    def text(self, layer: Callable[[int], str], ordered: bool) -> str:
        return f"{self.kind}({text(self.reads, layer, ordered=ordered)})"

    def layers(self) -> Iterable[int]:
        return layers_in(self.reads)

    def renamed(self, new: Mapping[int, int]) -> Pooling:
        return Pooling(self.kind, renamed(self.reads, new))

    def place(self) -> tuple[int, str | int]:
        return 2, self.text(letter, ordered=False)


Term = Input | LayerOutput | Pooling
#: (term, multiplicity), sorted; empty where the value is zero.
Value = tuple[tuple[Term, int], ...]


class LayerNode(NamedTuple):
    """A layer of a cell: its kind (`conv3x3`, `sep3/2`) and the value it reads."""

    kind: str
    reads: Value


def value_of(terms: Mapping[Term, int]) -> Value:
    """The value with these multiplicities: the inputs first, then layers by index, then poolings by their text."""
    return tuple(sorted(terms.items(), key=lambda item: item[0].place()) if len(terms) > 1 else terms.items())


def letter(index: int) -> str:
    """`a`, `b`, …: the name of a layer in keys."""
    return chr(97 + index)  # 97 is the code of "a"


def text(value: Value, layer: Callable[[int], str] = letter, *, ordered: bool = False) -> str:
    """`x0+2a+avg3(x0+a)`: the terms of a value, `0` where there is none; `ordered` by their text, not by the layers."""
    times = "*" if ordered else ""
    parts = [term.text(layer, ordered) if n == 1 else f"{n}{times}{term.text(layer, ordered)}" for term, n in value]
    if ordered:
        parts.sort()
    return "+".join(parts) or "0"


def layers_in(value: Value) -> Iterator[int]:
    """The indices of the layers that a value reads directly, through poolings included."""
    for term, _ in value:
        yield from term.layers()


def renamed(value: Value, new: Mapping[int, int]) -> Value:
    """The value with layer i called `new[i]`."""
    return value_of({term.renamed(new): n for term, n in value})


def live_depths(nodes: Sequence[LayerNode], outputs: Iterable[Value]) -> dict[int, int]:
    """The layers that `outputs` depend on, in their order, each with the length of the longest chain to it."""
    live: set[int] = set()
    todo = [k for value in outputs for k in layers_in(value)]
    while todo:
        k = todo.pop()
        if k not in live:
            live.add(k)
            todo.extend(layers_in(nodes[k].reads))
    depth: dict[int, int] = {}
    for k in sorted(live):
        depth[k] = 1 + max((depth[i] for i in layers_in(nodes[k].reads)), default=0)
    return depth
