"""Registries of what hnas and installed packages provide: search spaces, scores, search methods and oracles.

A package registers with an entry point, `name = "module:Class"`, in the group of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from hnas.errors import HnasError, UsageError, did_you_mean

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """The built-in entries and those of the entry-point group `group`, by name; built-in names take precedence.

    `noun` names the kind in errors. If `made` is true, an entry point names a class, which is instantiated without
    arguments on each access; otherwise it names the value itself. Nothing is imported before it is accessed.

    `registry[name]` raises `UsageError` for an unknown name, and `HnasError` where importing or instantiating fails.
    """

    def __init__(self, group: str, noun: str, built_in: Mapping[str, str], *, made: bool = False) -> None:
        self._group, self._noun, self._made = group, noun, made
        self._built_in = {name: EntryPoint(name, value, group) for name, value in built_in.items()}

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)} | self._built_in

    def __getitem__(self, name: str) -> T:
        # Reading the metadata of all installed packages takes milliseconds.
        point = self._built_in.get(name) or self._points().get(name)
        if point is None:
            raise self._unknown(name)
        try:
            loaded = point.load()
            entry: T = loaded() if self._made else loaded
        except Exception as error:
            raise HnasError(f"{self._noun} {name!r} ({point.value}) cannot be loaded: {error}") from error
        return entry

    def _unknown(self, name: str) -> UsageError:
        names = list(self)
        return UsageError(
            f"the {self._noun} {name!r} is unknown; choose from {', '.join(names)}{did_you_mean(name, names)}"
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Return `registry[name]`, or `default` for an unknown name. Raises `HnasError` where it cannot be loaded."""
        # `Mapping.get` would let UsageError through, which is not a KeyError.
        if name not in self:
            return default
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._points()))

    def __len__(self) -> int:
        return len(self._points())

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._points()
