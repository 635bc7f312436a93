"""Tab completion: spaces, metrics, data sets, and the contents of the current store. Does not load torch.

A store that cannot be read completes to nothing, because completion must not print errors.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hnas.pipeline.store.store import Store

Words = list[tuple[str, str]]

_STATIC = ("params", "flops")
# Maximum number of runs that are read for their descriptions.
_MOST_RUNS = 200


def spaces(incomplete: str) -> Words:
    """Complete the installed search spaces."""
    from hnas.spaces import search_spaces

    return _beginning(incomplete, ((name, "") for name in search_spaces))


def metrics(incomplete: str) -> Words:
    """Complete the metrics that a search can use."""
    from hnas.metrics.columns import COLUMNS

    return _beginning(incomplete, ((name, "") for name in COLUMNS if name != "kappa"))


def methods(incomplete: str) -> Words:
    """Complete the installed search methods."""
    from hnas.optim.methods.registry import methods as installed

    return _beginning(incomplete, ((name, "") for name in installed))


def oracles(incomplete: str) -> Words:
    """Complete the built-in and installed oracles."""
    from hnas.optim.oracles import oracles as installed

    return _beginning(incomplete, ((name, "") for name in ("table", "train", "table,train", *installed)))


def importers(incomplete: str) -> Words:
    """Complete the kinds of files that can be imported."""
    from hnas.pipeline.io.importers import importers as installed

    return _beginning(incomplete, ((name, "") for name in installed))


def accuracies(incomplete: str) -> Words:
    """Complete the accuracies that can guide a search."""
    return _beginning(incomplete, (("valid_accuracy", ""), ("test_accuracy", "")))


def columns(incomplete: str) -> Words:
    """Complete the columns that can be correlated."""
    from hnas.metrics.columns import COLUMNS

    return _beginning(incomplete, ((f"{part}_accuracy", "") for part in ("test", "valid", "train"))) + _beginning(
        incomplete, ((name, "") for name in (*COLUMNS, *_STATIC))
    )


def fetchable(incomplete: str) -> Words:
    """Complete the sources of `hnas fetch`."""
    from hnas.pipeline.io.fetch import SOURCES

    return _beginning(incomplete, ((name, "") for name in SOURCES))


def datasets(ctx: Any, incomplete: str) -> Words:
    """Complete the named data sets and those of the store's runs."""
    names = {"digits": "", "cifar10": "", "cifar100": "", "imagenet16-120": ""}
    names |= {
        settings["dataset"]: "" for settings in _settings(ctx).values() if isinstance(settings.get("dataset"), str)
    }
    return _beginning(incomplete, names.items())


def runs(ctx: Any, incomplete: str) -> Words:
    """Complete the runs of the store and of the attached tables, with a description."""
    described = {
        run: f"{settings.get('space')} on {settings.get('dataset')}, seed {settings.get('seed')}"
        for run, settings in _settings(ctx).items()
    }
    return _beginning(incomplete, described.items())


def searches(ctx: Any, incomplete: str) -> Words:
    """Complete the saved searches of the store."""
    place, names = _store(ctx), []
    with contextlib.suppress(Exception):
        names = place.names("searches") if place is not None else []
    return _beginning(incomplete, ((name, "") for name in names))


def comparisons(ctx: Any, incomplete: str) -> Words:
    """The comparisons of the store."""
    place, names = _store(ctx), []
    with contextlib.suppress(Exception):
        names = place.names("comparisons") if place is not None else []
    return _beginning(incomplete, ((name, "") for name in names))


def removable(ctx: Any, incomplete: str) -> Words:
    """Complete what `hnas rm` can remove from the store."""
    place, words = _store(ctx), []
    with contextlib.suppress(Exception):
        if place is not None:
            from hnas.pipeline.store.removal import held_names

            words = [name for names in held_names(place).values() for name in names]
    return _beginning(incomplete, ((name, "") for name in words))


def _beginning(incomplete: str, words: Any) -> Words:
    return [(word, about) for word, about in sorted(words) if word.startswith(incomplete) and word.isprintable()]


def _store(ctx: Any) -> Store | None:
    """Return the store given on the command line so far."""
    with contextlib.suppress(Exception):
        from hnas.pipeline.store.store import Store, store_location

        return Store(store_location(ctx.params.get("store")))
    return None


def _settings(ctx: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of each run in the store and in the attached tables."""
    place, settings = _store(ctx), {}
    with contextlib.suppress(Exception):
        from hnas.pipeline.store.run import runs_of
        from hnas.pipeline.store.shipped_tables import runs_beside, shipped_tables

        runs = [*runs_of(place), *runs_beside(place, shipped_tables()).values()] if place is not None else []
        for run in runs[:_MOST_RUNS]:
            with contextlib.suppress(Exception):
                settings[run.name] = run.read_record()["settings"]
    return settings
