"""The work of a process for a comparison: it opens the store and pool once, then searches part by part.

A part is written by a single rename when all its searches are done, so a process that dies leaves nothing that counts.
If queries are trainings, a part is one search, which is saved after every query and resumes from there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import duckdb
import pyarrow as pa
from threadpoolctl import threadpool_limits

from hnas.optim.evaluations import Query
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.oracles import open_oracle
from hnas.pipeline.search.prepared import Prepared, prepare
from hnas.pipeline.search.saved import queries_table, query_of
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.comparisons import FOLDER, Part, search_name
from hnas.pipeline.store.manifests import remove_file
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.space_cache import StoreCache
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.warm_starts import read_known
from hnas.spaces import search_spaces


@dataclass(frozen=True)
class Job:
    """The common settings of a comparison's parts: the store, the name, and the settings of its methods as JSON.

    `token` names the command. A worker on a cluster may outlive it, and the accuracies in the store may then differ.
    """

    store: str
    comparison: str
    methods: str
    device: str
    partial: bool = False
    token: str = ""


class Opened:
    """A store opened with the pool of one comparison."""

    def __init__(
        self,
        job: Job,
        store: Store,
        connection: duckdb.DuckDBPyConnection,
        known: Mapping[str, float] | None = None,
    ) -> None:
        self._known = known
        self.job, self.store, self._connection = job, store, connection
        self.settings = [SearchSettings.from_dict(saved) for saved in json.loads(job.methods)]
        self.first = self._prepared(self.settings[0], None)
        self._prepared_methods: dict[int, Prepared] = {0: self.first}

    @property
    def pool(self) -> RunPool:
        """The candidates of all methods."""
        return self.first.pool

    def _prepared(self, settings: SearchSettings, pool: RunPool | None) -> Prepared:
        return prepare(
            self._connection,
            settings,
            oracle=None if settings.own is None else open_oracle(settings),  # a job comes from a command line
            known=self._known,
            pool=pool,
            store=self.store,
            device=self.job.device,
            partial=self.job.partial,
            threads=1,
        )

    def prepared(self, k: int, seed: int = 0) -> Prepared:
        """Return the search of method `k` with `seed`. Raises the errors of `hnas.pipeline.search.prepared.prepare`."""
        if self.settings[k].evaluates and seed:  # the oracle depends on the seed
            return self._prepared(replace(self.settings[k], seed=seed), self.pool)
        if k not in self._prepared_methods:
            self._prepared_methods[k] = self._prepared(self.settings[k], self.pool)
        return replace(self._prepared_methods[k], settings=replace(self.settings[k], seed=seed))

    def run(self, part: Part, on_query: Callable[[], None] = lambda: None) -> None:
        """Make the searches of `part` and store them. Raises the errors of a search."""
        tables = [self._searched(part, seed, on_query) for seed in part.seeds]
        self.store.write_table(pa.concat_tables(tables), FOLDER, self.job.comparison, part.name)
        if self.settings[part.k].evaluates:
            remove_file(self.store, FOLDER, self.job.comparison, part.partial)

    def _searched(self, part: Part, seed: int, on_query: Callable[[], None]) -> pa.Table:
        prepared = self.prepared(part.k, seed)
        history = self._history(part) if prepared.settings.evaluates else []
        saved = list(history)

        def save(query: Query) -> None:
            if prepared.settings.evaluates:
                saved.append(query)
                self.store.write_table(self._table(part.k, seed, saved), FOLDER, self.job.comparison, part.partial)
            on_query()

        # One thread each: splitting sums differently would change the search, and processes already fill the machine.
        with threadpool_limits(1):
            return self._table(part.k, seed, prepared.run(history, save))

    def _history(self, part: Part) -> list[Query]:
        place = (FOLDER, self.job.comparison, part.partial)
        if not self.store.exists(*place):
            return []
        return [query_of(row) for row in self.store.read_table(None, *place).to_pylist()]

    def _table(self, k: int, seed: int, queries: list[Query]) -> pa.Table:
        table = queries_table(queries)
        name = search_name(self.job.comparison, k, seed)
        seeds = pa.array([seed] * len(queries), pa.int64())
        return table.add_column(0, "search", [[name] * len(queries)]).add_column(1, "seed", [seeds])


# A worker may have several threads, but a connection is for one thread.
_one_at_a_time = threading.Lock()


@lru_cache(maxsize=1)
def opened(job: Job) -> Opened:
    """Return the store and pool of a job, opened once per process."""
    store = Store(job.store)
    store.check_version()
    search_spaces.keep_in(StoreCache(store))  # read only: reuses what the driver's space has computed
    connection = connect(store, shipped_tables())
    connection.execute("SET threads = 1")
    warm = SearchSettings.from_dict(json.loads(job.methods)[0]).warm
    known = None if warm is None else read_known(store, warm.digest, FOLDER, job.comparison)
    return Opened(job, store, connection, known)


def run_part(job: Job, part: Part) -> int:
    """Make and store one part, and return the number of its searches. Idempotent."""
    with _one_at_a_time:
        opened(job).run(part)
    return len(part.seeds)
