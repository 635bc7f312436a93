"""NAS-Bench-Suite-Zero: validation accuracies, and the authors' scores of training-free proxies.

    {space: {dataset: {encoding: {proxy: value, ..., "val_accuracy": percent}}}}

The distributed files lack the level of spaces and give a proxy as `{"score": value, "time": seconds}`; both forms of
both are read. An encoding is a Python literal, which the space converts to an architecture.

The number of epochs and the seed are unknown. If several encodings describe the same architecture, each has its own
rows: the first has no seed, the others have 1, 2, ... in file order.

Source: Krishnakumar et al., "NAS-Bench-Suite-Zero: Accelerating Research on Zero Cost Proxies", NeurIPS 2022.
"""

from __future__ import annotations

import ast
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import pyarrow as pa

from hnas.errors import UsageError
from hnas.pipeline.importers.files import open_input
from hnas.pipeline.importers.json_stream import JSONStream, shown
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.io.dataset_names import LONGEST, canonical_dataset, stored_dataset
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.schema import SCHEMAS
from hnas.spaces import SearchSpace, key_of, search_spaces

#: The benchmark's names of the spaces, and the names of the corresponding spaces here.
SPACES = {"nasbench101": "nasbench101", "nasbench201": "nasbench201", "nasbench301": "darts", "darts": "darts"}
DATASETS = ("cifar10", "cifar100", "imagenet16-120", "svhn", "ninapro", "scifar100")

_ACCURACY = "val_accuracy"
_IDENTITY = "id"  # some files give their architectures a number
_BATCH = 2**12
_LONGEST = 2000


@runtime_checkable
class _Space(Protocol):
    def from_suite_zero(self, encoding: object) -> str: ...


def read_suite_zero(path: Path, advance: Advance) -> Iterator[Rows]:
    """Yield validation accuracies as rows of `accuracies` and proxies as rows of `proxies`.

    Raises `UsageError` with the space, data set and encoding of the first error.
    """
    reader = _Reader()
    try:
        file, size = open_input(path, "give a JSON file of NAS-Bench-Suite-Zero")
        with file:
            for rows in reader.read(JSONStream(io.TextIOWrapper(file, encoding="utf-8-sig"))):
                yield rows
                advance(file.tell() if size else 0, size)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}; give a JSON file of NAS-Bench-Suite-Zero"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}); give a JSON file") from error
    except ValueError as error:
        where = ", ".join([str(path), *reader.place])
        advice = "" if reader.place else "; give a JSON file of NAS-Bench-Suite-Zero"
        raise UsageError(f"{where}: {error}{advice}") from error
    if not reader.count:
        raise UsageError(f"{path} has no architectures; give a JSON file of NAS-Bench-Suite-Zero")


