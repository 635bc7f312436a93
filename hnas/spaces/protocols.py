"""The protocols of search spaces: the mandatory one, and optional ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from hnas.spaces.cell_graph import CellGraph


@runtime_checkable
class SearchSpace(Protocol):
    """A search space. `arch` is a string, the key that is customary in the field for an architecture of this space.

    `size` is the number of architectures, None where the space cannot be enumerated. `channels` and `cells` are the
    network size of the published experiments, the default unless the user chooses another.
    """

    name: str
    size: int | None
    channels: int
    cells: int

    def enumerate(self) -> Iterator[str]:
        """Yield every architecture once, always in the same order."""
        ...

    def sample(self, n: int, seed: int) -> list[str]:
        """Draw `n` distinct architectures uniformly, the same for the same (n, seed). Raises `UsageError`."""
        ...

    def canonical(self, arch: str) -> str:
        """Return a key that two architectures share only if they are the same function up to renaming parameters.

        Raises `UsageError` for a malformed `arch`.
        """
        ...

    def network(self, arch: str, *, classes: int, channels: int, cells: int, seed: int) -> nn.Module:
        """Build the initialised network of `canonical(arch)`, which is the same for all members of its class."""
        ...

    def describe(self, arch: str) -> Mapping[str, int | float | str]:
        """Return static columns of `arch` at the benchmark's own size: `params`, `flops` (multiply-adds), ...

        All architectures of a space have the same columns.
        """
        ...


@runtime_checkable
class Spelled(Protocol):
    """Optional: a space whose architectures have several spellings, or keys that do not define the architecture."""

    def key(self, arch: str) -> str:
        """Return the one spelling of `arch` used in tables. Raises `UsageError` where it is malformed."""
        ...

    def definition(self, arch: str) -> str:
        """Return a spelling from which `network` builds `arch` without a lookup, as sent to workers."""
        ...


@runtime_checkable
class Tabulated(Protocol):
    """Optional: a space with a table of its keys, in which it can look up many keys at once."""

    key_form: str
    """A regular expression for a whole key, valid for both Python and RE2; `key` returns such a text unchanged."""

    def first_unknown(self, keys: Sequence[str]) -> str | None:
        """Return the first of `keys`, distinct texts of the form `key_form`, without an architecture, or None."""
        ...


@runtime_checkable
class Named(Protocol):
    """Optional: a space some of whose architectures have names in the literature."""

    def named(self) -> Mapping[str, str]:
        """Return these architectures by name."""
        ...


@runtime_checkable
class Printed(Protocol):
    """Optional: a space whose architectures appear in the programs and logs of others."""

    def printed(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield each architecture in the text of a program or log, with its line number from 1."""
        ...


@runtime_checkable
class Drawn(Protocol):
    """Optional: a space that provides drawings of its cells. For other spaces the whole network is drawn."""

    def graphs(self, arch: str) -> Mapping[str, CellGraph]:
        """Return each cell of `arch` by name, as written. Raises `UsageError` where it is malformed."""
        ...


@runtime_checkable
class Mutable(Protocol):
    """Optional: a space for evolution and local search, which move from an architecture to a similar one.

    Both methods take any spelling of an architecture, return keys, and raise `UsageError` where it is malformed.
    """

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        """Return a random architecture other than `arch`, by the mutation published for the space."""
        ...

    def neighbours(self, arch: str) -> list[str]:
        """Return all architectures one edit away from `arch`, sorted, each once, without `arch` itself."""
        ...


@runtime_checkable
class Categorical(Protocol):
    """Optional: a space whose architectures are given by a fixed number of decisions, each with fixed options.

    `choices` holds the number of options of each decision, all at least 2.
    """

    choices: tuple[int, ...]

    def decode(self, decisions: Sequence[int]) -> str | None:
        """Return the key of the architecture of `decisions`, `0 ≤ decisions[i] < choices[i]`, None if there is none."""
        ...


@runtime_checkable
class Encoded(Protocol):
    """Optional: a categorical space that can also encode architectures."""

    def encode(self, arch: str) -> tuple[int, ...] | None:
        """Return decisions that `decode` maps to `arch`, or to another spelling of it, None if there are none."""
        ...


class Cache(Protocol):
    """Storage for what a space computes once: bytes by name."""

    def read(self, name: str) -> bytes | None:
        """Return the content stored under `name`, or None."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store `content` under `name`."""
        ...


@runtime_checkable
class Cached(Protocol):
    """Optional: a space that computes something once and keeps it in `cache`, set by `SearchSpaces.keep_in`."""

    cache: Cache | None


@runtime_checkable
class Recalling(Protocol):
    """Optional: a space that looks architectures up, and first asks `recall` for the definition.

    `recall` returns the definition of a key, or None; a definition with another key is ignored.
    """

    recall: Callable[[str], str | None] | None


def key_of(space: SearchSpace, arch: str) -> str:
    """Return the spelling of `arch` used in tables: the space's `key`, else `arch` without surrounding blanks.

    Raises `UsageError` where `arch` is malformed.
    """
    if isinstance(space, Spelled):
        return space.key(arch)
    space.canonical(arch)
    return arch.strip()


def definition_of(space: SearchSpace, arch: str) -> str:
    """Return a spelling of `arch` that `network` builds without a lookup: the space's `definition`, else `arch`."""
    return space.definition(arch) if isinstance(space, Spelled) else arch
