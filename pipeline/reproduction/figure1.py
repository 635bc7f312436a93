"""Figure 1: how the four metrics agree with each other over the architectures of both spaces.

The paper shows each pair as a cloud of points with its correlation r, in a picture. Here are Spearman's ρ and Kendall's
τ of each pair, with intervals over classes. GraSP enters by its absolute value: eq. (3) has no sign.
"""

from __future__ import annotations

from itertools import combinations

import duckdb
import numpy as np

from hnas.pipeline.analysis.ranks import MEASURES
from hnas.pipeline.reproduction.bootstrap import interval, resample
from hnas.pipeline.reproduction.measured import measured
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
        found = measured(connection, space, [*_METRICS, "kappa"])
        if isinstance(found, Missing):
            missing.append(found)
            continue
        alive = np.isfinite(found.columns[0]["kappa"])
        columns = {name: np.abs(found.columns[0][name][alive]) for name in _METRICS}
        classes = found.classes[alive]
        values: dict[tuple[str, str], tuple[Value, ...]] = {}
        for k, name in enumerate(_METRICS[:-1]):
            others = _METRICS[k + 1 :]
            resampled = resample(classes, columns[name], [columns[other] for other in others], resamples=_RESAMPLES)
            for j, other in enumerate(others):
                values[name, other] = tuple(
                    Value(MEASURES[method](columns[name], columns[other]), *(interval(drawings[:, j]) or (None, None)))
                    for method, drawings in (("spearman", resampled.spearman), ("kendall", resampled.kendall))
                )
        rows = tuple(Row(f"{x}, {y}", values[x, y]) for x, y in combinations(_METRICS, 2))
        heading = (
            f"{space} on {found.chosen.settings.dataset}, {int(alive.sum()):,} architectures with a finite κ, "
            f"run {found.chosen.name}"
        )
        sections.append(Section(heading, space, "metrics", ("ρ", "τ"), rows))
        drawn[space] = columns
    notes = (
        f"The interval of 95 % is over architectures, of {_RESAMPLES} resamples of classes; grasp is taken "
        "by its absolute value.",
    )
    title = "Figure 1: agreement of the metrics with each other"
    return Reproduction("figure1", title, tuple(sections), tuple(missing), notes if sections else (), drawn)
