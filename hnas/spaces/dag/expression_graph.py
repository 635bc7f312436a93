"""Expression graphs: the nodes of a cell as sums of terms, before its layers are named.

    value = Σ n · term        term = an input of the cell, the output of a layer, or a pooling of a value

A layer owns weights, so it is a node of the graph: `nodes[k]` reads only earlier nodes. Everything else is written out
where it is read, so values that are equal functions of the inputs and layer outputs are equal tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

# Terms are named tuples, which compare and hash in C. Different kinds never compare equal, because their fields differ
# in number or type.


class Input(NamedTuple):
    """An input of the cell, by its name in keys: `x`, or `x0` and `x1` in cells with two inputs."""

    name: str

    def text(self, layer: Callable[[int], str], ordered: bool) -> str:
        """Return the term as written in keys, with layers called `layer(index)`; see `text`."""
        return self.name

    def layers(self) -> Iterable[int]:
        """Return the indices of the layers that the term reads."""
        return ()

    def renamed(self, new: Mapping[int, int]) -> Input:
        """Return the term with layer i renamed to `new[i]`."""
        return self

    def place(self) -> tuple[int, str | int]:
        """Return the sort key of the term within a value."""
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
    """A pooling of a value. It owns no weights, so its kind and the value define it."""

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
#: Pairs (term, multiplicity), sorted; empty for zero.
Value = tuple[tuple[Term, int], ...]


class LayerNode(NamedTuple):
    """A layer of a cell: its kind (`conv3x3`, `sep3/2`) and the value it reads."""

    kind: str
    reads: Value


def value_of(terms: Mapping[Term, int]) -> Value:
    """Return the value with these multiplicities: inputs first, then layers by index, then poolings by text."""
    return tuple(sorted(terms.items(), key=lambda item: item[0].place()) if len(terms) > 1 else terms.items())


def letter(index: int) -> str:
    """Return `a`, `b`, …: the name of a layer in keys."""
    return chr(97 + index)  # 97 is the code of "a"


def text(value: Value, layer: Callable[[int], str] = letter, *, ordered: bool = False) -> str:
    """Write the terms of a value as `x0+2a+avg3(x0+a)`, `0` for none; `ordered` sorts them by text."""
    times = "*" if ordered else ""
    parts = [term.text(layer, ordered) if n == 1 else f"{n}{times}{term.text(layer, ordered)}" for term, n in value]
    if ordered:
        parts.sort()
    return "+".join(parts) or "0"


def layers_in(value: Value) -> Iterator[int]:
    """Yield the indices of the layers that a value reads directly or through poolings."""
    for term, _ in value:
        yield from term.layers()


def renamed(value: Value, new: Mapping[int, int]) -> Value:
    """Return the value with layer i renamed to `new[i]`."""
    return value_of({term.renamed(new): n for term, n in value})


def live_depths(nodes: Sequence[LayerNode], outputs: Iterable[Value]) -> dict[int, int]:
    """Return the layers that `outputs` depend on, in order, with the length of the longest chain to each."""
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
