"""Kinds of files that installed packages add under the entry-point group `hnas.importers`."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.support.command_line import hnas
from tests.support.contents import rows
from tests.support.import_files import A, B
from tests.support.importing import imported, refused
from tests.support.places import ROOT


@pytest.fixture
def semicolons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for the importer of docs/store.md, which is installed."""
    page = (ROOT / "docs/store.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(# my_package\.py\n.*?)^```", page, re.M | re.S)
    point = re.search(r'^\[project\.entry-points\."hnas\.importers"\]\n(\w+) = "(.*)"$', page, re.M)
    assert point is not None
    (tmp_path / "site").mkdir()
    (tmp_path / "site/my_package.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = EntryPoint(point[1], point[2], "hnas.importers")
    monkeypatch.setattr("hnas.registry.entry_points", lambda group: [entry] if group == entry.group else [])
    path = tmp_path / "mine.txt"
    path.write_text(f"{A};10\n{B};91,25\n")
    return path


def test_the_importer_of_the_documentation_reads_its_files(semicolons: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert imported("semicolons", store, semicolons) == f"imported: 2 rows of 2 architectures from {semicolons}\n"
    found = {row["arch"]: (row["source"], row["dataset"], row["epochs"], row["test_accuracy"]) for row in rows(store)}
    assert found == {A: ("mine", "cifar10", 200, 10.0), B: ("mine", "cifar10", 200, 91.25)}


def test_its_faults_are_named_with_their_lines(semicolons: Path, tmp_path: Path) -> None:
    semicolons.write_text(f"{A};10\n{A};11\n")
    refused("semicolons", tmp_path / "store", semicolons, "line 2")
    semicolons.write_text(f"{A};10\n{B};110\n")
    refused("semicolons", tmp_path / "store", semicolons, "line 2: test_accuracy is 110")


def test_an_unknown_kind_names_the_installed_ones(semicolons: Path, tmp_path: Path) -> None:
    done = hnas("import", "semicolon", semicolons, "--store", tmp_path / "store")
    assert (done.status, done.out) == (2, "")
    assert re.search(
        r"the importer 'semicolon' is unknown; choose from columns, .*semicolons.*; did you mean", done.err
    )


def test_an_importer_of_rows_that_the_table_does_not_have_changes_nothing(
    semicolons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (tmp_path / "site/my_package.py").read_text()
    wrong = program.replace("yield trainings.rows()", "yield trainings.rows()._replace(table='pool')")
    assert wrong != program
    (tmp_path / "site/wrong_package.py").write_text(wrong)
    entry = EntryPoint("wrong", "wrong_package:read_semicolons", "hnas.importers")
    monkeypatch.setattr("hnas.registry.entry_points", lambda group: [entry])
    done = hnas("import", "wrong", semicolons, "--store", tmp_path / "store")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "store").exists()
