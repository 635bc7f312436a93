"""The stores attached to every store: the shipped tables, those of $HNAS_TABLES, or none."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copyfile, copytree

import duckdb
import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog.table_files import file_error
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.store.shipped_tables import existing_store, find_run, shipped_tables
from hnas.pipeline.store.store import DEFAULT_STORE, Store
from tests.support.places import SHIPPED

#: The initialisations of NAS-Bench-201 that ship, and how many of its architectures have no path to the output.
SEEDS, DEAD = range(4), 341


def test_the_default_is_the_shipped_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HNAS_TABLES")
    monkeypatch.chdir(tmp_path)
    assert {table.root for table in shipped_tables()} == {str(folder) for folder in SHIPPED.resolve().iterdir()}


def test_the_variable_names_other_tables_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("one/a", "two/b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "store.json").write_text("{}")
    monkeypatch.setenv("HNAS_TABLES", os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    assert [table.root for table in shipped_tables()] == [str(tmp_path / place) for place in ("one/a", "two/b")]
    monkeypatch.setenv("HNAS_TABLES", "")
    assert shipped_tables() == []
    monkeypatch.setenv("HNAS_TABLES", str(tmp_path / "three"))
    with pytest.raises(UsageError, match="three, which is not a folder"):
        shipped_tables()


def test_a_named_store_must_exist_but_the_default_one_need_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HNAS_TABLES")
    monkeypatch.chdir(tmp_path)
    assert not existing_store(DEFAULT_STORE, shipped_tables()).exists()
    for given, tables in ((str(tmp_path / "mistyped"), shipped_tables()), (DEFAULT_STORE, [])):
        with pytest.raises(UsageError, match="there is no store at"):
            existing_store(given, tables)


def test_the_variable_can_name_a_table_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    table = next(SHIPPED.resolve().iterdir())
    monkeypatch.setenv("HNAS_TABLES", str(table))
    assert [found.root for found in shipped_tables()] == [str(table)]


def test_tables_are_read_even_if_the_working_folder_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HNAS_TABLES", str(SHIPPED))
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert len(shipped_tables()) == len(list(SHIPPED.iterdir()))


def test_a_run_in_two_tables_is_read_from_the_first(tmp_path: Path) -> None:
    tables = []
    for name in ("one", "two"):
        tables.append(Store(str(tmp_path / name)))
        tables[-1].prepare()
        tables[-1].write_json({}, "runs", "0123456789", "run.json")
    assert find_run(Store(str(tmp_path / "own")), "0123456789", tables).store is tables[0]


@pytest.mark.parametrize(
    ("damaged", "content"),
    [
        ("store.json", "{"),
        ("store.json", "[]"),
        ("store.json", '{"version": 99}'),
        ("run.json", "{"),
        ("*.parquet", ""),
    ],
)
def test_damage_of_a_table_is_reported_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: str, content: str
) -> None:
    """Every command reads the tables but none can repair them, and deleting a part would only lose it."""
    copytree(SHIPPED / "darts-cifar10", tmp_path / "table", copy_function=copyfile)
    next((tmp_path / "table").rglob(damaged)).write_text(content)
    monkeypatch.setenv("HNAS_TABLES", str(tmp_path))
    with pytest.raises(HnasError, match=r"; restore it, or have \$HNAS_TABLES name other tables, or none$"):
        _read(Store(str(tmp_path / "own")))


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA does not name the folder of real data")
def test_shipped_scores_rank_as_the_numbers_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against FreeREA's NASWOT and SynFlow, over the architectures without `none`, which have no dead branch."""
    monkeypatch.setenv("HNAS_TABLES", str(SHIPPED))
    connection = connect(Store(str(tmp_path)), shipped_tables())
    run = pick_run(connection, space="nasbench201").name
    theirs = Path(os.environ["HNAS_TEST_DATA"]) / "nasbench201" / "freerea-scores-cifar10.csv"
    found = connection.execute(
        f"""
        WITH both_scores AS (
            SELECT p.arch, p.naswot, p.synflow, f.naswot AS their_naswot, f.synflow AS their_synflow
            FROM pool AS p JOIN read_csv('{theirs}') AS f USING (arch)
            WHERE p.run = '{run}' AND p.arch NOT LIKE '%none%' AND p.arch LIKE '%conv%'
        ), ranked AS (
            SELECT
                rank() OVER (ORDER BY naswot) AS naswot, rank() OVER (ORDER BY their_naswot) AS their_naswot,
                rank() OVER (ORDER BY synflow) AS synflow, rank() OVER (ORDER BY their_synflow) AS their_synflow
            FROM both_scores
        )
        SELECT count(*), corr(naswot, their_naswot), corr(synflow, their_synflow) FROM ranked
        """
    ).fetchone()
    assert found is not None
    count, naswot, synflow = found
    assert count == 4096 - 64
    assert naswot > 0.995
    assert synflow > 0.98


def test_all_shipped_scores_are_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HNAS_TABLES", str(SHIPPED))
    connection = connect(Store(str(tmp_path)), shipped_tables())
    names = ("epe_nas", "fisher", "jacov", "knas", "l2_norm", "linear_regions")
    names += ("meco", "nasi", "naswot", "plain", "swap", "synflow")
    columns = ", ".join(f"count({name})" for name in names)
    run = pick_run(connection, space="nasbench201").name
    counts = connection.execute(f"SELECT count(*), {columns} FROM pool WHERE run = ?", [run]).fetchone()
    assert counts == (15625,) * 13


def test_every_initialisation_of_nasbench201_is_whole_and_seed_0_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HNAS_TABLES", str(SHIPPED))
    connection = connect(Store(str(tmp_path)), shipped_tables())
    runs = connection.execute(
        "SELECT seed, count(*), count(DISTINCT p.canonical), count(*) FILTER (status = 'ok'), count(DISTINCT trace) "
        "FROM runs JOIN pool AS p USING (run) WHERE runs.space = 'nasbench201' GROUP BY seed ORDER BY seed"
    ).fetchall()
    assert [seed for seed, *_ in runs] == list(SEEDS)
    assert {tuple(counts[:3]) for _, *counts in runs} == {(15625, 5260, 15625 - DEAD)}
    assert all(distinct > 5200 for *_, distinct in runs)
    assert pick_run(connection, space="nasbench201").settings.seed == 0
    means = connection.execute("SELECT DISTINCT n_runs FROM mean_pool WHERE space = 'nasbench201'").fetchall()
    assert means == [(len(SEEDS),)]


def _read(store: Store) -> None:
    try:
        connect(store, shipped_tables()).sql("SELECT * FROM pool").fetchall()
    except duckdb.Error as error:
        raise file_error(error) or error from error
