"""A comparison request: the settings of a search for each method, the seeds, and the reference of the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb

from hnas.errors import UsageError, did_you_mean
from hnas.optim.methods.registry import methods as known_methods
from hnas.pipeline.comparison.specs import MethodSpec
from hnas.pipeline.search.request import images_for, new_search
from hnas.pipeline.search.settings import SearchSettings, TrainingSettings
from hnas.pipeline.store.comparisons import comparison_name

_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Comparison:
    """The searches to make: for each method, given by its settings for seed 0, those with seeds 0 to `seeds` − 1.

    `labels` are the methods as requested; `reference` is one of them. A deterministic method is searched only with seed
    0. `known` holds the performances of a warm start.
    """

    labels: tuple[str, ...]
    methods: tuple[SearchSettings, ...]
    seeds: int
    reference: str
    known: Mapping[str, float] | None = None

    @cached_property
    def name(self) -> str:
        """A digest of everything that determines the searches; the number of seeds and the reference do not count."""
        return comparison_name({"methods": [settings.as_dict() for settings in self.methods]})

    def varies(self, k: int) -> bool:
        """Return whether method `k` depends on the seed."""
        return known_methods[self.methods[k].method].varies

    def seeds_of(self, k: int) -> int:
        """Return the number of searches of method `k`."""
        return self.seeds if self.varies(k) else 1

    @property
    def searches(self) -> int:
        """The total number of searches."""
        return sum(self.seeds_of(k) for k in range(len(self.methods)))


def new_comparison(
    connection: duckdb.DuckDBPyConnection,
    specs: Sequence[MethodSpec],
    *,
    seeds: int,
    reference: str | None = None,
    queries: int | None = 20,
    budget: float | None = None,
    training: TrainingSettings | None = None,
    **options: Any,
) -> Comparison:
    """Return a comparison of the methods `specs`; those without their own budget get `queries` and `budget`.

    `options` are those of `hnas.pipeline.search.request.new_search`. Raises `UsageError` for unknown or inconsistent
    arguments.
    """
    if not 1 <= seeds <= _MOST_SEEDS:
        raise UsageError(f"--seeds must be between 1 and {_MOST_SEEDS:,}, got {seeds}")
    for spec in specs:
        known_methods[spec.name]  # raises
    begun = new_search(
        connection, method=specs[0].name, metric=specs[0].argument, queries=queries, budget=budget, training=training,
        **options,
    )  # fmt: skip
    first = begun.settings
    made: list[SearchSettings] = []
    for spec in specs:
        own = spec.queries is not None or spec.seconds is not None
        settings = replace(
            first,
            method=spec.name,
            metric="trace" if spec.name == "hnas" and spec.argument is None else spec.argument,
            queries=spec.queries if own else queries,
            budget=spec.seconds if own else budget,
            images=images_for(spec.name, first.dataset, options.get("dataset"), training),
        )
        if settings in made:
            raise UsageError(f"--methods has {spec} twice; name each method with its budget once")
        made.append(settings)
    labels = tuple(str(replace(spec, argument=s.metric)) for spec, s in zip(specs, made, strict=True))
    return Comparison(labels, tuple(made), seeds, _reference(reference, specs, labels), begun.known)


def _reference(requested: str | None, specs: Sequence[MethodSpec], labels: Sequence[str]) -> str:
    """Return the label of the method that others are tested against: the requested, first HNAS, or first one."""
    if requested is None:
        return next((label for spec, label in zip(specs, labels, strict=True) if spec.name == "hnas"), labels[0])
    for spec, label in zip(specs, labels, strict=True):
        if requested.strip() in (label, str(spec), spec.method, label.partition("@")[0]):
            return label
    raise UsageError(
        f"--reference {requested!r:.100} is not one of the compared methods; choose from {', '.join(labels)}"
        f"{did_you_mean(requested, labels)}"
    )
