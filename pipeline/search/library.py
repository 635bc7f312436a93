"""`hnas.search_store`: a search over a store with a Python function as its oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hnas.errors import UsageError
from hnas.optim.algorithm import Evaluation, Query
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.oracles import function_oracle, open_function
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import SearchResult, run_search
from hnas.pipeline.search.settings import method_of
from hnas.pipeline.store.shipped_tables import existing_store, shipped_tables
from hnas.pipeline.store.space_cache import space_cache
from hnas.pipeline.store.store import store_location


def search_store(
    space: str,
    oracle: Callable[..., float | Evaluation],
    *,
    store: str | None = None,
    resume: str | None = None,
    dataset: str | None = None,
    run: str | None = None,
    method: str = "hnas:trace",
    options: dict[str, float | str] | None = None,
    queries: int | None = 20,
    budget: float | None = None,
    where: str | None = None,
    warm_start: Sequence[str] = (),
    epochs: int | None = None,
    seed: int = 0,
    on_query: Callable[[Query], None] = lambda query: None,
) -> SearchResult:
    """Search a run of a store, as `hnas search` does, saving each query before the next begins.

    `oracle(arch)` returns the performance of an architecture (higher is better), or an `Evaluation` with its own cost.
    Parameters called `epochs`, `seed` or `dataset` receive those of the search. An exception fails its query, which
    `on_query` receives with its `failure`, and the search continues.

    `store` is a folder or URL, by default that of the command line. `resume`, the `search` of an earlier result,
    resumes that search with its own settings. The other parameters are as on the command line: `options` are those of
    the method, `budget` is in seconds, `warm_start` lists sources of accuracies or CSV files. Raises `UsageError` for
    unknown or inconsistent arguments, and `HnasError` if all queries failed.

        result = hnas.search_store("nasbench201", accuracy_of, queries=20)
        result.best.arch, result.best.performance
    """
    place = existing_store(store_location(store), shipped_tables())
    connection = connect(place, shipped_tables())
    if resume is None:
        name, metric = method_of(method)
        text, own = function_oracle(oracle, epochs)
        started = new_search(
            connection, space=space, dataset=dataset, run=run, method=name, metric=metric, options=options,
            queries=queries, budget=budget, where=where, warm_start=warm_start, seed=seed, oracle=text, own=own,
        )  # fmt: skip
    else:
        started = open_search(connection, place, resume)
        if started.settings.space != space:
            raise UsageError(f"the search {resume} is of {started.settings.space}, not of {space}")
    evaluate = open_function(oracle, started.settings)
    with space_cache(place):
        return run_search(place, connection, started, oracle=evaluate, on_query=on_query)
