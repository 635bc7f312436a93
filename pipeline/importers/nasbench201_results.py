"""Rows from the results that NAS-Bench-201 and NATS-Bench keep of an architecture, in the same dictionaries.

For each training they record the accuracy on the training set and on one or more evaluation sets, after each epoch or
only after the last. `dataset` and the accuracies of a row are those that the benchmarks' own `get_more_info` returns:

| `dataset` | trained on | `valid_accuracy` | `test_accuracy` |
| --- | --- | --- | --- |
| `cifar10-valid` | half of CIFAR-10's training set | `x-valid`: the other half | `ori-test`: the test set |
| `cifar10` | CIFAR-10's training set | that of `cifar10-valid`, same seed and epochs | `ori-test`: the test set |
| `cifar100` | CIFAR-100's training set | `x-valid`: half of the test set | `x-test`: the other half |
| `imagenet16-120` | ImageNet16-120's training set | `x-valid`: half of its test set | `x-test`: the other half |
| `cifar100-ori-test` | the training of `cifar100` | | `ori-test`: the whole test set |
| `imagenet16-120-ori-test` | the training of `imagenet16-120` | | `ori-test`: the whole test set |

Thus a search on cifar10 uses the validation accuracy and reports the test accuracy, as in the benchmarks' papers. A
seed trained only on the half has a `cifar10` row with just its validation accuracy, so that means over seeds equal the
benchmarks' own. `seconds` is the training time alone, summed over the epochs. Rows that repeat a training (`-ori-test`,
and those with just a validation accuracy) leave out the time and the training accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hnas.errors import UsageError
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.store.schema import SCHEMAS
from hnas.spaces.nasbench201.cell import parse_arch

_HALF = "cifar10-valid"
#: The name of each data set in the store, and the sets that its accuracies are measured on.
_DATASETS = {
    _HALF: (_HALF, "x-valid", "ori-test"),
    "cifar10": ("cifar10", "", "ori-test"),
    "cifar100": ("cifar100", "x-valid", "x-test"),
    "ImageNet16-120": ("imagenet16-120", "x-valid", "x-test"),
}
_WHOLE = "ori-test"
_MEASURES = ("train_accuracy", "valid_accuracy", "test_accuracy", "seconds")
_LONGEST = 10_000
# Above this, an integer may not be exact as a float.
_MOST = 2**53
#: Minimum number of curve rows in a batch: about 30 architectures.
_BATCH = 2**16

#: One value after each epoch, None where it was not measured.
Series = list[float | None]


class _Training(NamedTuple):
    arch: str
    dataset: str
    epochs: int
    seed: int
    train: Series
    valid: Series
    test: Series
    seconds: Series


class Trials:
    """Gathers the results of each architecture in the benchmark file at `path` and returns them as rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: The architecture strings so far, by their numbers in the benchmark.
        self.archs: dict[int, str] = {}
        self._seen: set[str] = set()
        self._gathered: list[_Training] = []
        self._rows = 0

    def add(self, index: object, results: object, file: Path | None = None) -> None:
        """Add an architecture. `results`, read from `file`, has an `ArchResults.state_dict()` per number of epochs.

        Raises `UsageError` for an architecture that is repeated or not of the topology space, and for missing or
        invalid results.
        """
        where = f"{file or self.path}, architecture {_shown(index)}"
        if type(index) is not int or index < 0 or index in self.archs:
            raise UsageError(f"{where}: each architecture must have its own number, from 0; get the file again")
        if not isinstance(results, dict) or not results:
            raise UsageError(f"{where} has no results; get the file again")
        archs = {_entry(state, "arch_str", str, where) for state in results.values()}
        arch = min(archs)
        check_architecture(arch, where)
        if len(archs) > 1 or arch in self._seen:
            raise UsageError(f"{where} repeats the architecture {arch}; get the file again")
        self.archs[index] = arch
        self._seen.add(arch)
        trainings: dict[tuple[str, int, int], _Training] = {}
        for length, state in results.items():
            for training in _trainings(state, arch, f"{where}, {_shown(length)}"):
                if trainings.setdefault(training[1:4], training) is not training:
                    raise UsageError(
                        f"{where} has two trainings of {training.epochs} epochs on {training.dataset} with seed "
                        f"{training.seed}; get the file again"
                    )
        self._gathered += trainings.values()
        self._rows += sum(training.epochs for training in trainings.values())

    def read(
        self,
        entries: Generator[tuple[Any, Any], None, Any],
        check: Callable[[object, object], None] = lambda index, results: None,
    ) -> Generator[Rows, None, Any]:
        """Add all `entries` of an unpickled file, calling `check` on each, and return what else the file holds."""
        while True:
            try:
                index, results = next(entries)
            except StopIteration as end:
                return end.value
            check(index, results)
            self.add(index, results)
            yield from self.rows()

    def rows(self, *, last: bool = False) -> Iterator[Rows]:
        """Yield the rows added since the last call, once they fill a batch or if this is the `last` call."""
        if not self._gathered or (self._rows < _BATCH and not last):
            return
        gathered, self._gathered, self._rows = self._gathered, [], 0
        finals = [[series[-1] for series in training[4:]] for training in gathered]
        columns = [list(column) for column in zip(*finals, strict=True)]
        yield self._batch("accuracies", gathered, np.ones(len(gathered), np.int64), None, columns)
        epochs: list[int] = []
        counts = []
        columns = [[], [], [], []]
        measured: list[Any]
        for training in gathered:
            measured = [range(1, training.epochs + 1), *training[4:]]
            if all(None in accuracies for accuracies in measured[1:4]):
                kept = [row for row in zip(*measured, strict=True) if not row[1] is row[2] is row[3] is None]
                measured = list(zip(*kept, strict=True))
            counts.append(len(measured[0]))
            epochs += measured[0]
            for column, values in zip(columns, measured[1:], strict=True):
                column += values
        yield self._batch("curves", gathered, np.array(counts), epochs, columns)

    def _batch(
        self, table: str, trainings: list[_Training], counts: np.ndarray, epochs: list[int] | None, columns: list[Any]
    ) -> Rows:
        schema = SCHEMAS[table]
        repeated = pa.array(np.repeat(np.arange(len(trainings)), counts))
        arrays = {"space": pa.repeat("nasbench201", len(repeated))}
        for name in ("arch", "dataset", "epochs", "seed"):
            values = [getattr(training, name) for training in trainings]
            arrays[name] = pa.array(values, schema.field(name).type).take(repeated)
        if epochs is not None:
            arrays["epoch"] = pa.array(epochs, schema.field("epoch").type)
        for name, values in zip(_MEASURES, columns, strict=True):
            arrays[name] = array = pa.array(values, pa.float64())
            # Rounding may lift a mean of percentages slightly above 100.
            top = np.finfo(float).max if name == "seconds" else 100.001
            good = pc.fill_null(pc.and_(pc.greater_equal(array, 0.0), pc.less_equal(array, top)), True)
            if not pc.all(good, min_count=0).as_py():
                at = pc.index(good, False).as_py()
                odd = trainings[repeated[at].as_py()]
                raise UsageError(
                    f"{self.path}: the {name} of {odd.arch} on {odd.dataset} is {array[at]}, out of range; "
                    "get the file again"
                )
        return Rows(table, pa.record_batch([arrays[name] for name in schema.names], schema))


