"""The numbers that the paper prints. Those that it shows only in a picture are not here.

Table 3 quotes the searches of others. `Rival.source` names another paper where the number comes from there.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Shu, Dai, Wu, Low, NeurIPS 2022"

#: Table 1: correlation of each metric with CIFAR-10 test accuracy, by space and metric: Spearman's ρ and Kendall's τ of
#: the metric itself (realizable), then those of −(7) at its best (μ, ν) (non-realizable).
TABLE_1: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "nasbench101": {
        "grad_norm": (-0.25, -0.17, 0.35, 0.23),
        "snip": (-0.21, -0.15, 0.37, 0.25),
        "grasp": (-0.45, -0.31, 0.46, 0.32),
        "trace": (-0.30, -0.21, 0.33, 0.23),
    },
    "nasbench201": {
        "grad_norm": (0.64, 0.47, 0.75, 0.56),
        "snip": (0.64, 0.47, 0.75, 0.56),
        "grasp": (0.57, 0.40, 0.69, 0.50),
        "trace": (0.54, 0.39, 0.70, 0.51),
    },
}


@dataclass(frozen=True)
class Cell:
    """A row of Table 2: the normal cell's width, number of nodes and depth, and mean and deviation of M_Trace and κ.

    `drawn` is False for the cells whose genotype is not published (WIDE and DEEP).
    """

    name: str
    width: float
    nodes: int
    depth: int
    trace: tuple[float, float]
    kappa: tuple[float, float]
    drawn: bool = True


#: Table 2, by the names of `hnas.spaces.darts.published`.
TABLE_2: dict[str, Cell] = {
    "NASNet": Cell("NASNet", 5.0, 5, 2, (31, 2), (118, 41)),
    "AmoebaNet": Cell("AmoebaNet", 4.0, 5, 4, (36, 2), (110, 39)),
    "ENAS": Cell("ENAS", 5.0, 5, 2, (36, 2), (98, 33)),
    "DARTS_V2": Cell("DARTS", 3.5, 4, 3, (33, 2), (122, 58)),
    "SNAS": Cell("SNAS", 4.0, 4, 2, (31, 2), (126, 47)),
    "WIDE": Cell("WIDE", 4.0, 4, 2, (27, 1), (141, 36), drawn=False),
    "DEEP": Cell("DEEP", 1.5, 4, 5, (131, 16), (209, 107), drawn=False),
}

#: The data sets of Table 3, in its order.
DATASETS = ("cifar10", "cifar100", "imagenet16-120")

Accuracies = tuple[tuple[float, float | None] | None, ...]


@dataclass(frozen=True)
class Rival:
    """A row of Table 3: mean and deviation of the winner's test accuracy on each of `DATASETS`, and its seconds.

    `runs` is the number of searches behind the mean, None where it is not published.
    """

    name: str
    accuracies: Accuracies
    runs: int | None = None
    cost: float | None = None
    source: str = "Table 3"


def _row(*values: float | tuple[float, float]) -> Accuracies:
    return tuple(value if isinstance(value, tuple) else (value, None) for value in values)


#: Table 3, by the method of `hnas compare` that stands for each row.
TABLE_3: dict[str, Rival] = {
    "resnet": Rival("ResNet", _row(93.97, 70.86, 43.63), source="NAS-Bench-201, Table 5"),
    "rea": Rival("REA", _row((93.92, 0.30), (71.84, 0.99), (45.15, 0.89)), 500, 12_000),
    "random": Rival("RS (random search)", _row((93.70, 0.36), (71.04, 1.07), (44.57, 1.25)), 500, 12_000),
    "reinforce": Rival("REINFORCE", _row((93.85, 0.37), (71.71, 1.09), (45.24, 1.18)), 500, 12_000),
    "bohb": Rival("BOHB", _row((93.61, 0.52), (70.85, 1.28), (44.42, 1.49)), 500, 12_000),
    "enas": Rival("ENAS", _row(93.76, 71.11, 41.44), cost=15_120),
    "darts": Rival("DARTS (1st order)", _row(54.30, 15.61, 16.32), cost=16_281),
    "darts-second": Rival("DARTS (2nd order)", _row(54.30, 15.61, 16.32), cost=43_277),
    "gdas": Rival("GDAS", _row((93.44, 0.06), 70.61, 42.23), cost=8_640),
    "drnas": Rival("DrNAS", _row((93.98, 0.58), 72.31, 44.02), cost=14_887),
    "naswot": Rival("NASWOT", _row((92.96, 0.81), (69.98, 1.22), (44.44, 2.10)), 500, 306),
    "te-nas": Rival("TE-NAS", _row((93.90, 0.47), (71.24, 0.56), (42.38, 0.46)), cost=1_558),
    "knas": Rival("KNAS", _row(93.05, 68.91, 34.11), cost=4_200),
    "nasi": Rival("NASI", _row((93.55, 0.10), (71.20, 0.14), (44.84, 1.41)), cost=120),
    "gradsign": Rival("GradSign", _row((93.31, 0.47), (70.33, 1.28), (42.42, 2.81)), 500),
    "hnas:grad_norm": Rival("HNAS (grad_norm)", _row((94.04, 0.21), (71.75, 1.04), (45.91, 0.88)), 5, 3_010),
    "hnas:snip": Rival("HNAS (snip)", _row((93.94, 0.02), (71.49, 0.11), (46.07, 0.14)), 5, 2_976),
    "hnas:grasp": Rival("HNAS (grasp)", _row((94.13, 0.13), (72.59, 0.82), (46.24, 0.38)), 5, 3_148),
    "hnas:trace": Rival("HNAS (trace)", _row((94.07, 0.10), (72.30, 0.70), (45.93, 0.37)), 5, 3_006),
    "optimum": Rival("optimum", _row(94.37, 73.51, 47.31)),
}

#: The budgets of Figure 2 in seconds. The paper draws its curves and prints no numbers.
FIGURE_2_BUDGETS = (1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000, 16_000, 18_000)
