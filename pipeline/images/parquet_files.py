"""Assigns the Parquet files of a folder to splits by their names, as used on the Hugging Face hub and elsewhere.

A split consists of files whose names begin or end with its name (`train-00000-of-00002.parquet`,
`cifar10-test.parquet`), or of a folder of that name with files in it (`train/0000.parquet`). They lie in the folder
itself, in its data/, or in the subfolder of a configuration.
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
    """Return the folder with the Parquet files: `folder`, its data/, or its only subfolder with a training split.

    None if there is none. Raises `UsageError` if several subfolders have a training split.
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
        raise UsageError(f"{printable(folder)} holds several data sets ({names}); give the path of one")
    return places[0] if places else None


def files_in(place: Path) -> list[Path]:
    """Return the Parquet files in a folder, sorted by name, without the hidden ones that systems leave behind."""
    return sorted(path for path in place.glob("*.parquet") if not path.name.startswith("."))


def split_of(path: Path) -> tuple[str, str] | None:
    """Return the split named in a file's name, and the word that names it."""
    return role_of_file(_SHARD.sub("", path.stem))


def _subfolders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # missing or not readable: no Parquet files either
        return []


def _folders(place: Path) -> dict[str, list[Path]]:
    """Return the folders in `place` that are named like a split, with their Parquet files."""
    folders = {name: files_in(place / name) for name in _subfolders(place) if role(name)}
    return {name: files for name, files in folders.items() if files}


def splits_in(place: Path) -> dict[str, tuple[Path, ...]]:
    """Return the Parquet files of each split. Raises `UsageError` if a shard is missing or two names mean one split."""
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
                f"{shown} has Parquet files of both {words[meant]} and {word}, and each would be its {meant} split; "
                "remove or rename one"
            )
        if meant in folders:
            raise UsageError(f"{shown} has its {meant} split both as files and in a folder; remove one")
        files.setdefault(meant, []).append(path)
    splits = folders | files
    for meant, paths in splits.items():
        _check_shards(shown, meant, paths)
    return {meant: tuple(paths) for meant, paths in splits.items()}


def _check_shards(shown: str, split: str, paths: Sequence[Path]) -> None:
    """Raise `UsageError` unless the names (00000-of-00002, or 0000, 0001) show that every shard is there once."""
    numbers = [tuple(map(int, match.groups())) for path in paths if (match := _SHARD.search(path.stem))]
    names = f"{', '.join(printable(path.name) for path in paths[:3])}{', ...' if len(paths) > 3 else ''}"
    if numbers:
        total = numbers[0][1]
        if len(numbers) != len(paths) or numbers != [(number, total) for number in range(total)]:
            raise UsageError(
                f"{shown} does not hold each shard of its {split} split exactly once; it has {names}, and the names "
                f"announce {total}, {split}-00000-of-{total:05} to {split}-{total - 1:05}-of-{total:05}"
            )
    elif all(path.stem.isdecimal() for path in paths):
        counted = [int(path.stem) for path in paths]
        if counted != list(range(counted[0], counted[0] + len(paths))) or counted[0] > 1:
            raise UsageError(f"{shown} lacks shards of its {split} split; it has {names}, with gaps in the numbers")
