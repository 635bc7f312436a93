"""The names of splits, by the same rule for folders and Parquet files.

Case does not matter, nor do `_`, `-`, `.` or blanks between words, nor a last word such as `set` or `images`: `train`,
`Training` and `TRAIN_SET` all name the training split. Accuracies are those of the test split if it has labels,
otherwise of the validation split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable

TRAIN, TEST, VALIDATION = "train", "test", "validation"
_NAMES = {
    TRAIN: ("train", "training"),
    TEST: ("test", "testing"),
    VALIDATION: ("validation", "valid", "val", "eval", "evaluation", "dev", "development"),
}
_ENDINGS = ("", "set", "split", "data", "images", "imgs")
_MEANT = {name + ending: (role, name) for role, names in _NAMES.items() for name in names for ending in _ENDINGS}
_SEPARATORS = re.compile(r"[\s_.-]+")
# Such as test1, val_2, trainA: not names of a split, and hardly of a class.
_NUMBERED = re.compile(rf"(?i:{'|'.join(sorted(_MEANT, key=len, reverse=True))})[\s_.-]*(\d+|[A-Z])")
#: The accepted names, for messages.
KNOWN = "train, test or validation (also training, testing, valid, val, eval or dev, in any case)"

Named = TypeVar("Named")


def role(name: str) -> str | None:
    """Return the split named by a folder name: TRAIN, TEST, VALIDATION, or None."""
    return _MEANT.get(_SEPARATORS.sub("", name.casefold()), (None,))[0]


def role_of_file(stem: str) -> tuple[str, str] | None:
    """Return the split named by a Parquet file's name, without suffix and shard, and the word that names it.

    Words are separated by `-`, `_`, `.` or blanks: `cifar10-train`, `test_set`. None if no split is named, or two.
    """
    words = [word for word in _SEPARATORS.split(stem.casefold()) if word]
    parts = [*words, *map("".join, pairwise(words))]
    named = {_MEANT[part] for part in parts if part in _MEANT}
    return named.pop() if len(named) == 1 else None


def looks_like_a_split(name: str) -> bool:
    """Return whether a folder is named like a split, including numbered names such as `test1`."""
    return role(name) is not None or _NUMBERED.fullmatch(name) is not None


def by_role(named: Mapping[str, Named], where: str) -> dict[str, Named]:
    """Return the entries of `named` whose names are splits, by split. Raises `UsageError` if two mean one split."""
    names: dict[str, str] = {}
    for name in named:
        meant = role(name)
        if meant is not None and names.setdefault(meant, name) != name:
            raise UsageError(
                f"{where} holds both {printable(names[meant])} and {printable(name)}, and each would be its {meant} "
                "split; remove or rename one"
            )
    return {meant: named[name] for meant, name in names.items()}
