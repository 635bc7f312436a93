"""The names of data sets: `CIFAR-10`, `cifar_10` and `CIFAR10` are all `cifar10`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hnas.errors import closest
from hnas.pipeline.io.printable import printable

#: The data sets that benchmarks and this package use, in the spelling of stores.
KNOWN = (
    "digits",
    "cifar10",
    "cifar10-valid",
    "cifar100",
    "cifar100-ori-test",
    "imagenet16-120",
    "imagenet16-120-ori-test",
    "svhn",
    "ninapro",
    "scifar100",
)

#: The data sets of ten classes, on which chance is 10 %.
TEN_CLASSES = ("digits", "cifar10", "cifar10-valid", "svhn")
#: The side in pixels of the images of data sets that have only one.
SIDES = {
    "digits": 8,
    **dict.fromkeys(("cifar10", "cifar10-valid", "cifar100", "cifar100-ori-test", "svhn"), 32),
    **dict.fromkeys(("imagenet16-120", "imagenet16-120-ori-test"), 16),
}
#: The maximum length of a data set's name.
LONGEST = 200
# The folders in official archives. Their images are those of the data set, so they share its name and constants.
_ARCHIVE_NAMES = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100", "imagenet16": "imagenet16-120"}


def squeezed_dataset(name: str) -> str:
    """Return `name` in lower case without hyphens, underscores and blanks."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_SPELLINGS = {squeezed_dataset(name): name for name in KNOWN}


def canonical_dataset(name: str) -> str:
    """Return `name` in the spelling of stores: a name of `KNOWN` regardless of case, hyphens, underscores and blanks.

    Other names become lower case. The macro `canonical_dataset` in `pipeline/catalog/sql/datasets.sql` is the same
    rule.
    """
    return _SPELLINGS.get(squeezed_dataset(name), name.strip().lower())


def dataset_name(spec: str) -> str:
    """Return the name of the data set that `spec` refers to, without opening it; see `hnas.pipeline.images`."""
    path = Path(os.path.abspath(Path(spec).expanduser()))  # noqa: PTH100 (resolve() would replace a link's name)
    name = (path.stem if path.is_file() else path.name).lower()
    return _ARCHIVE_NAMES.get(name, name)


def stored_dataset(name: str) -> str:
    """Return `canonical_dataset(name)`. Raises `ValueError` if a store cannot have a data set of that name."""
    canonical = canonical_dataset(name)
    if not canonical or len(canonical) > LONGEST or printable(canonical) != canonical:
        raise ValueError(
            f"the data set is called {name!r:.120}; write a name such as cifar10, of at most {LONGEST} "
            "characters and without control characters"
        )
    return canonical


def missing_datasets(space: str, names: Iterable[str], having: Iterable[str]) -> str:
    """Return a sentence saying that no run of `space` has the data sets `names`, only those in `having`."""
    names, having = sorted(names), sorted(having)
    near = next((candidate for name in names for candidate in closest(name, having)), None)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    runs = f"its runs have {', '.join(having)}" if having else "there is no run of that space"
    return (
        f"no run of {space} in the store has the data set {shown}; {runs}"
        f"{f'; did you mean {near}?' if near is not None else ''}"
    )
