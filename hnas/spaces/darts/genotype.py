"""DARTS genotypes: their meaning, their strings, and NAS-Bench-Suite-Zero's encoding.

A cell has two inputs, the states 0 and 1 (the outputs of the two previous cells), and nodes 2, 3, …; node j is the sum
of two operations on earlier states. The cell's output is the concatenation of the nodes in `concat`. A genotype is a
normal and a reduction cell, written as the DARTS code prints it (here shortened to one node per cell):

    Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0)], normal_concat=range(2, 3),
             reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 3))

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hnas.errors import UsageError
from hnas.spaces.darts.text import FIELDS, LONGEST, Edge, read_concat, read_edges, read_fields

#: The operations of the search space, in DARTS' order; sampled architectures never have the first.
OPERATIONS = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
    "dil_conv_5x5",
)  # fmt: skip
#: Operations of published cells that the search space lacks.
FURTHER_OPERATIONS = ("sep_conv_7x7", "conv_7x1_1x7")
#: Intermediate nodes of a cell of the search space; published cells have up to `MOST_NODES`.
NODES = 4
MOST_NODES = 5

#: The benchmark numbers operations in DARTS' order without `none`.
_CODED = OPERATIONS[1:]
_KNOWN = OPERATIONS + FURTHER_OPERATIONS
_NUMBERS = re.compile(r"[\d\s()\[\],]*", re.ASCII)
_EXAMPLE = "Genotype(normal=[('sep_conv_3x3', 1), …], normal_concat=range(2, 6), reduce=[…], reduce_concat=range(2, 6))"


@dataclass(frozen=True)
class CellGenotype:
    """One cell: two edges (operation, state) per node in turn, and the nodes that form the output."""

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

    @property
    def nodes(self) -> tuple[tuple[Edge, Edge], ...]:
        """The two edges into node 2, node 3, …"""
        return tuple(zip(self.edges[::2], self.edges[1::2], strict=True))


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell. `str(genotype)` is the string that the DARTS code prints."""

    normal: CellGenotype
    reduce: CellGenotype

    def __str__(self) -> str:
        cells = (("normal", self.normal), ("reduce", self.reduce))
        parts = [f"{name}={list(cell.edges)}, {name}_concat={_concat_text(cell.concat)}" for name, cell in cells]
        return f"Genotype({', '.join(parts)})"


def parse_genotype(arch: str) -> Genotype:
    """Return the genotype of a string, in any form that `text` reads.

    `concat` is sorted, because the order of concatenated blocks only numbers channels. Raises `UsageError` for a
    malformed string.
    """
    shown = repr(arch if len(arch) <= 100 else arch[:97] + "...")
    if len(arch) > LONGEST:
        raise UsageError(f"a DARTS genotype must have at most {LONGEST} characters, but {shown} has {len(arch)}")
    fields = read_fields(arch)
    if fields is None:
        raise UsageError(f"a DARTS genotype must look like {_EXAMPLE}, got {shown}")
    if set(fields) != set(FIELDS):
        raise UsageError(
            f"the genotype {shown} must have the fields {', '.join(FIELDS)}, each once, all by name or all by position"
        )
    cells = []
    for name in ("normal", "reduce"):
        edges, concat = read_edges(fields[name]), read_concat(fields[f"{name}_concat"])
        if edges is None:
            raise UsageError(f"{name} of the genotype {shown} must be a list of ('operation', state) pairs")
        if concat is None:
            raise UsageError(f"{name}_concat of the genotype {shown} must be range(2, 6) or a list of nodes")
        cells.append(_checked(edges, concat, f"{name} of the genotype {shown}"))
    return Genotype(*cells)


def genotype_of(normal: Sequence[Edge], reduce: Sequence[Edge]) -> Genotype:
    """Return the genotype of two cells that output all their nodes. Raises `UsageError` for an invalid edge."""
    cells = []
    for name, edges in (("normal", normal), ("reduce", reduce)):
        cells.append(_checked(list(edges), list(range(2, 2 + len(edges) // 2)), f"the {name} cell"))
    return Genotype(*cells)


def from_suite_zero(encoding: str | Sequence[Any]) -> str:
    """Return the genotype of an architecture as written in NAS-Bench-Suite-Zero's nasbench301 file.

    `[[(state, operation) × 8], [(state, operation) × 8]]`, normal and reduction cell, operations numbered from 0 in
    DARTS' order without `none`; nested sequences or the Python literal. Raises `UsageError` for anything else.
    """
    shown = repr(encoding)[:100]
    wrong = UsageError(f"a NAS-Bench-301 encoding must be [[(state, operation) × 8] × 2], integers, got {shown}")
    try:
        if isinstance(encoding, str):
            if len(encoding) > LONGEST or not _NUMBERS.fullmatch(encoding):
                raise ValueError("other than numbers and brackets")
            encoding = ast.literal_eval(encoding.strip())
        pairs: Any = encoding
        normal, reduce = ([(_CODED[_index(op)], _index(state)) for state, op in cell] for cell in pairs)
    except (TypeError, ValueError, IndexError, SyntaxError, RecursionError, MemoryError) as error:
        raise wrong from error
    if not len(normal) == len(reduce) == 2 * NODES:
        raise wrong
    return str(genotype_of(normal, reduce))


def _index(value: Any) -> int:
    if (index := operator.index(value)) < 0:
        raise ValueError("a negative number")
    return index


def _checked(edges: list[Edge], concat: list[int], what: str) -> CellGenotype:
    if len(edges) % 2 or not 2 <= len(edges) <= 2 * MOST_NODES:
        raise UsageError(f"{what} must have two edges per node, for 1 to {MOST_NODES} nodes, got {len(edges)} edges")
    for i, (name, state) in enumerate(edges):
        node = 2 + i // 2
        if name not in _KNOWN:
            raise UsageError(f"{what} has the unknown operation {name[:40]!r}; choose from {', '.join(_KNOWN)}")
        if not 0 <= state < node:
            raise UsageError(f"node {node} in {what} must read a state from 0 to {node - 1}, got {state}")
    last = 1 + len(edges) // 2
    if not concat or len(set(concat)) < len(concat) or not all(2 <= node <= last for node in concat):
        raise UsageError(f"{what} must concatenate one or more distinct nodes from 2 to {last}, got {concat[:10]}")
    return CellGenotype(tuple(edges), tuple(sorted(concat)))


def _concat_text(concat: tuple[int, ...]) -> str:
    first, last = concat[0], concat[-1]
    return f"range({first}, {last + 1})" if concat == tuple(range(first, last + 1)) else str(list(concat))
