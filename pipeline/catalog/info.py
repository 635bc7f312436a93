"""`hnas info`: what a store holds."""

from __future__ import annotations

from typing import Any

import duckdb

from hnas.pipeline.catalog.views import sql


def store_info(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """The runs with their rows and scores, what was imported, searches with winners, comparisons; newest first."""
    sections = ("runs", "scores", "accuracies", "curves", "proxies", "columns", "searches", "comparisons")
    return {
        name: _rows(connection, sql(f"info_{name}", **({"counts": _counts(connection)} if name == "scores" else {})))
        for name in sections
    }


def _counts(connection: duckdb.DuckDBPyConnection) -> str:
    """What counts the rows of each score of each version."""
    found = connection.execute("SELECT DISTINCT score, version, stored FROM files.score_names ORDER BY ALL").fetchall()
    return "".join("," + sql("score_count", score=name, version=str(version), column=of) for name, version, of in found)


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
