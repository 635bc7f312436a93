"""Canonical forms of DARTS cells: sums of operations on two inputs, concatenated.

Two cells are the same function up to renaming parameters if they agree after these rewritings, all exact:

* the two inputs of a node may be swapped, nodes renumbered, and the blocks of the concatenation reordered: the order of
  blocks only numbers the channels that later cells read, whose initial weights are independent and identically drawn;
* a node that is not concatenated and feeds nothing is dropped, and with it what only it reads;
* `none` contributes nothing, and an operation that reads only zeros is zero (a ReLU-Conv-BN of zero is its batch norm's
  shift, zero at initialisation); a concatenated node that is zero stays, as a block of zero channels;
* `skip_connect` contributes the terms of its input. In a reduction cell, `skip_connect` of a cell input is a strided
  layer with weights, and stays one;
* poolings have no parameters, so equal poolings of equal values are one term; two on one node count twice;
* a layer is unique: two layers of one kind that read the same value stay two.

The key of a cell lists its layers and output blocks: `a=sep3(x0);b=dil5/2(x1);y=a+b,2avg3(a+b)`. `/2` marks a stride of
2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hnas.spaces.dag.expression_graph import (
    Input,
    LayerNode,
    LayerOutput,
    Pooling,
    Term,
    Value,
    layers_in,
    letter,
    live_depths,
    renamed,
    text,
    value_of,
)
from hnas.spaces.darts.genotype import CellGenotype

#: The name of each operation in keys. `skip` is a layer only with stride 2.
LAYERS = {
    "skip_connect": "skip", "sep_conv_3x3": "sep3", "sep_conv_5x5": "sep5", "sep_conv_7x7": "sep7",
    "dil_conv_3x3": "dil3", "dil_conv_5x5": "dil5", "conv_7x1_1x7": "conv7",
}  # fmt: skip
POOLINGS = {"max_pool_3x3": "max3", "avg_pool_3x3": "avg3"}
#: The two cell inputs, by state.
INPUTS = (Input("x0"), Input("x1"))


@dataclass(frozen=True)
class DARTSCell:
    """A canonical cell: its live layers and the values that it concatenates.

    `layers[k]` reads only inputs, poolings and earlier layers, so the list can be evaluated in order. `str(cell)` is
    the key of its class.
    """

    layers: tuple[LayerNode, ...]
    outputs: tuple[Value, ...]
    reduction: bool

    def reads(self, state: int) -> bool:
        """Whether cell input `state`, 0 or 1, has an effect."""
        values = [*(layer.reads for layer in self.layers), *self.outputs]
        return any(_contains(value, INPUTS[state]) for value in values)

    def __str__(self) -> str:
        parts = [f"{letter(k)}={layer.kind}({text(layer.reads)})" for k, layer in enumerate(self.layers)]
        return ";".join([*parts, f"y={','.join(map(text, self.outputs))}"])


def canonical_darts_cell(cell: CellGenotype, *, reduction: bool, merge: bool = True) -> DARTSCell:
    """Return the canonical form of one cell of a genotype.

    With `merge=False` each pooling is a layer, one per edge of the genotype, because drop path draws once per edge.
    """
    layers: list[LayerNode] = []
    values: list[Value] = [((state, 1),) for state in INPUTS]
    for edges in cell.nodes:
        total: Counter[Term] = Counter()
        for name, state in edges:
            stride = "/2" if reduction and state < 2 else ""
            total.update(_contribution(name, stride, values[state], layers, merge))
        values.append(value_of(total))
    return _canonical(layers, [values[node] for node in cell.concat], reduction)


def _contribution(name: str, stride: str, value: Value, layers: list[LayerNode], merge: bool) -> dict[Term, int]:
    if not value or name == "none":
        return {}
    if name == "skip_connect" and not stride:
        return dict(value)
    if name in POOLINGS and merge:
        return {Pooling(POOLINGS[name] + stride, value): 1}
    layers.append(LayerNode((LAYERS | POOLINGS)[name] + stride, value))
    return {LayerOutput(len(layers) - 1): 1}


def _canonical(layers: Sequence[LayerNode], outputs: Sequence[Value], reduction: bool) -> DARTSCell:
    """Drop what has no effect and number the layers: by depth, then by expression, then for the smallest key."""
    depth = live_depths(layers, outputs)
    expression: dict[int, str] = {}
    for k in depth:
        expression[k] = f"{layers[k].kind}({text(layers[k].reads, expression.__getitem__, ordered=True)})"
    colours = _ranks({k: (depth[k], expression[k]) for k in depth})

    def numbered(colours: dict[int, int]) -> DARTSCell:
        new = {old: k for k, old in enumerate(sorted(colours, key=colours.__getitem__))}
        relabelled = tuple(LayerNode(layers[k].kind, renamed(layers[k].reads, new)) for k in new)
        blocks = sorted((renamed(value, new) for value in outputs), key=text)
        return DARTSCell(relabelled, tuple(blocks), reduction)

    candidates = [numbered(c) for c in _discrete(layers, outputs, colours)]
    return candidates[0] if len(candidates) == 1 else min(candidates, key=str)


def _discrete(
    layers: Sequence[LayerNode], outputs: Sequence[Value], colours: dict[int, int]
) -> Iterator[dict[int, int]]:
    """Yield colourings with one colour per layer, including one of every class up to symmetry.

    Layers with equal expressions are distinguished by their uses. If ties remain, each tied layer comes first in turn,
    but only one of any two that can be swapped without effect.
    """
    if len(set(colours.values())) < len(colours):
        colours = _refined(layers, outputs, colours)
    sizes = Counter(colours.values())
    tied = min((colour for colour, size in sizes.items() if size > 1), default=None)
    if tied is None:
        yield colours
        return
    tried: list[int] = []
    for k in (k for k in colours if colours[k] == tied):
        if not any(_twins(layers, outputs, colours, k, other) for other in tried):
            tried.append(k)
            yield from _discrete(layers, outputs, _ranks({i: (c, i != k) for i, c in colours.items()}))


def _refined(layers: Sequence[LayerNode], outputs: Sequence[Value], colours: dict[int, int]) -> dict[int, int]:
    """Split colours by what a layer reads and by the values that read it, until nothing changes."""
    holders: list[tuple[int | None, Value]] = [(k, layers[k].reads) for k in colours]
    holders += [(None, value) for value in outputs]
    held: dict[int, list[tuple[int | None, Value]]] = {k: [] for k in colours}
    for holder, value in holders:
        for k in set(layers_in(value)):
            held[k].append((holder, value))
    while True:
        names = {k: str(c) for k, c in colours.items()}
        signatures = {}
        for k, colour in colours.items():
            marked = names | {k: "*"}
            uses = sorted(
                (-1 if holder is None else colours[holder], text(value, marked.__getitem__, ordered=True))
                for holder, value in held[k]
            )
            signatures[k] = (colour, text(layers[k].reads, names.__getitem__, ordered=True), tuple(uses))
        split = _ranks(signatures)
        if len(set(split.values())) == len(set(colours.values())):
            return split
        colours = split


def _twins(layers: Sequence[LayerNode], outputs: Sequence[Value], colours: Mapping[int, int], a: int, b: int) -> bool:
    """Whether exchanging layers a and b, of one colour, changes nothing else."""
    swap = {k: k for k in colours} | {a: b, b: a}
    values = [*outputs, *(layers[k].reads for k in colours)]
    return layers[a].reads == layers[b].reads and all(renamed(value, swap) == value for value in values)


def _ranks(keys: Mapping[int, tuple[object, ...]]) -> dict[int, int]:
    order = {key: rank for rank, key in enumerate(sorted(set(keys.values())))}
    return {k: order[key] for k, key in keys.items()}


def additions(cell: DARTSCell) -> dict[Value, tuple[Value, Value]]:
    """Return how to compute each sum of several terms that `cell` needs, in an order of evaluation.

    A value is the sum of an earlier one, the largest that it contains (empty if there is none), and further terms.
    """
    roots = [*(layer.reads for layer in cell.layers), *sorted(cell.outputs, key=len)]
    needed = dict.fromkeys(inner for value in roots for inner in _values_in(value))
    sums: dict[Value, tuple[Value, Value]] = {}
    for value in needed:
        if len(value) > 1 or any(n > 1 for _, n in value):
            counts = dict(value)
            within = (base for base in sums if all(counts.get(term, 0) >= n for term, n in base))
            base = max(within, key=lambda v: sum(n for _, n in v), default=())
            for term, n in base:
                counts[term] -= n
            sums[value] = (base, tuple((term, n) for term, n in counts.items() if n))
    return sums


def _values_in(value: Value) -> Iterator[Value]:
    """Yield the values that poolings in `value` read, inner ones first, then `value`."""
    for term, _ in value:
        if isinstance(term, Pooling):
            yield from _values_in(term.reads)
    yield value


def _contains(value: Value, state: Input) -> bool:
    return any(term == state or (isinstance(term, Pooling) and _contains(term.reads, state)) for term, _ in value)
