"""DuckDB uses no extensions, stored secrets or start-up files on its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas, hnas_process


def test_extensions_are_not_loaded_and_stored_secrets_not_used(tmp_path: Path) -> None:
    connection = connect(Store(str(tmp_path)))
    for setting in (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "allow_community_extensions",
        "allow_persistent_secrets",
    ):
        assert connection.execute(f"SELECT current_setting('{setting}')").fetchall() == [(False,)]


@pytest.mark.parametrize("query", ["FROM 'https://127.0.0.1:9/x.parquet'", "CREATE PERSISTENT SECRET s (TYPE s3)"])
def test_a_query_that_needs_an_extension_says_how_to_install_it(query: str, tmp_path: Path) -> None:
    done = hnas("sql", query, "--store", tmp_path)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "INSTALL httpfs; LOAD httpfs;" in done.err


def test_files_of_the_duckdb_shell_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = (
        "sql",
        "SELECT current_setting('default_order') AS o, 1 AS a",
        "--format",
        "csv",
        "--store",
        tmp_path / "s",
    )
    plain = hnas_process(*query)
    (tmp_path / ".duckdb" / "stored_secrets").mkdir(parents=True)
    (tmp_path / ".duckdbrc").write_text("SET default_order = 'DESC';\n.mode json\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hnas_process(*query) == plain
    assert list((tmp_path / ".duckdb" / "stored_secrets").iterdir()) == []
