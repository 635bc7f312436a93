"""Published DARTS-style cells by name, and the width and depth by which topologies are compared.

Width and depth are those of Shu, Wang, Cai, "Understanding Architectures Learnt by Cell-based Neural Architecture
Search", ICLR 2020, as Table 2 of HNAS counts them: width is the sum over the intermediate nodes of the share of a node's
inputs that are cell inputs (in units of c, a node's channels), depth the number of edges on the longest path from a
cell input to the cell's output.
"""

from __future__ import annotations

from hnas.spaces.darts_genotype import CellGenotype, Genotype, parse

_DARTS_REDUCE = (
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
#: Table 2's cells and DARTS' first-order one. NASNet-A, AmoebaNet-A and DARTS are as in DARTS' own code; ENAS and SNAS
#: (mild constraint) as the authors of the ICLR paper write them. No source gives the wiring of WIDE and DEEP. They have
#: the operations of DARTS_V2, node by node: WIDE reads nothing but cell inputs, DEEP the two states just before each node.
NAMED: dict[str, str] = {
    name: str(parse(text))
    for name, text in {
        "NASNet": "Genotype(normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0), "
        "('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), "
        "('skip_connect', 1)], normal_concat=range(2, 7), reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), "
        "('max_pool_3x3', 1), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), "
        "('avg_pool_3x3', 2), ('sep_conv_3x3', 2), ('max_pool_3x3', 1)], reduce_concat=[4, 5, 6])",
        "AmoebaNet": "Genotype(normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1), "
        "('skip_connect', 0), ('avg_pool_3x3', 1)], normal_concat=[4, 5, 6], reduce=[('avg_pool_3x3', 0), "
        "('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), "
        "('max_pool_3x3', 0), ('max_pool_3x3', 1), ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5)], "
        "reduce_concat=[3, 4, 6])",
        "ENAS": "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 1), ('sep_conv_5x5', 1), ('skip_connect', 0), "
        "('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('avg_pool_3x3', 1), ('sep_conv_5x5', 1), "
        "('avg_pool_3x3', 0)], normal_concat=range(2, 7), reduce=[('sep_conv_5x5', 0), ('avg_pool_3x3', 1), "
        "('sep_conv_3x3', 1), ('avg_pool_3x3', 1), ('sep_conv_3x3', 1), ('avg_pool_3x3', 1), ('sep_conv_5x5', 4), "
        "('avg_pool_3x3', 1), ('sep_conv_3x3', 5), ('sep_conv_5x5', 0)], reduce_concat=[2, 3, 6])",
        "DARTS_V1": "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
        "reduce_concat=range(2, 6))",
        "DARTS_V2": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        f"normal_concat=range(2, 6), {_DARTS_REDUCE}",
        "SNAS": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1), "
        "('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('sep_conv_3x3', 1)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2), ('dil_conv_5x5', 2), ('max_pool_3x3', 0)], "
        "reduce_concat=range(2, 6))",
        "WIDE": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 1)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 0), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 1), ('skip_connect', 0), ('max_pool_3x3', 1)], "
        "reduce_concat=range(2, 6))",
        "DEEP": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2), "
        "('sep_conv_3x3', 3), ('skip_connect', 2), ('skip_connect', 3), ('dil_conv_3x3', 4)], "
        "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 2), ('skip_connect', 3), ('skip_connect', 4), ('max_pool_3x3', 3)], "
        "reduce_concat=range(2, 6))",
    }.items()
}

_SPELLINGS = {name.casefold(): name for name in NAMED} | {
    "darts": "DARTS_V2", "nasnet_a": "NASNet", "amoebanet_a": "AmoebaNet",
}  # fmt: skip


def genotype(arch: str) -> Genotype:
    """The genotype that `arch` spells or names: names in any case, `-` or `_`; `DARTS` is `DARTS_V2`, as in its code.

    Raises `UsageError` saying what is off.
    """
    return parse(NAMED.get(_SPELLINGS.get(arch.strip().casefold().replace("-", "_"), ""), arch))


def width(cell: CellGenotype) -> float:
    """The sum over the intermediate nodes of the share of a node's inputs that are cell inputs."""
    return sum(state < 2 for _, state in cell.edges) / 2


def depth(cell: CellGenotype) -> int:
    """Edges on the longest path from a cell input to the cell's output, the concatenation's edge included."""
    depths = [0, 0]
    for edges in cell.nodes:
        depths.append(1 + max(depths[state] for _, state in edges))
    return 1 + max(depths[node] for node in cell.concat)
