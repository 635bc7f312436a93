"""A pickle memo of bounded size that forgets what is no longer needed."""

from __future__ import annotations

from itertools import islice
from typing import Any

from hnas.pipeline.importers.pickles.names import SKIPPED, Dtype, Global

#: How many strings of finished parts are kept, and the longest such string.
RECENT, NAME = 2**15, 200
#: How many objects are kept for the whole file.
KEPT = 2**18


class ForgottenError(Exception):
    """The pickle refers to an object that the memo has dropped."""


class Memo:
    """The memo entries of the current part of the pickle, and those of earlier parts that later ones may share.

    Classes and strings such as `train_losses` may be shared; a string is kept for good once another part has asked for
    it. `needed` lists further slots to keep. If `lost` is not None, it collects the slots that were asked for after
    being dropped, and `SKIPPED` takes the place of their values.
    """

    def __init__(self, needed: frozenset[int] = frozenset(), lost: set[int] | None = None) -> None:
        self.lost = lost
        self._count = 0
        self._needed = needed
        self._highest = -1
        self._forgetful = False
        self._keys: dict[int, Any] = {}  # keys of runs of entries, by far the largest group
        self._young: dict[int, Any] = {}
        self._recent: dict[int, str] = {}
        self._kept: dict[int, Any] = {}

    def __setitem__(self, place: int, value: Any) -> None:
        self._young[place] = value
        self._count += 1
        self._highest = max(self._highest, place)

    def __len__(self) -> int:
        return self._count

    def put_keys(self, places: list[int] | range, keys: list[Any]) -> None:
        self._keys.update(zip(places, keys, strict=True))
        self._count += len(places)
        self._highest = max(self._highest, max(places))

    def __getitem__(self, place: int) -> Any:
        """Return the value in slot `place`. Raises `ForgottenError` if it was dropped, `IndexError` if never filled."""
        for part in (self._young, self._keys, self._kept):
            if place in part:
                return part[place]
        if place in self._recent:
            name = self._kept[place] = self._recent.pop(place)
            return name
        if place > self._highest or not self._forgetful or self._needed:
            # Everything needed is kept, so a missing slot was never filled; some damaged files skip slots.
            raise IndexError(place)
        if self.lost is None:
            raise ForgottenError
        self.lost.add(place)
        return SKIPPED

    def get_keys(self, places: list[int]) -> list[Any]:
        try:
            return list(map(self._keys.__getitem__, places))
        except KeyError:
            return list(map(self.__getitem__, places))

    def keep(self) -> None:
        """Keep everything so far, since later parts share it."""
        self._kept |= self._young | self._keys
        self._young, self._keys = {}, {}

    def forget(self) -> None:
        """Drop what only the current part, now finished, needed."""
        self._forgetful = True
        for place, value in self._young.items():
            if type(value) is str:
                if len(value) <= NAME:
                    self._recent[place] = value
            elif type(value) is Global or type(value) is Dtype:
                self._kept[place] = value
        if self._needed:
            both = self._young | self._keys
            self._kept |= {place: both[place] for place in self._needed.intersection(both)}
        if len(self._recent) > 2 * RECENT:
            self._recent = dict(islice(self._recent.items(), len(self._recent) - RECENT, None))
        self._young, self._keys = {}, {}

    @property
    def overflows(self) -> bool:
        """Whether parts share more objects than they do in the benchmarks' files."""
        return len(self._kept) > KEPT or (self.lost is not None and len(self.lost) > KEPT)
