"""Edits of NAS-Bench-101 cells: mutation, neighbours, and the 26 decisions that define a cell.

All use 7 vertices, as the benchmark's program does: 21 possible edges, row by row in the upper triangle of the
adjacency matrix, and 5 operations. A pruned cell with fewer vertices is padded with spare ones before its output,
without edges and with 3 × 3 convolutions (Cell101.convert_to_cell of naszilla).

Sources: mutation, `mutate_spec` in NASBench.ipynb of google-research/nasbench; neighbours, White, Nolen, Savani,
"Exploring the Loss Landscape in Neural Architecture Search", UAI 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from hnas.errors import UsageError
from hnas.spaces.nasbench101.cell import (
    MAX_EDGES,
    MAX_VERTICES,
    OPERATIONS,
    NASBench101Cell,
    cell_hash,
    count_edges,
    pruned,
    renumbered,
)

if TYPE_CHECKING:
    import numpy as np

#: The possible edges, in the order of the decisions.
EDGES = tuple(combinations(range(MAX_VERTICES), 2))
SPARE = MAX_VERTICES - 2
CHOICES = (2,) * len(EDGES) + (len(OPERATIONS),) * SPARE


def decoded(decisions: Sequence[int]) -> NASBench101Cell | None:
    """Return the pruned cell of 26 decisions: whether each of `EDGES` exists, then the label of each interior vertex.

    None where input and output are not connected, or more than 9 edges remain after pruning.
    """
    inputs = [0] * MAX_VERTICES
    for (source, target), there in zip(EDGES, decisions, strict=False):
        inputs[target] |= there << source
    return _valid(inputs, list(decisions[len(EDGES) :]))


def encoded(cell: NASBench101Cell) -> tuple[int, ...]:
    """Return the decisions of a cell, with spare vertices as described above."""
    spare = MAX_VERTICES - len(cell.inputs)
    inputs = (*cell.inputs[:-1], *(0,) * spare, cell.inputs[-1])
    return (*(inputs[target] >> source & 1 for source, target in EDGES), *cell.labels, *(0,) * spare)


def mutated(cell: NASBench101Cell, own: str, random: np.random.Generator) -> str:
    """Return the hash of a random cell other than `cell`, whose hash is `own`.

    Each edge is flipped with probability 1/7 and each operation changed with probability 1/5, repeatedly until the
    result is another cell of the space. The benchmark's program may return the parent, and keeps vertices that pruning
    removes; here mutation starts from the pruned cell, because a hash determines nothing else.
    """
    decisions = encoded(cell)
    while True:
        draws = random.random(len(decisions)).tolist()
        child = list(decisions)
        for place, draw in enumerate(draws[: len(EDGES)]):
            if draw * MAX_VERTICES < 1:
                child[place] ^= 1
        for place, draw in enumerate(draws[len(EDGES) :], start=len(EDGES)):
            if draw * SPARE < 1:
                child[place] = (child[place] + 1 + int(draw * SPARE * 2)) % len(OPERATIONS)
        mutant = decoded(child)
        if mutant is not None and (name := cell_hash(mutant)) != own:
            return name


def neighbours(cell: NASBench101Cell) -> set[str]:
    """Return the hashes of the other cells that one edit makes of `cell`, for any numbering of its vertices.

    An edit changes an operation, removes an edge (and what is pruned then), adds an edge between two vertices, or adds
    an edge that connects a single spare vertex, which may have had any other edges on one of its sides.
    """
    return {cell_hash(other) for other in _edited(cell)} - {cell_hash(cell)}


def _edited(cell: NASBench101Cell) -> Iterator[NASBench101Cell]:
    inputs, labels = cell.inputs, cell.labels
    vertices, free = len(inputs), MAX_EDGES - count_edges(inputs)
    for place, label in enumerate(labels):
        for other in range(len(OPERATIONS)):
            if other != label:
                yield NASBench101Cell(inputs, (*labels[:place], other, *labels[place + 1 :]))
    for target, into in enumerate(inputs):
        for source in range(target):
            if into >> source & 1:
                fewer = _valid([*inputs[:target], into ^ 1 << source, *inputs[target + 1 :]], list(labels))
                if fewer is not None:
                    yield fewer
    before = _ancestors(inputs)
    for read in _subsets(range(vertices - 1), free if vertices < MAX_VERTICES else 1):
        earlier = 0
        for source in read:
            earlier |= before[source]
        later = [v for v in range(1, vertices) if not earlier >> v & 1]
        if len(read) == 1 and free:
            for target in later:
                if not inputs[target] >> read[0] & 1:
                    yield _joined(inputs, labels, read, (target,))
        if vertices < MAX_VERTICES:
            for reading in _subsets(later, free - len(read)):
                if min(len(read), len(reading)) == 1:
                    for label in range(len(OPERATIONS)):
                        yield _joined(inputs, labels, read, reading, label)


def _ancestors(inputs: Sequence[int]) -> list[int]:
    """Return for each vertex the vertices from which it can be reached, including itself, as bits."""
    before: list[int] = []
    for v, into in enumerate(inputs):
        ancestors = 1 << v
        for u in range(v):
            if into >> u & 1:
                ancestors |= before[u]
        before.append(ancestors)
    return before


def _joined(
    inputs: Sequence[int], labels: Sequence[int], read: Sequence[int], reading: Sequence[int], label: int | None = None
) -> NASBench101Cell:
    """Return the cell with edges from all of `read` to all of `reading`, directly or through a new labelled vertex."""
    last = len(inputs) - 1
    wires = list(inputs)
    sources = sum(1 << u for u in read)
    names = [*labels]
    if label is not None:
        wires.append(sources)
        names += [-1, label]  # the output comes between the old vertices and the new one
        sources = 1 << last + 1
    for v in reading:
        wires[v] |= sources
    order = [0]
    placed = 1
    while len(order) < len(wires):
        v = next(v for v in range(1, len(wires)) if not placed >> v & 1 and not wires[v] & ~placed)
        order.append(v)
        placed |= 1 << v
    return NASBench101Cell(renumbered(wires, order), tuple(names[v - 1] for v in order[1:-1]))


def _subsets(members: Sequence[int], largest: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, largest + 1):
        yield from combinations(members, size)


def _valid(inputs: list[int], labels: list[int]) -> NASBench101Cell | None:
    try:
        cell = pruned(inputs, labels)
    except UsageError:
        return None
    return cell if count_edges(cell.inputs) <= MAX_EDGES else None
