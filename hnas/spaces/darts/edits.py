"""Edits of DARTS genotypes: mutation, neighbours, and the 22 decisions that define a genotype.

An edit gives one edge of one cell another of the seven operations, or another input state that the node's other edge
does not read. Results list a node's states in ascending order, as the space's `sample` does.

Source: the two mutations of Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture
Search", AAAI 2019; NASLib's `NasBench301SearchSpace.mutate` has them for DARTS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from hnas.spaces.darts.genotype import NODES, OPERATIONS, CellGenotype, Genotype, genotype_of
from hnas.spaces.darts.text import Edge

if TYPE_CHECKING:
    import numpy as np

_OPERATIONS = OPERATIONS[1:]
#: The pairs of states that each node can read.
_PAIRS = tuple(tuple(combinations(range(node), 2)) for node in range(2, 2 + NODES))
# The first node of a cell always reads the same two states, so there is nothing to decide.
_OF_A_CELL = tuple(n for pairs in _PAIRS for n in (len(pairs), len(_OPERATIONS), len(_OPERATIONS)) if n > 1)
CHOICES = 2 * _OF_A_CELL


def decoded(decisions: Sequence[int]) -> Genotype:
    """Return the genotype of 22 decisions: per node of each cell, a pair of states to read and two operations."""
    rest = iter(decisions)
    cells = []
    for _ in range(2):
        edges: list[Edge] = []
        for pairs in _PAIRS:
            states = pairs[next(rest) if len(pairs) > 1 else 0]
            edges += [(_OPERATIONS[next(rest)], state) for state in states]
        cells.append(edges)
    return genotype_of(*cells)


def encoded(genotype: Genotype) -> tuple[int, ...] | None:
    """Return the decisions of a genotype, None if it is outside the space, as some published ones are."""
    decisions: list[int] = []
    for cell in (genotype.normal, genotype.reduce):
        if cell.concat != tuple(range(2, 2 + NODES)):
            return None
        for node, pairs in zip(cell.nodes, _PAIRS, strict=True):
            (first, low), (second, high) = sorted(node, key=lambda edge: edge[1])
            if (low, high) not in pairs or not {first, second} <= set(_OPERATIONS):
                return None
            decisions += [pairs.index((low, high))] * (len(pairs) > 1)
            decisions += [_OPERATIONS.index(first), _OPERATIONS.index(second)]
    return tuple(decisions)


def mutated(genotype: Genotype, random: np.random.Generator) -> Genotype:
    """Change a uniformly drawn edge of a uniformly drawn cell, with equal chances its operation or its state.

    The new operation or state is uniform too. Draws again if the node has no other state to read.
    """
    while True:
        cells = [genotype.normal, genotype.reduce]
        which = int(random.integers(2))
        place = int(random.integers(len(cells[which].edges)))
        edges = (_other_operations if random.integers(2) else _other_states)(cells[which], place)
        if edges:
            return _with(genotype, which, place, edges[int(random.integers(len(edges)))])


def neighbours(genotype: Genotype) -> Iterator[Genotype]:
    """Yield all genotypes one edit away."""
    for which, cell in enumerate((genotype.normal, genotype.reduce)):
        for place in range(len(cell.edges)):
            for edge in _other_operations(cell, place) + _other_states(cell, place):
                yield _with(genotype, which, place, edge)


def _other_operations(cell: CellGenotype, place: int) -> list[Edge]:
    present, state = cell.edges[place]
    return [(name, state) for name in _OPERATIONS if name != present]


def _other_states(cell: CellGenotype, place: int) -> list[Edge]:
    name, _ = cell.edges[place]
    node = 2 + place // 2
    read = {state for _, state in cell.nodes[place // 2]}
    return [(name, state) for state in range(node) if state not in read]


def _with(genotype: Genotype, which: int, place: int, edge: Edge) -> Genotype:
    """Return `genotype` with one edge replaced, states in ascending order."""
    cells = []
    for number, cell in enumerate((genotype.normal, genotype.reduce)):
        edges = list(cell.edges)
        if number == which:
            edges[place] = edge
        ordered = (sorted(pair, key=lambda e: e[1]) for pair in zip(edges[::2], edges[1::2], strict=True))
        cells.append(CellGenotype(tuple(e for pair in ordered for e in pair), cell.concat))
    return Genotype(*cells)
