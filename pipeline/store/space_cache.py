"""A cache in the store for what search spaces compute once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces


class StoreCache:
    """Caches results of spaces under `spaces/` in a store. See `hnas.spaces.Cache`.

    Nothing is written before `flush`, so a dry run or a failing command leaves the store unchanged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """Return the content cached under `name`; None if there is none, or it is unreadable."""
        if name in self._pending:
            return self._pending[name]
        try:
            return self._store.read_bytes("spaces", name) if self._store.exists("spaces", name) else None
        except HnasError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Cache `content`, in memory until `flush`."""
        self._pending[name] = content

    def flush(self) -> None:
        """Write the cached contents; what cannot be written is computed again next time."""
        while self._pending:
            name, content = self._pending.popitem()
            try:
                self._store.write_bytes(content, "spaces", name)
            except HnasError:
                continue


@contextmanager
def space_cache(store: Store) -> Iterator[None]:
    """Let the search spaces cache their results in `store` inside this context.

    The cache is written at the end if no error occurred and the command wrote to the store anyway.
    """
    cache, before = StoreCache(store), search_spaces.cache
    search_spaces.keep_in(cache)
    try:
        yield
    finally:
        search_spaces.keep_in(before)
    if store.prepared:
        cache.flush()
