"""A comparison as the store has it, without the command that made it."""

from __future__ import annotations

from collections import Counter

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.specs import MethodSpec
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.comparisons import FOLDER, RECORD, comparison_name, stored_parts
from hnas.pipeline.store.store import Store


def stored_comparison(store: Store, name: str) -> Comparison:
    """The comparison `name` with as many seeds as each of its methods is finished with.

    The reference is the first HNAS, else the first method. Raises `UsageError` where there is none of that name or none
    of its searches, `HnasError` where its record is damaged.
    """
    if not name or "/" in name or not store.exists(FOLDER, name, RECORD):
        hint = did_you_mean(name, store.names(FOLDER))
        raise UsageError(
            f"there is no comparison {name!r} in {store.location}; `hnas sql 'FROM comparisons'` lists them{hint}"
        )
    saved = store.read_json(FOLDER, name, RECORD).get("methods")
    try:
        methods = tuple(SearchSettings.from_dict(settings) for settings in saved or [])
    except TypeError as error:
        raise HnasError(f"{FOLDER}/{name}/{RECORD} has settings this hnas does not know: {error}") from error
    if comparison_name({"methods": [settings.as_dict() for settings in methods]}) != name:
        raise HnasError(f"{FOLDER}/{name}/{RECORD} has the settings of another comparison; restore it, or remove it")
    labels = _labels(methods)
    reference = next((label for label, of in zip(labels, methods, strict=True) if of.method == "hnas"), labels[0])
    made = Comparison(labels, methods, 1, reference)
    done: dict[int, set[int]] = {k: set() for k in range(len(methods))}
    for part in stored_parts(store, name):
        done.get(part.k, set()).update(part.seeds)
    if lacking := [labels[k] for k, seeds in done.items() if 0 not in seeds]:
        raise UsageError(
            f"comparison {name} has no finished search of {', '.join(lacking)}; the same `hnas compare` goes on with it"
        )
    finished = [next(n for n in range(len(seeds) + 1) if n not in seeds) for k, seeds in done.items() if made.varies(k)]
    return Comparison(labels, methods, min(finished, default=1), reference)


def _labels(methods: tuple[SearchSettings, ...]) -> tuple[str, ...]:
    """The methods as command lines write them, with their budgets where these tell methods of one name apart."""
    specs = [MethodSpec(settings.method, settings.metric) for settings in methods]
    counts = Counter(str(spec) for spec in specs)
    return tuple(
        str(spec) if counts[str(spec)] == 1 else str(MethodSpec(spec.name, spec.argument, of.queries, of.budget))
        for spec, of in zip(specs, methods, strict=True)
    )
