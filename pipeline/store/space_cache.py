"""Search spaces with a store behind them: what a space works out once is kept there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces


class StoreCache:
    """Keeps what spaces work out under `spaces/` in a store. See `hnas.spaces.Cache`.

    Nothing is written before `flush`: a dry run and a command that fails leave the store as it was.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """The content kept under `name`, or None where there is none that can be read."""
        if name in self._pending:
            return self._pending[name]
        try:
            return self._store.read_bytes("spaces", name) if self._store.exists("spaces", name) else None
        except HnasError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Keep `content`, in memory until `flush`."""
        self._pending[name] = content

    def flush(self) -> None:
        """Write what is to be kept; where the store cannot be written, it is worked out again the next time."""
        while self._pending:
            name, content = self._pending.popitem()
            try:
                self._store.write_bytes(content, "spaces", name)
            except HnasError:
                continue


@contextmanager
def space_cache(store: Store) -> Iterator[None]:
    """Have the search spaces keep in `store` what they work out within.

    It is written at the end, where all went well and the command wrote to the store anyway.
    """
    cache, before = StoreCache(store), search_spaces.cache
    search_spaces.keep_in(cache)
    try:
        yield
    finally:
        search_spaces.keep_in(before)
    if store.prepared:
        cache.flush()
