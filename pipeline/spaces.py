"""Search spaces with a store behind them: what a space works out once is kept there."""

from __future__ import annotations

from hnas.errors import HnasError
from hnas.spaces import search_spaces
from pipeline.store import Store


class StoreCache:
    """Keeps what a space worked out in the store, under `spaces/`. See `hnas.spaces.Cache`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str) -> bytes | None:
        """The content of `spaces/<name>`, or None where there is none."""
        return self._store.read_bytes("spaces", name) if self._store.exists("spaces", name) else None

    def write(self, name: str, content: bytes) -> None:
        """Keep `content`; where the store cannot be written, it is worked out again the next time."""
        try:
            self._store.write_bytes(content, "spaces", name)
        except HnasError:
            return


def keep_in(store: Store) -> None:
    """Have the search spaces of this process keep in `store` what they work out once."""
    search_spaces.cache = StoreCache(store)
