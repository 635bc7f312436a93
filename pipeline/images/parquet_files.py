"""Which Parquet files of a folder are which split, by their names as the Hugging Face hub and others give them.

A split is files that its name begins or ends (`train-00000-of-00002.parquet`, `cifar10-test.parquet`), or a folder of
its name with files in it (`train/0000.parquet`), in a folder, its data/ or the subfolder of a configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.images.splits import TRAIN, by_role, role, role_of_file
from hnas.pipeline.io.printable import printable

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def place_of(folder: Path) -> Path | None:
    """Where the Parquet files are: `folder`, its data/, or its only subfolder with a training split; else None.

    Raises `UsageError` where several subfolders have one.
    """
    for place in (folder, folder / "data"):
        if files_in(place) or _folders(place):
            return place
    # The hub names the subfolder after a configuration, such as plain_text for cifar10.
    places = [
        path
        for path in map(folder.joinpath, _subfolders(folder))
        if any(split[0] == TRAIN for split in map(split_of, files_in(path)) if split)
        or any(role(name) == TRAIN for name in _folders(path))
    ]
    if len(places) > 1:
        names = ", ".join(printable(path.name) for path in places)
        raise UsageError(f"{printable(folder)} holds several data sets ({names}): give one's path.")
    return places[0] if places else None


def files_in(place: Path) -> list[Path]:
    """The Parquet files in a folder, by name; hidden ones, which file managers and systems leave, not."""
    return sorted(path for path in place.glob("*.parquet") if not path.name.startswith("."))


def split_of(path: Path) -> tuple[str, str] | None:
    """The split that a file's name tells, and the word that tells it."""
    return role_of_file(_SHARD.sub("", path.stem))


def _subfolders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # not there, or not ours to read: no Parquet files either
        return []


def _folders(place: Path) -> dict[str, list[Path]]:
    """The folders in `place` that are called like a split and hold Parquet files, with these."""
    found = {name: files_in(place / name) for name in _subfolders(place) if role(name)}
    return {name: files for name, files in found.items() if files}


def splits_in(place: Path) -> dict[str, tuple[Path, ...]]:
    """The Parquet files of each split. Raises `UsageError` where a shard is missing, or two names mean one split."""
    shown = printable(place)
    folders = by_role(_folders(place), shown)
    files: dict[str, list[Path]] = {}
    words: dict[str, str] = {}
    for path in files_in(place):
        meant, word = split_of(path) or (None, "")
        if meant is None:
            continue
        if words.setdefault(meant, word) != word:
            raise UsageError(
                f"{shown} has Parquet files of both {words[meant]} and {word}, and each would be its {meant} split: "
                "remove or rename one."
            )
        if meant in folders:
            raise UsageError(f"{shown} has its {meant} split both as files and in a folder: remove one.")
        files.setdefault(meant, []).append(path)
    splits = folders | files
    for meant, paths in splits.items():
        _check_shards(shown, meant, paths)
    return {meant: tuple(paths) for meant, paths in splits.items()}


def _check_shards(shown: str, split: str, paths: Sequence[Path]) -> None:
    """Raise `UsageError` unless each shard is there once, as far as the names tell: 00000-of-00002, or 0000, 0001."""
    numbers = [tuple(map(int, match.groups())) for path in paths if (match := _SHARD.search(path.stem))]
    names = f"{', '.join(printable(path.name) for path in paths[:3])}{', ...' if len(paths) > 3 else ''}"
    if numbers:
        total = numbers[0][1]
        if len(numbers) != len(paths) or numbers != [(number, total) for number in range(total)]:
            raise UsageError(
                f"{shown} does not hold each shard of its {split} split once: there are {names}, and the names tell "
                f"of {total}, {split}-00000-of-{total:05} to {split}-{total - 1:05}-of-{total:05}."
            )
    elif all(path.stem.isdecimal() for path in paths):
        counted = [int(path.stem) for path in paths]
        if counted != list(range(counted[0], counted[0] + len(paths))) or counted[0] > 1:
            raise UsageError(f"{shown} lacks shards of its {split} split: there are {names}, with gaps between them.")