def check_architecture(arch: str, where: str) -> None:
    """Raise `UsageError`, starting with `where`, unless `arch` is in the topology space."""
    if re.fullmatch(r"\d+(:\d+)+", arch):
        raise UsageError(
            f"{where} is {arch!r:.80}, from NATS-Bench's size space; hnas reads only the topology space: give a file "
            "whose name begins with NATS-tss"
        )
    try:
        parse_arch(arch)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def check_names(archs: dict[int, str], names: object, path: Path) -> None:
    """Raise `UsageError` unless the benchmark's list `names` agrees with `archs`."""
    if not isinstance(names, list) or not names:
        raise UsageError(f"{path} has no list of architectures, meta_archs; get the file again")
    for index, arch in archs.items():
        if index >= len(names) or names[index] != arch:
            listed = f"lists it as {_shown(names[index])}" if index < len(names) else f"lists only {len(names)}"
            raise UsageError(f"{path}: architecture {index} is {arch}, but meta_archs {listed}; get the file again")


def _trainings(state: Any, arch: str, where: str) -> list[_Training]:
    results = _entry(state, "all_results", dict, where)
    trainings = []
    halves: dict[tuple[int, int], _Training] = {}
    for dataset, seeds in _entry(state, "dataset_seed", dict, where).items():
        if dataset not in _DATASETS:
            raise UsageError(f"{where} has results on {_shown(dataset)}; expected one of {', '.join(_DATASETS)}")
        if not isinstance(seeds, list):
            raise UsageError(f"{where} has no list of seeds for {dataset}; get the file again")
        for seed in seeds:
            at = f"{where} on {dataset} with seed {_shown(seed)}"
            if type(seed) is not int or not 0 <= seed < 2**63 or (dataset, seed) not in results:
                raise UsageError(f"{at} has no results; get the file again")
            rows = _training(results[dataset, seed], arch, dataset, seed, at)
            trainings += rows
            if dataset == _HALF:
                halves[rows[0].epochs, seed] = rows[0]
    return _with_validation(trainings, halves)


