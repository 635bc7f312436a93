"""Figure 1: how well the four metrics agree with each other over the architectures of both spaces.

The paper's picture shows each pair of metrics as a cloud of points with its correlation r. This module computes
Spearman's ρ and Kendall's τ of each pair, with intervals over classes. It takes the absolute value of GraSP, because
eq. (3) has no sign.
"""

from __future__ import annotations

from itertools import combinations

import duckdb
import numpy as np

from hnas.pipeline.analysis.ranks import FEWEST, MEASURES
from hnas.pipeline.reproduction.bootstrap import interval, resample
from hnas.pipeline.reproduction.measured import measured, too_few
from hnas.pipeline.reproduction.published import TABLE_1
from hnas.pipeline.reproduction.results import Missing, Reproduction, Row, Section, Value

_RESAMPLES = 400
_METRICS = ("grad_norm", "snip", "grasp", "trace")


def compute(connection: duckdb.DuckDBPyConnection) -> Reproduction:
    """Figure 1 of both spaces, over the architectures with a finite κ. Deterministic."""
    sections: list[Section] = []
    missing: list[Missing] = []
    drawn = {}
    for space in TABLE_1:
        of_space = measured(connection, space, [*_METRICS, "kappa"])
        if isinstance(of_space, Missing):
            missing.append(of_space)
            continue
        finite = np.isfinite(of_space.columns[0]["kappa"])
        columns = {name: np.abs(of_space.columns[0][name][finite]) for name in _METRICS}
        classes = of_space.classes[finite]
        if (count := len(np.unique(classes))) < FEWEST:
            missing.append(too_few(space, count))
            continue
        values: dict[tuple[str, str], tuple[Value, ...]] = {}
        for k, name in enumerate(_METRICS[:-1]):
            others = _METRICS[k + 1 :]
            resampled = resample(classes, columns[name], [columns[other] for other in others], resamples=_RESAMPLES)
            for j, other in enumerate(others):
                values[name, other] = tuple(
                    Value(
                        MEASURES[method](columns[name], columns[other]), *(interval(coefficients[:, j]) or (None, None))
                    )
                    for method, coefficients in (("spearman", resampled.spearman), ("kendall", resampled.kendall))
                )
        rows = tuple(Row(f"{x}, {y}", values[x, y]) for x, y in combinations(_METRICS, 2))
        heading = (
            f"{space} on {of_space.chosen.settings.dataset}, {int(finite.sum()):,} architectures with a finite κ, "
            f"run {of_space.chosen.name}"
        )
        sections.append(Section(heading, space, "metrics", ("ρ", "τ"), rows))
        drawn[space] = columns
    notes = (
        f"The 95 % intervals are over architectures, from {_RESAMPLES} resamples of the classes; grasp is its absolute "
        "value.",
    )
    title = "Figure 1: agreement of the metrics with each other"
    return Reproduction("figure1", title, tuple(sections), tuple(missing), notes if sections else (), drawn)
