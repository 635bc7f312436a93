"""The protocols of search spaces: the one that each must follow, and those that some follow besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from hnas.spaces.cell_graph import CellGraph


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
class Tabulated(Protocol):
    """A space that has its keys in a table, and so looks many of them up in less time than one after the other."""

    key_form: str
    """A regular expression, read alike by Python and RE2, for the whole of a key: `key` leaves such a text as it is."""

    def first_unknown(self, keys: Sequence[str]) -> str | None:
        """The first of `keys`, distinct texts of the form `key_form`, that is no architecture's; None where all are."""
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


@runtime_checkable
class Drawn(Protocol):
    """A space whose cells have a drawing of their own. Of others the whole network is drawn."""

    def graphs(self, arch: str) -> Mapping[str, CellGraph]:
        """Each cell of `arch` by its name, as it is written. Raises `UsageError` where it is malformed."""
        ...


@runtime_checkable
class Mutable(Protocol):
    """A space in which evolution and local search can move: from an architecture to one much like it.

    Both methods take any spelling of an architecture, answer with keys, and raise `UsageError` where it is malformed.
    """

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        """A random architecture other than `arch`, by the mutation that is published for the space."""
        ...

    def neighbours(self, arch: str) -> list[str]:
        """All architectures one edit away from `arch`, each once, sorted, `arch` not among them."""
        ...


@runtime_checkable
class Categorical(Protocol):
    """A space whose architectures are made by a fixed number of decisions, each among a fixed number of options.

    `choices` holds the number of options of each decision, all at least 2.
    """

    choices: tuple[int, ...]

    def decode(self, decisions: Sequence[int]) -> str | None:
        """The key of the architecture that `decisions` make, `0 ≤ decisions[i] < choices[i]`; None for none at all."""
        ...


@runtime_checkable
class Encoded(Protocol):
    """A categorical space that goes the other way too."""

    def encode(self, arch: str) -> tuple[int, ...] | None:
        """Decisions that `decode` takes to `arch`, or to another spelling of it; None where there are none."""
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


@runtime_checkable
class Recalling(Protocol):
    """A space that would have to look an architecture up, and first asks somebody who may have its definition.

    `recall` gives the definition of a key, or None; a definition whose key is another one is not taken.
    """

    recall: Callable[[str], str | None] | None


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
