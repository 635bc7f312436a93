"""The registry of search spaces, and finding the space of an architecture."""

from __future__ import annotations

import re

from hnas.errors import HnasError, UsageError
from hnas.registry import Registry
from hnas.spaces.protocols import Cache, Cached, SearchSpace, Tabulated

ENTRY_POINT_GROUP = "hnas.spaces"

_BUILT_IN = {
    "darts": "hnas.spaces.darts.space:DARTS",
    "nasbench101": "hnas.spaces.nasbench101.space:NASBench101",
    "nasbench201": "hnas.spaces.nasbench201.space:NASBench201",
}


class SearchSpaces(Registry[SearchSpace]):
    """The installed search spaces by name: the built-in ones and those of the entry-point group `hnas.spaces`.

    A space is imported and created on first access. For errors see `hnas.registry.Registry`.

    >>> from hnas import search_spaces
    >>> space = search_spaces["nasbench201"]
    >>> space.size, space.canonical("|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|none~2|")
    (15625, 'y=0')
    """

    def __init__(self) -> None:
        super().__init__(ENTRY_POINT_GROUP, "search space", _BUILT_IN, made=True)
        self._spaces: dict[str, SearchSpace] = {}
        self.cache: Cache | None = None

    def __getitem__(self, name: str) -> SearchSpace:
        if name not in self._spaces:
            self._spaces[name] = super().__getitem__(name)
            self.keep_in(self.cache)
        return self._spaces[name]

    def keep_in(self, cache: Cache | None) -> None:
        """Make all spaces keep in `cache` what they compute once."""
        self.cache = cache
        for space in self._spaces.values():
            if isinstance(space, Cached):
                space.cache = cache


search_spaces = SearchSpaces()


def space_of(arch: str) -> SearchSpace:
    """Return the installed space of `arch`. Raises `UsageError`, with the objection of each, where there is none."""
    complaints = {}
    for name in search_spaces:
        try:
            search_spaces[name].canonical(arch)
        except HnasError as error:  # not of this space, or the space's package is broken
            complaints[name] = error
            continue
        return search_spaces[name]
    if len(complaints) == 1:
        raise next(iter(complaints.values()))
    shown = arch if len(arch) <= 120 else arch[:117] + "..."
    reasons = "; ".join(f"{name}: {error}" for name, error in complaints.items())
    raise UsageError(f"{shown!r} must be an architecture of an installed space ({', '.join(complaints)}); {reasons}")


def space_of_form(arch: str) -> str | None:
    """Return the name of the space that `space_of` finds, or None, judging keys by form and without their table."""
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
