"""Locks of the store: a file `.lock` in a folder, held briefly or until a search, comparison or training ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store

# Seconds between two attempts to take a lock held by another process.
_POLL = 0.005


@contextmanager
def locked(store: Store, *folder: str, name: str = ".lock", busy: str | None = None) -> Iterator[None]:
    """Hold the lock `name` of a folder of a local store, creating it if missing; an object store has no locks.

    Raises `HnasError` if the folder cannot be written or the store has been removed. If another process holds the lock,
    raises `HnasError` with the text `busy`, or waits if there is none.
    """
    if not store.local:
        yield
        return
    path = store.path(*folder, name)
    store.refuse_links(*folder, name)
    store.check_there()
    lock = FileLock(path, poll_interval=_POLL)
    try:
        # Inside the try, because an interrupt may come just after the lock is taken.
        with store.writing(path):
            store.fs.makedirs(store.path(*folder), exist_ok=True)
            try:
                lock.acquire(blocking=busy is None)
            except Timeout:
                raise HnasError(busy or "") from None
        yield
    finally:
        lock.release(force=True)
