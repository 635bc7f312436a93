"""The supernets of a store: the state of each search on a supernet, to resume or answer it.

supernets/<digest>/supernet.json      the settings behind the digest: everything that determines the search
supernets/<digest>/state.checkpoint   its state after its last epoch, or its result
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hnas import __version__
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.run import now
from hnas.pipeline.store.store import Store, digest
from hnas.pipeline.store.trainings import CHECKPOINT, StoredState

FOLDER, RECORD = "supernets", "supernet.json"
STATE = f"state{CHECKPOINT}"


@contextmanager
def under_way(store: Store, settings: Mapping[str, Any]) -> Iterator[StoredState]:
    """Lock other processes out of the same search on a supernet, and yield the place of its state.

    `settings` must be JSON-serialisable and include `space` and `dataset`. Raises `HnasError` if the store cannot be
    written.
    """
    name = digest(json.dumps(settings, sort_keys=True), size=5)
    if not store.prepared:
        store.prepare()
    with locked(store, FOLDER, name):
        if not store.exists(FOLDER, name, RECORD):
            content = {"id": name, "created": now(), "hnas": __version__, "settings": dict(settings)}
            store.write_json(content, FOLDER, name, RECORD)
        yield StoredState(store, FOLDER, name, STATE)
