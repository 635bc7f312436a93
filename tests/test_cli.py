"""The command line from outside: the output of each command, its exit status, and its imports."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest
from PIL import Image

from hnas import __version__
from tests.support.command_line import (
    ARCHS,
    CONVOLUTION,
    DEAD,
    SETTINGS,
    Outcome,
    accuracies,
    hnas,
    hnas_process,
    imported_by,
    store_by_commands,
)
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

COMMANDS = ("precompute", "import", "rm", "fetch", "search", "compare", "evaluate", "latency", "sql", "correlate")
COMMANDS += ("reproduce", "pareto", "report", "predict", "export", "show", "info", "check")


@pytest.fixture(scope="session")
def precomputed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A read-only store for this file, and the outcome of precomputing it."""
    return store_by_commands(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def store(precomputed: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(precomputed[0], tmp_path / "store"))


# --- help, version, debug -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_needs_no_heavy_imports(command: str) -> None:
    heavy, done = imported_by(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: hnas {command}".rstrip())
    assert done.stderr.strip() == ""
    assert heavy == set()


def test_help_names_every_command() -> None:
    listed = hnas("--help").out.partition("Commands:")[2].splitlines()
    assert tuple(line.split()[0] for line in listed if line.strip()) == COMMANDS


def test_no_command_is_a_usage_error() -> None:
    assert hnas().status == 2


def test_version() -> None:
    assert hnas("--version") == Outcome(0, f"hnas {__version__}\n", "")
    installed = Path(sys.executable).with_name("hnas")
    if installed.exists():
        done = subprocess.run([installed, "--version"], capture_output=True, text=True)
        assert done.stdout == f"hnas {__version__}\n"


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_debug_shows_the_traceback_at_any_position(tmp_path: Path, place: int) -> None:
    arguments = ["search", "nope", "--store", str(tmp_path / "store")]
    assert "Traceback" not in hnas(*arguments).err
    arguments.insert(place, "--debug")
    done = hnas(*arguments)
    assert done.status == 2
    assert "Traceback (most recent call last)" in done.err
    assert "UsageError" in done.err
    assert done.last.startswith("hnas: the search space 'nope' is unknown")


def test_debug_shows_the_origin_of_an_unforeseen_error(tmp_path: Path) -> None:
    with mock.patch("hnas.pipeline.catalog.info.store_info", side_effect=ZeroDivisionError("boom\nmore")):
        plain, debug = hnas("info", "--store", tmp_path), hnas("info", "--store", tmp_path, "--debug")
    assert (plain.status, plain.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: boom; --debug shows where" in plain.err
    assert "Traceback" in debug.err


# --- precompute -----------------------------------------------------------------------------------------------------


def test_quiet_precompute_prints_only_its_summary(precomputed: tuple[Path, Outcome]) -> None:
    _, computed = precomputed
    assert computed.out.count("\n") == 1
    assert "stand for the 24 asked for" in computed.out
    assert computed.err == ""


def test_precompute_again_computes_nothing(store: Path, tmp_path: Path) -> None:
    (tmp_path / "archs.txt").write_text("\n".join(reversed(ARCHS)))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    done = hnas("precompute", *SETTINGS, "--architectures", tmp_path / "archs.txt", "--store", store)
    assert (done.status, done.err) == (0, "")
    assert "; 0 computed now" in done.out
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")} == before


def test_keep_gram_says_that_stored_rows_have_no_matrices(store: Path, tmp_path: Path) -> None:
    (tmp_path / "archs.txt").write_text("\n".join(ARCHS[:3]))
    again = ("precompute", *SETTINGS, "--architectures", tmp_path / "archs.txt", "--store", store)
    assert "without --keep-gram" not in hnas(*again).out
    done = hnas(*again, "--keep-gram")
    (run,) = (path.name for path in (store / "runs").iterdir())
    said = re.search(rf"(\d+) rows of the run were computed without --keep-gram .* `hnas rm run/{run}`", done.out)
    assert said, done.out
    assert int(said[1]) == len(pq.read_table(store / "runs" / run / "metrics"))


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = hnas("precompute", *SETTINGS, "--sample", 24, "--dry-run", "--workers", 2, "--store", tmp_path / "new")
    assert (done.status, done.err) == (0, "")
    assert "24 architectures, 22 canonical" in done.out
    assert "with 2 workers" in done.out
    assert done.out.endswith("nothing was written\n")
    assert not (tmp_path / "new").exists()


# --- search ---------------------------------------------------------------------------------------------------------


def test_search_against_a_table_does_not_import_torch(store: Path) -> None:
    heavy, done = imported_by("search", "nasbench201", "--queries", 2, "--store", store)
    assert done.returncode == 0, done.stderr
    # Other imports take longer than five queries; pyarrow loads pandas if it is installed.
    assert heavy - {"pandas"} == {"duckdb"}


def test_the_json_of_a_search_has_the_documented_shape(store: Path) -> None:
    done = hnas("search", "nasbench201", "--queries", 7, "--seed", 5, "--json", "--store", store)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert list(found) == ["search", "method", "metric", "signal", "cost", "elapsed", "best", "test", "queries"]
    assert list(found["best"]) == ["arch", "performance", "mu", "nu", "query"]
    assert [list(query) for query in found["queries"]] == [
        ["query", "mu", "nu", "arch", "objective", "performance", "seconds", "cost"]
    ] * 7
    assert [query["query"] for query in found["queries"]] == list(range(1, 8))
    table = {row["arch"]: float(row["valid_accuracy"]) for row in csv.DictReader(io.StringIO(accuracies()))}
    assert all(table[query["arch"]] == query["performance"] for query in found["queries"])
    assert len({query["arch"] for query in found["queries"]}) == 7
    best = max(found["queries"], key=lambda query: query["performance"])
    assert found["best"] == {name: best[name] for name in ("arch", "performance", "mu", "nu", "query")}
    assert done.err.startswith("searching 24 architectures of run ")


def test_a_search_prints_results_to_stdout_and_messages_to_stderr(store: Path) -> None:
    done = hnas("search", "nasbench201", "--queries", 3, "--store", store)
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"]
    assert lines[3].startswith("best: |")
    assert [line.split()[0] for line in done.err.splitlines()] == ["searching", "guided"]
    assert "with HNAS, M = trace, oracle table" in done.err
    quiet = hnas("search", "nasbench201", "--queries", 3, "--quiet", "--store", store)
    assert quiet.err == ""
    assert quiet.out.splitlines()[0] == lines[3]


@pytest.mark.parametrize("method", ["hnas", "best-of:trace"])
def test_the_dry_run_of_a_search_tells_its_evaluations_and_cost(store: Path, method: str) -> None:
    search = ("search", "nasbench201", "--method", method, "--queries", 3, "--store", store)
    dry = hnas(*search, "--dry-run")
    made = json.loads(hnas(*search, "--json", "--quiet").out)
    count = len(made["queries"])
    assert count == (1 if method == "best-of:trace" else 3)
    assert f"{count} quer" in dry.out
    assert f"{made['cost']:,.0f} s charged" in dry.out or "cost          unknown" in dry.out


def test_a_search_by_test_accuracy_says_so(store: Path, tmp_path: Path) -> None:
    (tmp_path / "made-up.csv").write_text(accuracies().replace("valid_accuracy", "train_accuracy"))
    assert hnas("import", "csv", tmp_path / "made-up.csv", "--store", store).status == 0
    done = hnas("search", "nasbench201", "--queries", 1, "--store", store)
    assert "no validation accuracy guides it" in done.err


def test_a_resumed_search_equals_an_uninterrupted_one(store: Path) -> None:
    arguments = ("search", "nasbench201", "--queries", 8, "--seed", 11, "--json", "--store", store)
    whole = json.loads(hnas(*arguments).out)
    known = {path.name for path in (store / "searches").iterdir()}

    from hnas.optim.evaluations import Evaluation
    from hnas.pipeline.catalog.pool import RunPool

    answered, evaluate = 0, RunPool.evaluate

    def interrupted(self: RunPool, arch: str) -> Evaluation:
        nonlocal answered
        answered += 1
        if answered == 5:
            raise KeyboardInterrupt
        return evaluate(self, arch)

    with mock.patch.object(RunPool, "__call__", interrupted):
        broken = hnas(*arguments)
    assert (broken.status, broken.out) == (1, "")
    assert broken.last.startswith("hnas: interrupted")
    (name,) = {path.name for path in (store / "searches").iterdir()} - known
    query = f"SELECT count(*) AS n FROM queries WHERE search = '{name}'"
    saved = hnas("sql", query, "--format", "csv", "--store", store)
    assert saved.out == "n\n4\n"

    for option, value, own in (("seed", 0, 11), ("method", "random", "hnas")):
        done = hnas("search", "--resume", name, f"--{option}", value, "--store", store)
        assert done.status == 2
        assert f"was begun with {option} {own}, not {value!r}" in done.last
    done = hnas("search", "--resume", name, "--json", "--store", store)
    assert done.status == 0, done.err
    resumed = json.loads(done.out)
    assert resumed["search"] == name

    def course(found: dict) -> list[tuple]:
        return [tuple(value for key, value in q.items() if key != "seconds") for q in found["queries"]]

    assert course(resumed) == course(whole)
    assert resumed["best"] == whole["best"]


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_evaluate_prints_accuracies_and_json_parses() -> None:
    small = ("--dataset", "digits", "--epochs", 1, "--channels", 4, "--cells", 1)
    done = hnas("evaluate", CONVOLUTION, *small)
    assert done.status == 0
    assert done.err.startswith(f"training {CONVOLUTION} of nasbench201: ")
    text = {line[:14].strip(): line[14:] for line in done.out.splitlines()}
    assert list(text) == ["architecture", "parameters", "epochs", "train", "validation", "test"]
    assert text["architecture"] == CONVOLUTION
    done = hnas("evaluate", CONVOLUTION, *small, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["arch"] == CONVOLUTION
    assert found["epochs"] == 1
    # The same settings give the same accuracies.
    assert text["validation"] == f"{found['valid_accuracy']:.2f} %"
    assert text["test"] == f"{found['test_accuracy']:.2f} %"


# --- sql, info, correlate -------------------------------------------------------------------------------------------


def test_sql_writes_an_infinite_condition_number_as_inf(store: Path) -> None:
    query = f"SELECT arch, kappa FROM pool WHERE arch = '{DEAD}'"
    done = hnas("sql", query, "--format", "csv", "--store", store)
    assert done == Outcome(0, f"arch,kappa\n{DEAD},inf\n", "")
    assert json.loads(hnas("sql", query, "--format", "json", "--store", store).out) == [{"arch": DEAD, "kappa": "inf"}]


def test_sql_reads_the_store_named_by_the_environment(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HNAS_STORE", str(store))
    assert hnas("sql", "SELECT count(*) AS n FROM pool", "--format", "csv").out == "n\n24\n"


def test_sql_runs_a_script_from_standard_input(store: Path) -> None:
    done = hnas_process("sql", "--format", "csv", "--store", store, input="SELECT count(*) AS n FROM requests;\n")
    assert done == Outcome(0, "n\n24\n", "")


def test_info_prints_text_and_json(store: Path) -> None:
    found = json.loads(hnas("info", "--json", "--store", store).out)
    assert list(found) == [
        "runs",
        "scores",
        "accuracies",
        "curves",
        "proxies",
        "columns",
        "searches",
        "comparisons",
        "sizes",
    ]
    assert found["curves"] == found["proxies"] == []
    (run,), (table,), (search,) = found["runs"], found["accuracies"], found["searches"]
    assert (run["space"], run["dataset"], run["asked"]) == ("nasbench201", "digits", 24)
    assert run["singular"] >= 1
    assert (table["source"], table["rows"], table["epochs"]) == ("made-up", 24, 12)
    assert (search["run"], search["queries"], search["metric"]) == (run["run"], 3, "trace")
    text = hnas("info", "--store", store)
    assert (text.status, text.err) == (0, "")
    assert text.out.startswith(f"store {store}\n")
    assert all(name in text.out for name in (run["run"], search["search"], "\naccuracies\n"))


def test_info_does_not_create_a_missing_store(tmp_path: Path) -> None:
    done = hnas("info", "--json", "--store", tmp_path / "new")
    assert (done.status, done.out) == (2, "")
    assert "there is no store at" in done.err
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    done = hnas("info", "--json", "--store", tmp_path / "new")
    assert not any(json.loads(done.out).values())


@pytest.fixture(scope="module")
def figure_and_records(
    precomputed: tuple[Path, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, object]]]:
    """The figure and the JSON records of `correlate`."""
    path = tmp_path_factory.mktemp("correlate") / "x.png"
    done = hnas("correlate", "--format", "json", "--plot", path, "--store", precomputed[0])
    assert (done.status, done.err) == (0, "")
    return path, json.loads(done.out)


def test_correlate_writes_pairs_and_both_kinds_of_table_1_as_json(
    figure_and_records: tuple[Path, list[dict[str, object]]],
) -> None:
    _, records = figure_and_records
    names = ["run", "method", "n", "kind", "x", "y", "value", "mu", "nu", "given"]
    assert all(list(record) == names for record in records)
    by_kind: dict[object, dict[object, dict[str, object]]] = {}
    for record in records:
        by_kind.setdefault(record["kind"], {})[record["x"]] = record
    table_1 = ["grad_norm", "snip", "grasp", "trace"]
    assert list(by_kind) == ["pair", "realizable", "non_realizable"]
    for kind in ("realizable", "non_realizable"):
        assert list(by_kind[kind]) == table_1
        assert all(record["y"] == "test_accuracy" for record in by_kind[kind].values())
        assert all((record["mu"] is None) == (kind == "realizable") for record in by_kind[kind].values())
    of_table_1 = [record["method"] for record in records if record["kind"] != "pair"]
    assert of_table_1 == ["spearman", "spearman", "kendall", "kendall"] * 4
    assert {(record["method"], record["n"]) for record in records if record["kind"] == "pair"} == {("spearman", 24)}


def test_correlate_draws_a_figure(figure_and_records: tuple[Path, list[dict[str, object]]]) -> None:
    with Image.open(figure_and_records[0]) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        colours = image.convert("RGB").getcolors(2**24)
    assert colours is not None
    assert len(colours) > 50


def test_correlate_writes_records_as_csv(store: Path) -> None:
    done = hnas("correlate", "--format", "csv", "--method", "kendall", "--with", "valid_accuracy", "--store", store)
    assert (done.status, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["kind"] for row in rows[-8:]] == ["realizable", "non_realizable"] * 4
    assert {row["y"] for row in rows[-8:]} == {"valid_accuracy"}
    assert all(-1 <= float(row["value"]) <= 1 for row in rows if row["value"])


def test_correlate_without_accuracies_shows_pairs_and_says_what_is_missing(store: Path) -> None:
    assert hnas("rm", "made-up", "--yes", "--store", store).status == 0
    done = hnas("correlate", "--store", store)
    assert (done.status, done.err) == (0, "")
    assert "Spearman's rho" in done.out
    assert "no accuracies of these architectures are in the store; `hnas import` adds them" in done.out


# --- pipes ----------------------------------------------------------------------------------------------------------


def test_a_pipe_closed_by_its_reader_ends_the_command_quietly(store: Path) -> None:
    command = f"{sys.executable} -m cli sql 'FROM range(1000000)' --format csv --store {store} | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("range\n", "")


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("arguments", [("info",), ("search", "nasbench201", "--queries", "1", "--quiet")])
def test_a_pipe_without_a_reader_ends_the_command_quietly(
    store: Path, closed_pipe: int, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hnas.cli", *arguments, "--store", store],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=closed_pipe,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == ""
