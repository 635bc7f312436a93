"""One rule for the names of data sets, so that `CIFAR-10`, `cifar_10` and `CIFAR10` are all `cifar10`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hnas.errors import closest
from hnas.pipeline.io.printable import printable

#: The data sets that benchmarks and this package know, as stores spell them.
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

#: Those of ten classes, of which a network that knows nothing gets 10 % right.
TEN_CLASSES = ("digits", "cifar10", "cifar10-valid", "svhn")
#: The longest name of a data set.
LONGEST = 200
# The folders in which official files come: their images are those of the data set, so are its name and constants.
_ARCHIVE_NAMES = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100", "imagenet16": "imagenet16-120"}


def squeezed_dataset(name: str) -> str:
    """`name` in lower case without hyphens, underscores and blanks."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_SPELLINGS = {squeezed_dataset(name): name for name in KNOWN}


def canonical_dataset(name: str) -> str:
    """The spelling of `name` that stores use: that of `KNOWN` whatever its case, hyphens, underscores and blanks.

    Any other name in lower case. The macro `canonical_dataset` in `pipeline/catalog/sql/datasets.sql` is the same rule.
    """
    return _SPELLINGS.get(squeezed_dataset(name), name.strip().lower())


def dataset_name(spec: str) -> str:
    """The name of the data set that `spec` means, known without opening it: see `hnas.pipeline.images.open_dataset`."""
    path = Path(os.path.abspath(Path(spec).expanduser()))  # noqa: PTH100 (resolve() would rename what a link names)
    name = (path.stem if path.is_file() else path.name).lower()
    return _ARCHIVE_NAMES.get(name, name)


def stored_dataset(name: str) -> str:
    """`name` as `canonical_dataset` spells it. Raises `ValueError` where no data set of a store can be called so."""
    canonical = canonical_dataset(name)
    if not canonical or len(canonical) > LONGEST or printable(canonical) != canonical:
        raise ValueError(
            f"the data set is called {name!r:.120}; write a name such as cifar10, of at most {LONGEST} "
            "characters and none that controls a terminal"
        )
    return canonical


def missing_datasets(space: str, names: Iterable[str], having: Iterable[str]) -> str:
    """The sentence that no run of `space` has the data sets `names`, while the runs have `having`."""
    names, having = sorted(names), sorted(having)
    near = next((found for name in names for found in closest(name, having)), None)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    runs = f"its runs have {', '.join(having)}" if having else "there is none of that space"
    return (
        f"no run of {space} in the store has the data set {shown}; {runs}"
        f"{f', so is {near} meant?' if near is not None else ''}"
    )
