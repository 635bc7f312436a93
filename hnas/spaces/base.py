"""What a search space offers, and the registry of those that are installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hnas.errors import HnasError, UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINT_GROUP = "hnas.spaces"

# The built-in spaces work from a checkout as well, where no entry point is installed.
_BUILT_IN = {
    "darts": "hnas.spaces.darts.space:DARTS",
    "nasbench101": "hnas.spaces.nasbench101.space:NASBench101",
    "nasbench201": "hnas.spaces.nasbench201.space:NASBench201",
}


@runtime_checkable
class SearchSpace(Protocol):
    """A search space. `arch` is a string, the key that the field uses for an architecture of this space.

    `size` is the number of architectures, or None where the space cannot be enumerated. `channels` and `cells` are
    the network's size in the published experiments, used unless the user asks for another.
    """

    name: str
    size: int | None
    channels: int
    cells: int

    def enumerate(self) -> Iterator[str]:
        """Every architecture once, always in the same order."""
        ...

    def sample(self, n: int, seed: int) -> list[str]:
        """`n` distinct architectures, uniform over the space, the same for one (n, seed). Raises `UsageError`."""
        ...

    def canonical(self, arch: str) -> str:
        """A key that two architectures share only if they are one function up to the names of their parameters.

        Raises `UsageError` where `arch` is malformed.
        """
        ...

    def network(self, arch: str, *, classes: int, channels: int, cells: int, seed: int) -> nn.Module:
        """The initialised network of `canonical(arch)`, the same for every member of its class."""
        ...

    def describe(self, arch: str) -> Mapping[str, int | float | str]:
        """Static columns of `arch` at the benchmark's own size: `params`, `flops` (multiply-adds), ...

        Every architecture of a space has the same columns.
        """
        ...


@runtime_checkable
class Spelled(Protocol):
    """What a space offers besides where an architecture has several spellings, or its key does not say what it is."""

    def key(self, arch: str) -> str:
        """The one spelling under which tables hold `arch`. Raises `UsageError` where it is malformed."""
        ...

    def definition(self, arch: str) -> str:
        """A spelling from which `network` builds `arch` without looking anything up: what workers are sent."""
        ...


@runtime_checkable
class Named(Protocol):
    """A space some of whose architectures have names in the literature."""

    def named(self) -> Mapping[str, str]:
        """Those architectures by name."""
        ...


@runtime_checkable
class Printed(Protocol):
    """A space whose architectures stand in the programs and logs of others."""

    def printed(self, text: str) -> Iterator[tuple[int, str]]:
        """Each architecture in the text of a program or a log, with the number of its line, from 1."""
        ...


class Cache(Protocol):
    """Somewhere to keep what a space worked out once: bytes by name."""

    def read(self, name: str) -> bytes | None:
        """What was kept under `name`, or None."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Keep `content` under `name`."""
        ...


@runtime_checkable
class Cached(Protocol):
    """A space that works something out once and keeps it in `cache`, which `SearchSpaces.keep_in` sets."""

    cache: Cache | None


def key_of(space: SearchSpace, arch: str) -> str:
    """The spelling of `arch` under which tables hold it: the space's `key`, else `arch` without outer blanks.

    Raises `UsageError` where `arch` is malformed.
    """
    if isinstance(space, Spelled):
        return space.key(arch)
    space.canonical(arch)
    return arch.strip()


def definition_of(space: SearchSpace, arch: str) -> str:
    """A spelling of `arch` that `network` takes without looking anything up: the space's `definition`, else `arch`."""
    return space.definition(arch) if isinstance(space, Spelled) else arch


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
