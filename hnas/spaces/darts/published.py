"""Published DARTS-style cells by name, and the width and depth by which topologies are compared.

Width and depth are those of Shu, Wang, Cai, "Understanding Architectures Learnt by Cell-based Neural Architecture
Search", ICLR 2020, as Table 2 of HNAS counts them: width is the sum over the intermediate nodes of the share of a
node's inputs that are cell inputs (in units of c, a node's channels), depth the number of edges on the longest path
from a cell input to the cell's output.
"""

from __future__ import annotations

from functools import lru_cache

from hnas.spaces.darts.canonical import LAYERS, POOLINGS
from hnas.spaces.darts.genotype import CellGenotype, Genotype, parse_genotype

_OPERATIONS = {short: name for name, short in (LAYERS | POOLINGS).items()}


def _genotype(normal: str, reduce: str) -> str:
    return str(Genotype(_cell(normal), _cell(reduce)))


def _cell(text: str) -> CellGenotype:
    """`sep3 0, skip 1; max3 2, sep5 0 -> 3`: each node's two edges, and the nodes concatenated where not all are."""
    nodes, _, concat = text.partition(" -> ")
    edges = [(_OPERATIONS[name], int(state)) for name, state in map(str.split, nodes.replace(";", ",").split(","))]
    return CellGenotype(tuple(edges), tuple(map(int, concat.split())) or tuple(range(2, 2 + len(edges) // 2)))


#: Table 2's cells and DARTS' first-order one. NASNet-A, AmoebaNet-A and DARTS are as in DARTS' own code; ENAS and SNAS
#: (mild constraint) as the authors of the ICLR paper write them. WIDE and DEEP are not published. Here they are
#: DARTS_V2 rewired, which is how that paper makes variants, with its operations node by node: every node of WIDE reads
#: the two cell inputs, every node of DEEP the two states just before it.
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
    """The genotype that `arch` spells or names: names in any case, `-` or `_`; `DARTS` is `DARTS_V2`, as in its code.

    Raises `UsageError` saying what is off.
    """
    return parse_genotype(NAMED.get(_SPELLINGS.get(arch.strip().casefold().replace("-", "_"), ""), arch))


def width(cell: CellGenotype) -> float:
    """The sum over the intermediate nodes of the share of a node's inputs that are cell inputs."""
    return sum(state < 2 for _, state in cell.edges) / 2


def depth(cell: CellGenotype) -> int:
    """Edges on the longest path from a cell input to the cell's output, the concatenation's edge included."""
    depths = [0, 0]
    for edges in cell.nodes:
        depths.append(1 + max(depths[state] for _, state in edges))
    return 1 + max(depths[node] for node in cell.concat)
