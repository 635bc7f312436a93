"""Published DARTS-style cells by name, and the width and depth used to compare topologies.

Width and depth are those of Shu, Wang, Cai, "Understanding Architectures Learnt by Cell-based Neural Architecture
Search", ICLR 2020, as counted in Table 2 of HNAS: width is the sum over intermediate nodes of the fraction of their
inputs that are cell inputs (in units of c, a node's channels), depth the number of edges on the longest path from a
cell input to the cell's output.
"""

from __future__ import annotations

from functools import lru_cache

from hnas.spaces.darts.canonical import LAYERS, POOLINGS
from hnas.spaces.darts.genotype import CellGenotype, Genotype, parse_genotype

_OPERATIONS = {short: name for name, short in (LAYERS | POOLINGS).items()}


def _genotype(normal: str, reduce: str) -> str:
    return str(Genotype(_cell(normal), _cell(reduce)))


def _cell(text: str) -> CellGenotype:
    """Parse `sep3 0, skip 1; max3 2, sep5 0 -> 3`: two edges per node, and the concatenated nodes if not all."""
    nodes, _, concat = text.partition(" -> ")
    edges = [(_OPERATIONS[name], int(state)) for name, state in map(str.split, nodes.replace(";", ",").split(","))]
    return CellGenotype(tuple(edges), tuple(map(int, concat.split())) or tuple(range(2, 2 + len(edges) // 2)))


#: The cells of Table 2 and DARTS' first-order cell. NASNet-A, AmoebaNet-A and DARTS are taken from DARTS' own code,
#: ENAS and SNAS (mild constraint) from the authors of the ICLR paper. WIDE and DEEP are not published. Here they are
#: DARTS_V2 rewired, the way that paper makes variants, with the same operations per node: every node of WIDE reads the
#: two cell inputs, every node of DEEP the two previous states.
NAMED: dict[str, str] = {
    "NASNet": _genotype(
        "sep5 1, sep3 0; sep5 0, sep3 0; avg3 1, skip 0; avg3 0, avg3 0; sep3 1, skip 1",
        "sep5 1, sep7 0; max3 1, sep7 0; avg3 1, sep5 0; skip 3, avg3 2; sep3 2, max3 1 -> 4 5 6",
    ),
    "AmoebaNet": _genotype(
        "avg3 0, max3 1; sep3 0, sep5 2; sep3 0, avg3 3; sep3 1, skip 1; skip 0, avg3 1 -> 4 5 6",
        "avg3 0, sep3 1; max3 0, sep7 2; sep7 0, avg3 1; max3 0, max3 1; conv7 0, sep3 5 -> 3 4 6",
    ),
    "ENAS": _genotype(
        "sep3 1, skip 1; sep5 1, skip 0; avg3 0, sep3 1; sep3 0, avg3 1; sep5 1, avg3 0",
        "sep5 0, avg3 1; sep3 1, avg3 1; sep3 1, avg3 1; sep5 4, avg3 1; sep3 5, sep5 0 -> 2 3 6",
    ),
    "DARTS_V1": _genotype(
        "sep3 1, sep3 0; skip 0, sep3 1; skip 0, sep3 1; sep3 0, skip 2",
        "max3 0, max3 1; skip 2, max3 0; max3 0, skip 2; skip 2, avg3 0",
    ),
    "DARTS_V2": _genotype(
        "sep3 0, sep3 1; sep3 0, sep3 1; sep3 1, skip 0; skip 0, dil3 2",
        "max3 0, max3 1; skip 2, max3 1; max3 0, skip 2; skip 2, max3 1",
    ),
    "SNAS": _genotype(
        "sep3 0, sep3 1; skip 0, dil3 1; skip 0, skip 1; skip 0, sep3 1",
        "max3 0, max3 1; skip 2, max3 1; max3 1, skip 2; dil5 2, max3 0",
    ),
    "WIDE": _genotype(
        "sep3 0, sep3 1; sep3 0, sep3 1; sep3 1, skip 0; skip 0, dil3 1",
        "max3 0, max3 1; skip 0, max3 1; max3 0, skip 1; skip 0, max3 1",
    ),
    "DEEP": _genotype(
        "sep3 0, sep3 1; sep3 1, sep3 2; sep3 3, skip 2; skip 3, dil3 4",
        "max3 0, max3 1; skip 2, max3 1; max3 2, skip 3; skip 4, max3 3",
    ),
}

_SPELLINGS = {name.casefold(): name for name in NAMED} | {
    "darts": "DARTS_V2", "nasnet_a": "NASNet", "amoebanet_a": "AmoebaNet",
}  # fmt: skip


@lru_cache(maxsize=2**12)
def genotype(arch: str) -> Genotype:
    """Return the genotype that `arch` spells or names, in any case, with `-` or `_`; `DARTS` is `DARTS_V2`.

    Raises `UsageError` for a malformed string.
    """
    return parse_genotype(NAMED.get(_SPELLINGS.get(arch.strip().casefold().replace("-", "_"), ""), arch))


def width(cell: CellGenotype) -> float:
    """Return the sum over intermediate nodes of the fraction of their inputs that are cell inputs."""
    return sum(state < 2 for _, state in cell.edges) / 2


def depth(cell: CellGenotype) -> int:
    """Return the edges on the longest path from a cell input to the output, including the edge of the concatenation."""
    depths = [0, 0]
    for edges in cell.nodes:
        depths.append(1 + max(depths[state] for _, state in edges))
    return 1 + max(depths[node] for node in cell.concat)
