"""Whole columns of trainings: values that need no second look, in the types of the store; and repeated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from hnas.pipeline.store.schema import ACCURACIES, SCHEMAS

INT32, INT64 = 2**31 - 1, 2**63 - 1
_LIMITS = {"epochs": (1, INT32), "seed": (0, INT64), "seconds": (0.0, math.inf)} | dict.fromkeys(
    ACCURACIES, (0.0, 100.0)
)
# What both Arrow and Python read as the same number: Arrow takes 0x10 besides, Python 1_0.
_WHOLE, _DECIMAL = r"^[+-]?[0-9]{1,18}$", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def column_of(given: pa.Array, name: str) -> pa.Array:
    """The column `name` of `accuracies` out of numbers or text as a file has it.

    Raises `ValueError` or one of Arrow's errors where a value is not plainly one of that column.
    """
    if pa.types.is_dictionary(given.type):
        given = given.dictionary_decode()
    if name not in _LIMITS:
        texts = pc.utf8_trim_whitespace(given.cast(pa.string()))
        if texts.null_count or pc.any(pc.equal(texts, "")).as_py():
            raise ValueError(name)
        return texts
    kind = SCHEMAS["accuracies"].field(name).type
    if pa.types.is_string(given.type):
        given = pc.if_else(pc.equal(given, ""), None, given)
        if not _all(pc.match_substring_regex(given, _DECIMAL if pa.types.is_floating(kind) else _WHOLE)):
            raise ValueError(name)
    elif pa.types.is_decimal(given.type):
        raise ValueError(name)  # Arrow does not round to the nearest double
    values = given.cast(kind)
    low, high = _LIMITS[name]
    if not _all(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))):
        raise ValueError(name)
    if high == math.inf and pc.any(pc.equal(values, high)).as_py():
        raise ValueError(name)
    return values


def _all(flags: pa.Array) -> bool:
    return bool(pc.all(flags, min_count=0).as_py())


def first_repeated(rows: pa.Table, columns: Sequence[str]) -> tuple[int, int] | None:
    """The `number` of the first row that has the values of an earlier one in all `columns`, and that one's; or None."""
    groups = rows.group_by(list(columns)).aggregate([("number", "min")])
    if groups.num_rows == rows.num_rows:
        return None
    seen: dict[tuple[object, ...], int] = {}
    for number, *values in zip(rows["number"].to_pylist(), *(rows[name].to_pylist() for name in columns), strict=True):
        before = seen.setdefault(tuple(values), number)
        if before != number:
            return number, before
    return None
