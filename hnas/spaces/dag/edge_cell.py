"""Canonical forms of cells that are sums of operations on a small directed acyclic graph.

A cell with nodes `0 … n-1` computes `v_0 = x` and `v_j = Σ_i op_ij(v_i)`; its output is `v_{n-1}`. Each edge holds a
*zero*, an *identity*, a fixed linear map without parameters (a pooling), or a *layer*, which owns weights. Two cells
are the same function up to renaming parameters if their values, written as multisets of terms, agree after renaming
layers. The rewriting is exact:

* a zero contributes nothing; anything that reads only zeros is zero (a ReLU-Conv-BN block of zero is its batch norm's
  shift, zero at initialisation);
* an identity contributes every term of its input, so a chain of skips is one sum;
* a pooling is determined by its input value: equal poolings of equal values are one term;
* a layer is unique: two layers of one kind that read the same value stay two, a layer read twice stays one.

Expression strings cannot represent the last rule (`conv(a) + conv(b)` with `a = conv(x)`, `b = conv(x)` owns four
weights, `conv(a) + conv(a)` three), hence the labels and the minimisation over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from hnas.spaces.dag.expression_graph import (
    Input,
    LayerNode,
    LayerOutput,
    Pooling,
    Term,
    Value,
    letter,
    live_depths,
    renamed,
    text,
    value_of,
)

INPUT = Input("x")


@dataclass(frozen=True)
class EdgeOperations:
    """The meaning of a space's operation names: the identity, the poolings and the layers, with short names.

    All other names are zeros.
    """

    identity: str
    poolings: Mapping[str, str]
    layers: Mapping[str, str]


@dataclass(frozen=True)
class EdgeCell:
    """A canonical cell: its live layers in canonical order, and its output value.

    `layers[k]` reads only the input, poolings and earlier layers, so the list can be evaluated in order. `str(cell)` is
    the key of its class.
    """

    layers: tuple[LayerNode, ...]
    output: Value

    @property
    def dead(self) -> bool:
        """Whether the cell is zero for every input."""
        return not self.output

    def __str__(self) -> str:
        parts = [f"{letter(k)}={layer.kind}({text(layer.reads)})" for k, layer in enumerate(self.layers)]
        return ";".join([*parts, f"y={text(self.output)}"])


def canonical_edge_cell(nodes: int, edges: Mapping[tuple[int, int], str], operations: EdgeOperations) -> EdgeCell:
    """Return the canonical form of the cell with operation `edges[i, j]` from node i to node j (i < j).

    Layers are ordered by depth, then by their expression, then to make the key smallest, which tries all permutations
    of layers with equal expressions, at most 24 in a cell of four nodes.
    """
    layers: list[LayerNode] = []
    values: list[Value] = [((INPUT, 1),)]
    for j in range(1, nodes):
        total: Counter[Term] = Counter()
        for i in range(j):
            total.update(_contribution(edges[i, j], values[i], operations, layers))
        values.append(value_of(total))
    return _smallest(layers, values[-1])


def _contribution(name: str, value: Value, operations: EdgeOperations, layers: list[LayerNode]) -> dict[Term, int]:
    if not value:
        return {}
    if name == operations.identity:
        return dict(value)
    if name in operations.poolings:
        return {Pooling(operations.poolings[name], value): 1}
    if name in operations.layers:
        layers.append(LayerNode(operations.layers[name], value))
        return {LayerOutput(len(layers) - 1): 1}
    return {}


def _smallest(layers: Sequence[LayerNode], output: Value) -> EdgeCell:
    depth = live_depths(layers, [output])
    expression: dict[int, str] = {}
    for k in depth:
        expression[k] = f"{layers[k].kind}({_expand(layers[k].reads, expression)})"

    groups: dict[tuple[int, str], list[int]] = {}
    for k in depth:
        groups.setdefault((depth[k], expression[k]), []).append(k)
    ordered = [groups[key] for key in sorted(groups)]
    candidates = [
        _relabelled(layers, output, [k for group in choice for k in group])
        for choice in product(*(list(permutations(group)) for group in ordered))
    ]
    return candidates[0] if len(candidates) == 1 else min(candidates, key=str)


def _expand(value: Value, expression: Mapping[int, str]) -> str:
    """Return the value as an expression tree in which layers have no names; equal values have equal trees.

    It differs from `text(…, ordered=True)`, which omits `1*`: the order of layers depends on it, and with it 54 stored
    keys.
    """

    def shown(term: Term) -> str:
        match term:
            case Input(name):
                return name
            case LayerOutput(number):
                return expression[number]
            case Pooling(kind, reads):
                return f"{kind}({_expand(reads, expression)})"

    return "+".join(sorted(f"{n}*{shown(term)}" for term, n in value))


def _relabelled(layers: Sequence[LayerNode], output: Value, order: Sequence[int]) -> EdgeCell:
    new = {old: k for k, old in enumerate(order)}
    return EdgeCell(
        tuple(LayerNode(layers[k].kind, renamed(layers[k].reads, new)) for k in order), renamed(output, new)
    )