class _Reader:
    """Reads one file. `place` lists the names of the nested levels at the current position."""

    def __init__(self) -> None:
        self.place: list[str] = []
        self.count = 0
        # The number of accuracies and the highest, by (space, data set).
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        # How often each (space, data set, architecture) has come, and each encoding seen.
        self._times: dict[tuple[str, str, str], int] = {}
        self._encodings: set[tuple[str, str, str]] = set()
        self._clear()

    def _clear(self) -> None:
        self._accuracies: list[tuple[object, ...]] = []
        self._proxies: list[tuple[object, ...]] = []

    def read(self, stream: JSONStream) -> Iterator[Rows]:
        """Yield the rows of the whole file in batches."""
        for name in self._inside(stream):
            if name in SPACES:
                for dataset in self._inside(stream):
                    yield from self._entries(stream, SPACES[name], stored_dataset(dataset))
            elif canonical_dataset(name) in DATASETS:
                yield from self._entries(stream, None, canonical_dataset(name))
            else:
                raise ValueError(
                    f"{name!r:.80} is neither a space ({', '.join(SPACES)}) nor a data set ({', '.join(DATASETS)})"
                )
        stream.finish()
        for (_, dataset), (count, highest) in self._seen.items():
            if count > 1 and highest <= 1:
                raise ValueError(
                    f"no {_ACCURACY} on {dataset} exceeds 1, so they look like fractions; give percent, 0 to 100"
                )
        if self._accuracies:
            yield from self._rows()

    def _inside(self, stream: JSONStream) -> Iterator[str]:
        """Yield the members of the next object, each of them on `place` while it is processed."""
        for name in stream.members():
            self.place.append(name if len(name) < 200 else name[:197] + "...")
            yield name
            self.place.pop()

    def _entries(self, stream: JSONStream, space: str | None, dataset: str) -> Iterator[Rows]:
        for encoding in self._inside(stream):
            literal = _literal(encoding)
            self._add(space or _space_of(literal), dataset, encoding, literal, stream.value())
            if len(self._accuracies) == _BATCH:
                yield from self._rows()

    def _add(self, space: str, dataset: str, encoding: str, literal: object, entry: object) -> None:
        if not isinstance(entry, dict) or not entry:
            raise ValueError("the entry is not an object of proxies and val_accuracy")
        reader = search_spaces.get(space)
        if not isinstance(reader, _Space):
            raise ValueError(f"hnas has no search space {space!r} that reads these encodings")
        try:
            arch = key_of(cast(SearchSpace, reader), reader.from_suite_zero(literal))
        except UsageError as error:
            raise ValueError(str(error)) from None
        if (space, dataset, encoding) in self._encodings:
            raise ValueError("the encoding appears twice")
        self._encodings.add((space, dataset, encoding))
        accuracy = _finite(entry.pop(_ACCURACY, None), _ACCURACY)
        if not 0 <= accuracy <= 100:
            raise ValueError(f"{_ACCURACY} is {accuracy:g}; it must be percent, 0 to 100")
        times = self._times.get((space, dataset, arch), 0)
        self._times[space, dataset, arch] = times + 1
        self._accuracies.append((space, arch, dataset, None, times or None, None, accuracy, None, None))
        for proxy, entered in entry.items():
            if proxy != _IDENTITY:
                if not proxy or len(proxy) > LONGEST or printable(proxy) != proxy:
                    raise ValueError(
                        f"a proxy is called {shown(proxy)}; its name must be text of at most {LONGEST} characters"
                    )
                score, seconds = (
                    (entered.get("score"), entered.get("time")) if isinstance(entered, dict) else (entered, None)
                )
                value = _number(score, proxy)
                cost = None if seconds is None else _finite(seconds, f"the time of {proxy}")
                if cost is not None and cost < 0:
                    raise ValueError(f"the time of {proxy} is {cost:g}; it must be at least 0")
                self._proxies.append((space, arch, dataset, proxy, value, cost))
        self.count += 1
        count, highest = self._seen.get((space, dataset), (0, 0.0))
        self._seen[space, dataset] = count + 1, max(highest, accuracy)

    def _rows(self) -> Iterator[Rows]:
        for table, rows in (("accuracies", self._accuracies), ("proxies", self._proxies)):
            if rows:
                schema = SCHEMAS[table]
                arrays = [
                    pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
                ]
                yield Rows(table, pa.RecordBatch.from_arrays(arrays, schema=schema))
        self._clear()


def _literal(encoding: str) -> object:
    if len(encoding) > _LONGEST:
        raise ValueError(f"the encoding has {len(encoding):,} characters; the limit is {_LONGEST:,}")
    try:
        literal = ast.literal_eval(encoding.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        literal = None
    if not isinstance(literal, (tuple, list)):
        raise ValueError("the encoding is not a Python literal such as (4, 3, 3, 3, 2, 3)")
    return literal


def _space_of(literal: object) -> str:
    """Return the space whose encodings look like this one."""
    if isinstance(literal, (tuple, list)):
        if len(literal) == 2 and all(isinstance(cell, (tuple, list)) for cell in literal):
            return "darts"
        if all(isinstance(number, int) for number in literal) and len(literal) in (6, 56):
            return "nasbench201" if len(literal) == 6 else "nasbench101"
    raise ValueError(
        "the encoding fits no known space: NAS-Bench-101's has 56 numbers, NAS-Bench-201's has 6, DARTS's two cells"
    )


def _number(value: Any, what: str) -> float | None:
    """Return `value`, or None if it is missing or NaN: some proxies failed."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} is {shown(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float") from None


def _finite(value: Any, what: str) -> float:
    number = _number(value, what)
    if number is None or math.isinf(number):
        raise ValueError(f"{what} is {'missing' if value is None else value}; it must be a finite number")
    return number