def _with_validation(trainings: list[_Training], halves: dict[tuple[int, int], _Training]) -> list[_Training]:
    """Return `trainings`, cifar10 with the validation accuracies of its half, and then the unmatched halves."""
    whole = []
    for training in trainings:
        if training.dataset == "cifar10":
            half = halves.pop((training.epochs, training.seed), None)
            whole.append(training if half is None else training._replace(valid=half.valid))
        else:
            whole.append(training)
    for half in halves.values():
        nothing: Series = [None] * half.epochs
        whole.append(half._replace(dataset="cifar10", train=nothing, test=nothing, seconds=nothing))
    return whole


def _training(result: Any, arch: str, dataset: str, seed: int, where: str) -> list[_Training]:
    """Return the rows of one training, a `ResultsCount.state_dict()`."""
    epochs = _entry(result, "epochs", int, where)
    if not 1 <= epochs <= _LONGEST:
        raise UsageError(f"{where} was trained for {epochs} epochs; expected 1 to {_LONGEST}")
    train = _entry(result, "train_acc1es", dict, where)
    evaluated = _entry(result, "eval_acc1es", dict, where)
    times = result.get("train_times")
    if times is not None and not isinstance(times, dict):
        raise UsageError(f"{where} has no training times by epoch; get the file again")
    for measured in (train, evaluated, times or {}):
        values = measured.values()
        if not set(map(type, values)) <= {float, int} or (values and not max(map(abs, values)) <= _MOST):
            raise UsageError(f"{where} has a result that is not a number; get the file again")
    if times and min(times.values()) < 0:
        raise UsageError(f"{where} has an epoch that took {min(times.values())} seconds; get the file again")
    name, valid, test = _DATASETS[dataset]
    numbers = range(epochs)
    trained = list(map(train.get, numbers))
    times = times or {}
    seconds: Series = list(accumulate(times[epoch] for epoch in numbers)) if times.keys() >= set(numbers) else []
    nothing: Series = [None] * epochs
    training = _Training(
        arch,
        name,
        epochs,
        seed,
        trained,
        list(map(evaluated.get, _keys(valid, epochs))) if valid else nothing,
        list(map(evaluated.get, _keys(test, epochs))),
        seconds or nothing,
    )
    if trained[-1] is None:
        raise UsageError(f"{where} has no accuracy after its last epoch, {epochs}; get the file again")
    if test == _WHOLE:
        return [training]
    whole: Series = list(map(evaluated.get, _keys(_WHOLE, epochs)))
    if whole[-1] is None:
        return [training]
    return [training, _Training(arch, f"{name}-{_WHOLE}", epochs, seed, nothing, nothing, whole, nothing)]


@lru_cache(maxsize=64)
def _keys(name: str, epochs: int) -> tuple[str, ...]:
    return tuple(f"{name}@{epoch}" for epoch in range(epochs))


def _shown(value: object) -> str:
    # A list that holds itself many times over would print without end.
    return f"{value!r:.120}" if type(value) in (int, str) else type(value).__name__


def _entry(state: Any, name: str, kind: type, where: str) -> Any:
    value = state.get(name) if isinstance(state, dict) else None
    if type(value) is not kind:
        raise UsageError(f"{where} has no {name}; get the file again")
    return value
