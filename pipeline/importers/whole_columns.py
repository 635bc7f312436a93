"""Whole columns of a file: values that need no second look, in the types of the store; and repeated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# What both Arrow and Python read as the same number: Arrow takes 0x10 besides, Python 1_0.
_WHOLE, _DECIMAL = r"^[+-]?[0-9]{1,18}$", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def texts_of(given: pa.Array) -> pa.Array:
    """The texts of a column without outer blanks. Raises `ValueError` or one of Arrow's errors where one is missing."""
    texts = pc.utf8_trim_whitespace(_decoded(given).cast(pa.string()))
    if texts.null_count or pc.any(pc.equal(texts, "")).as_py():
        raise ValueError("a text is missing")
    return texts


def numbers_of(given: pa.Array, kind: pa.DataType, limits: tuple[float, float]) -> pa.Array:
    """Finite numbers of the type `kind` between `limits` out of numbers or text, null where nothing is known.

    Raises `ValueError` or one of Arrow's errors where a value is not plainly such a number.
    """
    given = _decoded(given)
    if pa.types.is_string(given.type):
        given = pc.if_else(pc.equal(given, ""), None, given)
        if not _all(pc.match_substring_regex(given, _DECIMAL if pa.types.is_floating(kind) else _WHOLE)):
            raise ValueError("a text is no number")
    elif pa.types.is_decimal(given.type):
        raise ValueError("Arrow does not round a decimal to the nearest double")
    values = given.cast(kind)
    low, high = limits
    if not _all(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))):
        raise ValueError("a number lies outside the limits")
    if high == math.inf and not _all(pc.is_finite(values)):
        raise ValueError("a number is infinite")
    return values


def _decoded(given: pa.Array) -> pa.Array:
    return given.dictionary_decode() if pa.types.is_dictionary(given.type) else given


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
