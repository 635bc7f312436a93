"""The `precompute` commands working on one run, as seen by each other and by their workers.

runs/<run>/.lock                     held briefly: while a chunk is claimed or stored, or `run.json` changes
runs/<run>/drivers/<token>.lock      held by a live command; the system releases it when the process dies
runs/<run>/drivers/<token>.claims    its claims, one JSON line each, and one line for each claim that is done
runs/<run>/drivers/<token>.revoked   the same file after the command has ended: its workers must store nothing more

An object store has neither locks nor appendable files. There the newest command revokes all others and no claims are
written; the user must run one command at a time.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hnas.errors import HnasError
from hnas.pipeline.store.run import Part, Run

_FOLDER = "drivers"
_CLAIMS, _REVOKED, _LOCK = ".claims", ".revoked", ".lock"


@contextmanager
def standing(run: Run, token: str) -> Iterator[bool]:
    """Yield whether the claims of the command `token` are valid, and keep them so. Always true without a token."""
    if not token:
        yield True
        return
    if not run.exists(_FOLDER, token + _CLAIMS):  # also if the store is gone, where there is no run to lock
        yield False
        return
    with run.locked():
        yield run.exists(_FOLDER, token + _CLAIMS)


class Log:
    """The claims that a command has written, read incrementally."""

    def __init__(self) -> None:
        self.open: dict[str, Part] = {}
        self._read = 0

    def news(self, path: str) -> tuple[list[Part], list[Part]]:
        """Return the claims in `path` since the last call, and those done since; ignores an incomplete last line."""
        with Path(path).open("rb") as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        claimed, done = [], []
        try:
            for line in text.splitlines():
                entry = json.loads(line)
                if "done" in entry:
                    done.append(self.open.pop(entry["done"]))
                else:
                    scores = tuple(entry.get("scores", ()))
                    claim = Part(entry["part"], entry["row"], tuple(entry["classes"]), scores)
                    self.open[claim.name] = claim
                    claimed.append(claim)
        except (ValueError, KeyError, TypeError) as error:
            raise HnasError(f"{path} is damaged ({error}); stop all precomputes of its run, and delete it") from error
        return claimed, done


class Drivers:
    """The commands on one run, seen by the command `token`. All methods except `done` require the run's lock."""

    def __init__(self, run: Run) -> None:
        self.token = uuid.uuid4().hex
        self._run, self._store = run, run.store
        self._lock = FileLock(self._path(self.token + _LOCK))

    def _path(self, *name: str) -> str:
        return self._run.path(_FOLDER, *name)

    def join(self) -> None:
        """Announce this command to the others."""
        if not self._store.local:
            for name in self._store.names(*self._run.place(_FOLDER)):
                self._store.fs.rm_file(self._path(name))
        self._store.refuse_links(*self._run.place(_FOLDER))
        with self._store.writing(self._path()):
            self._store.write_bytes(b"", *self._run.place(_FOLDER, self.token + _CLAIMS))
            if self._store.local:
                self._lock.acquire()

    def others(self) -> tuple[list[str], list[str]]:
        """Return the tokens of the other live commands, and of those that have ended; the latter never change back."""
        names = self._store.names(*self._run.place(_FOLDER)) if self._store.local else []
        tokens = [name.removesuffix(_CLAIMS) for name in names if name.endswith(_CLAIMS)]
        dead = [token for token in tokens if token != self.token and not self._lives(token)]
        for token in dead:
            self._revoke(token)
        ended = [name.removesuffix(_REVOKED) for name in names if name.endswith(_REVOKED)]
        return [token for token in tokens if token not in dead and token != self.token], ended + dead

    def _lives(self, token: str) -> bool:
        try:
            with FileLock(self._path(token + _LOCK), timeout=0):
                pass
        except Timeout:
            return True
        Path(self._path(token + _LOCK)).unlink(missing_ok=True)
        return False

    def _revoke(self, token: str) -> None:
        Path(self._path(token + _CLAIMS)).rename(self._path(token + _REVOKED))

    def stands(self) -> bool:
        """Return whether no command has taken this one for dead, or on an object store started after it."""
        return self._run.exists(_FOLDER, self.token + _CLAIMS)

    def log_of(self, token: str, *, ended: bool) -> str:
        """Return the path of another command's claims."""
        return self._path(token + (_REVOKED if ended else _CLAIMS))

    def claim(self, claims: list[Part]) -> None:
        """Write claims of this command to its log."""
        self._append(
            [
                {"part": claim.name, "row": claim.row, "classes": claim.classes}
                | ({"scores": claim.scores} if claim.scores else {})
                for claim in claims
            ]
        )

    def done(self, parts: list[str]) -> None:
        """Log that the chunks of these parts are stored, unless another command has taken this one for dead."""
        if parts and self._store.local and self.stands():
            self._append([{"done": part} for part in parts])

    def _append(self, entries: Sequence[Mapping[str, object]]) -> None:
        if self._store.local:
            path = self._path(self.token + _CLAIMS)
            lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
            with self._store.writing(path), Path(path).open("ab") as file:
                file.write(lines.encode())

    def leave(self) -> None:
        """Revoke this command's own claims, so that workers that outlive it store nothing more."""
        if not self._store.local:
            if self.stands():
                self._store.fs.rm_file(self._path(self.token + _CLAIMS))
            return
        if self.stands():
            self._revoke(self.token)
        self._lock.release()
        Path(self._path(self.token + _LOCK)).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the files of ended commands when none is alive."""
        folder = Path(self._path())
        if self._store.local and folder.is_dir() and not folder.is_symlink():
            for name in self._store.names(*self._run.place(_FOLDER)):
                if name.endswith((_CLAIMS, _REVOKED, _LOCK)):
                    (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds something else
                folder.rmdir()


def sweep_drivers(run: Run) -> None:
    """Remove the files of killed commands from a run, unless a command is working on it."""
    if run.store.local and run.exists(_FOLDER):
        with run.locked():
            drivers = Drivers(run)
            if not drivers.others()[0]:
                drivers.forget()


def logged(run: Run) -> dict[str, Part]:
    """Return the logged claims on a run's metrics by part: the content of a part without opening it.

    A part that was claimed twice with different rows is omitted, because the log does not say which ones were stored.
    """
    claims: dict[str, Part] = {}
    ambiguous: set[str] = set()
    for name in run.store.names(*run.place(_FOLDER)) if run.store.local else []:
        if name.endswith((_CLAIMS, _REVOKED)):
            try:
                claimed, _ = Log().news(run.path(_FOLDER, name))
            except FileNotFoundError:  # the command has just ended; its stored parts can be opened
                continue
            claimed = [claim for claim in claimed if claim.row >= 0]
            ambiguous |= {claim.name for claim in claimed if claims.setdefault(claim.name, claim).row != claim.row}
    return {part: claim for part, claim in claims.items() if part not in ambiguous}
