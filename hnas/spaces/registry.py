"""The registry of the installed search spaces, and the space that a string is an architecture of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.spaces.protocols import Cache, Cached, SearchSpace, Tabulated

ENTRY_POINT_GROUP = "hnas.spaces"

# The built-in spaces work from a checkout as well, where no entry point is installed.
_BUILT_IN = {
    "darts": "hnas.spaces.darts.space:DARTS",
    "nasbench101": "hnas.spaces.nasbench101.space:NASBench101",
    "nasbench201": "hnas.spaces.nasbench201.space:NASBench201",
}


class SearchSpaces(Mapping[str, SearchSpace]):
    """The installed search spaces by name: the built-in ones and those of the entry-point group `hnas.spaces`.

    A space is imported and made when it is first asked for. `spaces[name]` raises `UsageError` for an unknown name.
    """

    def __init__(self) -> None:
        self._made: dict[str, SearchSpace] = {}
        self.cache: Cache | None = None

    def _targets(self) -> dict[str, EntryPoint]:
        installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
        return installed | {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in _BUILT_IN.items()}

    def __getitem__(self, name: str) -> SearchSpace:
        if name not in self._made:
            targets = self._targets()
            if name not in targets:
                known = ", ".join(sorted(targets))
                raise UsageError(
                    f"there is no search space {name!r}; installed are: {known}{did_you_mean(name, targets)}"
                )
            try:
                self._made[name] = targets[name].load()()
            except Exception as error:
                raise HnasError(f"search space {name!r} ({targets[name].value}) cannot be loaded: {error}") from error
            self.keep_in(self.cache)
        return self._made[name]

    def keep_in(self, cache: Cache | None) -> None:
        """Have all spaces keep in `cache` what they work out once."""
        self.cache = cache
        for space in self._made.values():
            if isinstance(space, Cached):
                space.cache = cache

    def get(self, name: str, default: Any = None) -> Any:
        """The space of that name, or `default` where there is none."""
        if name not in self:
            return default
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets()))

    def __len__(self) -> int:
        return len(self._targets())

    def __contains__(self, name: object) -> bool:
        return name in self._targets()


search_spaces = SearchSpaces()


def space_of(arch: str) -> SearchSpace:
    """The installed space that takes `arch`. Raises `UsageError` with what each of them objects to where none does."""
    complaints = {}
    for name in search_spaces:
        try:
            search_spaces[name].canonical(arch)
        except HnasError as error:  # not of this space, or the package of this space is broken
            complaints[name] = error
            continue
        return search_spaces[name]
    if len(complaints) == 1:
        raise next(iter(complaints.values()))
    shown = arch if len(arch) <= 120 else arch[:117] + "..."
    said = "; ".join(f"{name} says that {error}" for name, error in complaints.items())
    raise UsageError(f"{shown!r} is an architecture of no installed space ({', '.join(complaints)}): {said}")


def space_of_form(arch: str) -> str | None:
    """The name of the space that `space_of` finds, or None, where a key's form is enough: no table of keys is made."""
    for name in search_spaces:
        try:
            space = search_spaces[name]
            if not isinstance(space, Tabulated):
                space.canonical(arch)
            elif not re.fullmatch(space.key_form, arch):
                continue
            return name
        except HnasError:
            continue
    return None
