"""Canonical forms of cells that are sums of operations on a small directed acyclic graph.

A cell with nodes `0 … n-1` computes `v_0 = x` and `v_j = Σ_i op_ij(v_i)`; its output is `v_{n-1}`. Each edge holds
one of three kinds of operation: a *zero*, an *identity*, a fixed linear map without parameters (a pooling), or a
*layer*, which owns weights. Two cells are the same function up to the names of their parameters when their values,
written as multisets of terms, agree after renaming the layers. The rewriting is exact:

* a zero contributes nothing; anything that reads only zeros is zero (a ReLU-Conv-BN block of zero is its batch norm's
  shift, zero at initialisation);
* an identity contributes every term of what it reads, so a chain of skips is one sum;
* a pooling of a value is determined by the value: equal poolings of equal values are one term;
* a layer is itself: two layers of one kind reading one value stay two, a layer read twice stays one.

Expression strings are not enough for the last point (`conv(a) + conv(b)` with `a = conv(x)`, `b = conv(x)` owns four
weights, `conv(a) + conv(a)` three), hence the labels and the minimisation over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

# A term is `("x",)`, `("pool", name, value)` or `("layer", index)`; a value is a sorted tuple of (term, multiplicity).
Term = tuple[object, ...]
Value = tuple[tuple[Term, int], ...]

INPUT: Term = ("x",)


@dataclass(frozen=True)
class Operations:
    """What each operation name of a space means: the identity, the poolings and the layers, by short name.

    A name in neither mapping and other than `identity` is a zero.
    """

    identity: str
    poolings: Mapping[str, str]
    layers: Mapping[str, str]


@dataclass(frozen=True)
class Layer:
    """A layer of a canonical cell: its kind (`conv3x3`) and the value it reads."""

    kind: str
    reads: Value


@dataclass(frozen=True)
class Cell:
    """A canonical cell: its live layers in canonical order and the value it returns.

    `layers[k]` reads only the input, poolings and layers before it, so the list can be evaluated in order.
    `str(cell)` is the key of its class.
    """

    layers: tuple[Layer, ...]
    output: Value

    @property
    def dead(self) -> bool:
        """True where the cell is zero for every input."""
        return not self.output

    def __str__(self) -> str:
        parts = [f"{_letter(k)}={layer.kind}({_text(layer.reads)})" for k, layer in enumerate(self.layers)]
        return ";".join([*parts, f"y={_text(self.output)}"])


def canonical_cell(nodes: int, edges: Mapping[tuple[int, int], str], operations: Operations) -> Cell:
    """The canonical form of the cell with operation `edges[i, j]` from node i to node j (i < j).

    Layers are ordered by depth, then by the expression they stand for, then so that the key is smallest: the last
    step tries the permutations of layers whose expressions are equal, 24 at most in a cell of four nodes.
    """
    layers: list[Layer] = []
    values: list[Value] = [((INPUT, 1),)]
    for j in range(1, nodes):
        total: Counter[Term] = Counter()
        for i in range(j):
            total.update(_contribution(edges[i, j], values[i], operations, layers))
        values.append(_value(total))
    return _smallest(layers, values[-1])


def _contribution(name: str, value: Value, operations: Operations, layers: list[Layer]) -> dict[Term, int]:
    if not value:
        return {}
    if name == operations.identity:
        return dict(value)
    if name in operations.poolings:
        return {("pool", operations.poolings[name], value): 1}
    if name in operations.layers:
        layers.append(Layer(operations.layers[name], value))
        return {("layer", len(layers) - 1): 1}
    return {}


def _value(terms: Mapping[Term, int]) -> Value:
    return tuple(sorted(terms.items(), key=lambda item: _key(item[0])))


def _key(term: Term) -> tuple[int, str]:
    """Sort key of a term: the input, then layers by index, then poolings by their text."""
    if term[0] == "x":
        return (0, "")
    if term[0] == "layer":
        return (1, f"{term[1]:03d}")
    return (2, _text(((term, 1),)))


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def _text(value: Value) -> str:
    """`2x+a+avg3x3(x+a)`: the terms of a value; `0` where there is none."""
    return "+".join(("" if n == 1 else str(n)) + _term_text(term) for term, n in value) or "0"


def _term_text(term: Term) -> str:
    if term[0] == "x":
        return "x"
    if term[0] == "layer":
        return _letter(term[1])  # type: ignore[arg-type]
    return f"{term[1]}({_text(term[2])})"  # type: ignore[arg-type]


def layers_in(value: Value) -> Iterator[int]:
    """The indices of the layers that a value reads directly, through poolings included."""
    for term, _ in value:
        if term[0] == "layer":
            yield term[1]  # type: ignore[misc]
        elif term[0] == "pool":
            yield from layers_in(term[2])  # type: ignore[arg-type]


def _smallest(layers: Sequence[Layer], output: Value) -> Cell:
    live: set[int] = set()
    todo = list(layers_in(output))
    while todo:
        k = todo.pop()
        if k not in live:
            live.add(k)
            todo.extend(layers_in(layers[k].reads))

    depth: dict[int, int] = {}
    expression: dict[int, str] = {}
    for k in sorted(live):  # creation order is topological
        reads = layers[k].reads
        depth[k] = 1 + max((depth[i] for i in layers_in(reads)), default=0)
        expression[k] = f"{layers[k].kind}({_expand(reads, expression)})"

    groups: dict[tuple[int, str], list[int]] = {}
    for k in sorted(live):
        groups.setdefault((depth[k], expression[k]), []).append(k)
    ordered = [groups[key] for key in sorted(groups)]
    candidates = (
        _relabelled(layers, output, [k for group in choice for k in group])
        for choice in product(*(list(permutations(group)) for group in ordered))
    )
    return min(candidates, key=str)


def _expand(value: Value, expression: Mapping[int, str]) -> str:
    """The value as one expression tree in which layers have no names: equal for values that may be equal."""

    def text(term: Term) -> str:
        if term[0] == "layer":
            return expression[term[1]]  # type: ignore[index]
        if term[0] == "pool":
            return f"{term[1]}({_expand(term[2], expression)})"  # type: ignore[arg-type]
        return "x"

    return "+".join(sorted(f"{n}*{text(term)}" for term, n in value))


def _relabelled(layers: Sequence[Layer], output: Value, order: Sequence[int]) -> Cell:
    new = {old: k for k, old in enumerate(order)}

    def term(old: Term) -> Term:
        if old[0] == "layer":
            return ("layer", new[old[1]])  # type: ignore[index]
        if old[0] == "pool":
            return ("pool", old[1], value(old[2]))  # type: ignore[arg-type]
        return old

    def value(old: Value) -> Value:
        return _value({term(t): n for t, n in old})

    return Cell(tuple(Layer(layers[k].kind, value(layers[k].reads)) for k in order), value(output))
