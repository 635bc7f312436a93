"""`hnas info`: the contents of a store."""

from __future__ import annotations

from typing import Any

import duckdb

from hnas.pipeline.catalog.views import sql


def store_info(connection: duckdb.DuckDBPyConnection) -> dict[str, list[dict[str, Any]]]:
    """Return runs with rows and scores, imports, searches with their winners, and comparisons, the newest first."""
    sections = ("runs", "scores", "accuracies", "curves", "proxies", "columns", "searches", "comparisons")
    return {
        name: _rows(connection, sql(f"info_{name}", **({"counts": _counts(connection)} if name == "scores" else {})))
        for name in sections
    }


def _counts(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the SQL that counts the rows of each version of each score."""
    scores = connection.execute("SELECT DISTINCT score, version, stored FROM files.score_names ORDER BY ALL").fetchall()
    return "".join(
        "," + sql("score_count", score=name, version=str(version), column=of) for name, version, of in scores
    )


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
