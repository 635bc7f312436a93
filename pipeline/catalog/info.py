"""`hnas info`: what a store holds."""

from __future__ import annotations

from typing import Any

import duckdb

from hnas.pipeline.catalog.views import sql


def store_info(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """The runs with their rows, what was imported, searches with their winners, and comparisons; newest first."""
    sections = ("runs", "accuracies", "curves", "proxies", "columns", "searches", "comparisons")
    return {name: _rows(connection, f"info_{name}") for name in sections}


def _rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    result = connection.execute(sql(name))
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
