"""The names of splits, one rule for folders and Parquet files.

Case, and `_`, `-`, `.` or blanks between words do not matter, nor does a last word such as `set` or `images`:
`train`, `Training`, `TRAIN_SET` are the training split. The accuracies are those of the test split where it has labels,
else of the validation split.
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
# Such as test1, val_2, trainA: names of no split, and hardly of a class.
_NUMBERED = re.compile(rf"(?i:{'|'.join(sorted(_MEANT, key=len, reverse=True))})[\s_.-]*(\d+|[A-Z])")
#: The names, for messages.
KNOWN = "train, test or validation (also training, testing, valid, val, eval or dev, in any case)"

Named = TypeVar("Named")


def role(name: str) -> str | None:
    """The split that a folder of this name holds: TRAIN, TEST, VALIDATION, or None."""
    return _MEANT.get(_SEPARATORS.sub("", name.casefold()), (None,))[0]


def role_of_file(stem: str) -> tuple[str, str] | None:
    """The split that the name of a Parquet file tells, without suffix and shard, and the word that tells it.

    The words are separated by `-`, `_`, `.` or blanks: `cifar10-train`, `test_set`. None where there is none, or two.
    """
    words = [word for word in _SEPARATORS.split(stem.casefold()) if word]
    parts = [*words, *map("".join, pairwise(words))]
    found = {_MEANT[part] for part in parts if part in _MEANT}
    return found.pop() if len(found) == 1 else None


def looks_like_a_split(name: str) -> bool:
    """Whether a folder is called like a split, numbered ones such as `test1` included."""
    return role(name) is not None or _NUMBERED.fullmatch(name) is not None


def by_role(named: Mapping[str, Named], where: str) -> dict[str, Named]:
    """Those of `named` that are called like a split, by its role. Raises `UsageError` where two mean one split."""
    found: dict[str, str] = {}
    for name in named:
        meant = role(name)
        if meant is not None and found.setdefault(meant, name) != name:
            raise UsageError(
                f"{where} holds both {printable(found[meant])} and {printable(name)}, and each would be its {meant} "
                "split: remove or rename one."
            )
    return {meant: named[name] for meant, name in found.items()}
