"""The locks of a store."""

from pathlib import Path

import pytest
from filelock import FileLock

from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.store import Store


def test_an_interrupt_just_after_locking_releases_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"))
    store.prepare()
    acquire = FileLock.acquire

    def interrupted(self: FileLock, *arguments: object, **options: object) -> None:
        acquire(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(FileLock, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt) as error, locked(store, "runs"):  # the traceback keeps the lock alive
        pass
    monkeypatch.undo()
    with locked(store, "runs", busy="it is still held"):
        assert error.traceback
