"""Whole columns of a file: conversion of plainly valid values to the store's types, and a search for repeated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# Spellings that Arrow and Python read as the same number. Arrow also accepts 0x10, Python also 1_0.
_WHOLE, _DECIMAL = r"^[+-]?[0-9]{1,18}$", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def texts_of(column: pa.Array) -> pa.Array:
    """Return the texts of a column, stripped. Raises `ValueError` or an Arrow error if one is missing."""
    texts = pc.utf8_trim_whitespace(_decoded(column).cast(pa.string()))
    if texts.null_count or pc.any(pc.equal(texts, "")).as_py():
        raise ValueError("a text is missing")
    return texts


def numbers_of(column: pa.Array, kind: pa.DataType, limits: tuple[float, float]) -> pa.Array:
    """Convert numbers or text to finite numbers of type `kind` within `limits`; unknown values become null.

    Raises `ValueError` or an Arrow error if a value is not plainly such a number.
    """
    column = _decoded(column)
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), None, column)
        if not _all(pc.match_substring_regex(column, _DECIMAL if pa.types.is_floating(kind) else _WHOLE)):
            raise ValueError("a text is not a number")
    elif pa.types.is_decimal(column.type):
        raise ValueError("Arrow does not round a decimal to the nearest double")
    values = column.cast(kind)
    low, high = limits
    if not _all(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))):
        raise ValueError("a number lies outside the limits")
    if high == math.inf and not _all(pc.is_finite(values)):
        raise ValueError("a number is infinite")
    return values


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _all(flags: pa.Array) -> bool:
    return bool(pc.all(flags, min_count=0).as_py())


def first_repeated(rows: pa.Table, columns: Sequence[str]) -> tuple[int, int] | None:
    """Return the `number` of the first row that equals an earlier one in all `columns`, and that row's, or None."""
    groups = rows.group_by(list(columns)).aggregate([("number", "min")])
    if groups.num_rows == rows.num_rows:
        return None
    seen: dict[tuple[object, ...], int] = {}
    for number, *values in zip(rows["number"].to_pylist(), *(rows[name].to_pylist() for name in columns), strict=True):
        before = seen.setdefault(tuple(values), number)
        if before != number:
            return number, before
    return None
