"""Which stores are read along with every other: the tables that ship, those that a variable names, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hnas.errors import UsageError
from hnas.pipeline.store.shipped_tables import existing_store, shipped_tables
from hnas.pipeline.store.store import DEFAULT_STORE
from tests.support.places import SHIPPED


def test_without_the_variable_they_are_those_that_ship(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HNAS_TABLES")
    monkeypatch.chdir(tmp_path)
    assert {table.root for table in shipped_tables()} == {str(folder) for folder in SHIPPED.resolve().iterdir()}


def test_the_variable_names_others_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("one/a", "two/b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "store.json").write_text("{}")
    monkeypatch.setenv("HNAS_TABLES", os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    assert [table.root for table in shipped_tables()] == [str(tmp_path / place) for place in ("one/a", "two/b")]
    monkeypatch.setenv("HNAS_TABLES", "")
    assert shipped_tables() == []
    monkeypatch.setenv("HNAS_TABLES", str(tmp_path / "three"))
    with pytest.raises(UsageError, match="three, and there is no such folder"):
        shipped_tables()


def test_a_store_that_is_named_must_be_there_and_the_default_one_need_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HNAS_TABLES")
    monkeypatch.chdir(tmp_path)
    assert not existing_store(DEFAULT_STORE, shipped_tables()).exists()
    for given, tables in ((str(tmp_path / "mistyped"), shipped_tables()), (DEFAULT_STORE, [])):
        with pytest.raises(UsageError, match="there is no store at"):
            existing_store(given, tables)
