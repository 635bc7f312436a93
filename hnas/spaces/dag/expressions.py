"""Sums of terms: what the nodes of a cell compute, before the layers in them have names.

A term is `("x",)` or `("x", input)`, `("pool", kind, value)` or `("layer", index)`; a value is a sorted tuple of
(term, multiplicity), empty where it is zero. Layers are a list in which each reads only those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Term = tuple[object, ...]
Value = tuple[tuple[Term, int], ...]


@dataclass(frozen=True)
class Layer:
    """A layer of a cell: its kind (`conv3x3`, `sep3/2`) and the value it reads."""

    kind: str
    reads: Value


def value_of(terms: Mapping[Term, int]) -> Value:
    """The value with these multiplicities: the inputs first, then layers by index, then poolings by their text."""

    def key(item: tuple[Term, int]) -> tuple[int, object]:
        term = item[0]
        return (2, text(((term, 1),))) if term[0] == "pool" else (0 if term[0] == "x" else 1, term[1:])

    return tuple(sorted(terms.items(), key=key))


def letter(index: int) -> str:
    """`a`, `b`, …: how a key calls a layer."""
    return chr(ord("a") + index)


def text(value: Value, name: Callable[[int], str] = letter, *, ordered: bool = False) -> str:
    """`x0+2a+avg3(x0+a)`: the terms of a value, `0` where there is none; `ordered` by their text, not by the layers."""
    parts = []
    for term, n in value:
        if term[0] == "x":
            shown = "".join(map(str, term))
        elif term[0] == "layer":
            shown = name(term[1])  # type: ignore[arg-type]
        else:
            shown = f"{term[1]}({text(term[2], name, ordered=ordered)})"  # type: ignore[arg-type]
        parts.append(shown if n == 1 else f"{n}{shown}" if not ordered else f"{n}*{shown}")
    return "+".join(sorted(parts) if ordered else parts) or "0"


def layers_in(value: Value) -> Iterator[int]:
    """The indices of the layers that a value reads directly, through poolings included."""
    for term, _ in value:
        if term[0] == "layer":
            yield term[1]  # type: ignore[misc]
        elif term[0] == "pool":
            yield from layers_in(term[2])  # type: ignore[arg-type]


def renamed(value: Value, new: Mapping[int, int]) -> Value:
    """The value with layer i called `new[i]`."""

    def term(old: Term) -> Term:
        if old[0] == "layer":
            return ("layer", new[old[1]])  # type: ignore[index]
        return ("pool", old[1], renamed(old[2], new)) if old[0] == "pool" else old  # type: ignore[arg-type]

    return value_of({term(t): n for t, n in value})


def live_depths(layers: Sequence[Layer], outputs: Iterable[Value]) -> dict[int, int]:
    """The layers that `outputs` depend on, in their order, each with the length of the longest chain to it."""
    live: set[int] = set()
    todo = [k for value in outputs for k in layers_in(value)]
    while todo:
        k = todo.pop()
        if k not in live:
            live.add(k)
            todo.extend(layers_in(layers[k].reads))
    depth: dict[int, int] = {}
    for k in sorted(live):
        depth[k] = 1 + max((depth[i] for i in layers_in(layers[k].reads)), default=0)
    return depth
