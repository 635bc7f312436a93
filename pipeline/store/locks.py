"""Locks of the store: a file `.lock` in a folder, held for moments, or until a search, comparison or training ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store

# Seconds between two tries of a lock that somebody else holds.
_POLL = 0.005


@contextmanager
def locked(store: Store, *folder: str, name: str = ".lock", busy: str | None = None) -> Iterator[None]:
    """Hold the lock `name` of a folder of a local store, made where it is missing; an object store has none.

    Raises `HnasError` where the place cannot be written, or the store was removed meanwhile; with the text `busy` where
    somebody else holds the lock, which is waited for otherwise.
    """
    if not store.local:
        yield
        return
    path = store.path(*folder, name)
    store.refuse_links(*folder, name)
    store.check_there()
    lock = FileLock(path, poll_interval=_POLL)
    try:
        # Within: an interrupt may come when the lock is taken and nobody has been told.
        with store.writing(path):
            store.fs.makedirs(store.path(*folder), exist_ok=True)
            try:
                lock.acquire(blocking=busy is None)
            except Timeout:
                raise HnasError(busy or "") from None
        yield
    finally:
        lock.release(force=True)
