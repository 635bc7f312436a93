"""The output of `--help`, and completion with Tab."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hnas import cli
from tests.support.command_line import hnas, imported_by
from tests.support.stores import make_store

ROOT_COMMAND: Any = typer.main.get_command(cli.app)
COMMANDS: dict[str, Any] = ROOT_COMMAND.commands


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("help") / "store"
    place.mkdir()
    make_store(place, architectures=20)
    assert hnas("search", "nasbench201", "--queries", 1, "-q", "--store", place).status == 0
    return place


def examples(command: str) -> list[list[str]]:
    """The commands below `Examples:` in its help, as a shell would split them."""
    shown = hnas(command, "--help").out.partition("\n  Examples:\n")[2]
    assert shown, f"`hnas {command} --help` shows no examples"
    lines = [line.strip() for line in shown.splitlines()]
    values = dict(re.fullmatch(r"(\w+)='(.*)'", line).groups() for line in lines if "=" in line.partition(" ")[0])  # type: ignore[union-attr]
    found = []
    for line in lines:
        for name, value in values.items():
            line = line.replace(f'"${name}"', shlex.quote(value))
        if line.startswith("hnas "):
            found.append(shlex.split(line)[1:])
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_two_examples_that_parse(command: str) -> None:
    found = examples(command)
    assert len(found) >= 2
    for name, *arguments in found:
        assert name == command
        with COMMANDS[name].make_context(name, arguments) as context:
            assert context.params


@pytest.mark.parametrize("command", ["info", "sql", "correlate", "search"])
def test_examples_that_only_read_a_store_run(
    command: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HNAS_STORE", str(store))
    for arguments in examples(command):
        if "cifar10" in arguments:
            arguments[arguments.index("cifar10")] = "digits"  # the data set of the test store's run
        if "--store" in arguments:
            arguments[arguments.index("--store") + 1] = str(store)
        if "train" in arguments or any(argument.startswith("command:") for argument in arguments):
            continue
        if "--queries" in arguments:
            arguments[arguments.index("--queries") + 1] = "2"
        done = hnas(*arguments)
        assert done.status == 0, done.err
        if "--output" in arguments or "--plot" in arguments:
            assert next(tmp_path.iterdir()).stat().st_size > 1000


def complete(store: Path, words: str, *, shell: str = "bash") -> tuple[list[str], set[str]]:
    """The completions that Tab offers after `words`, and the heavy packages imported for them."""
    environment = {
        "_HNAS_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words, "HNAS_STORE": str(store),
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        heavy, done = imported_by()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1], heavy


def test_tab_completes_names_without_heavy_imports(store: Path) -> None:
    (run,) = (path.name for path in (store / "runs").iterdir())
    searches = sorted(path.name for path in (store / "searches").iterdir())
    for words, offered in {
        "hnas sea": ["search"],
        "hnas precompute nas": ["nasbench101", "nasbench201"],
        "hnas search da": ["darts"],
        "hnas evaluate x --space nasbench2": ["nasbench201"],
        "hnas correlate --space d": ["darts"],
        "hnas search nasbench201 --metric grad": ["grad_norm", "grad_norm_l2"],
        "hnas precompute nasbench201 --dataset cifar": ["cifar10", "cifar100"],
        "hnas correlate --run ": [run],
        f"hnas search nasbench201 --run {run[:2]}": [run],
        "hnas search --resume ": searches,
        "hnas correlate --with test": ["test_accuracy"],
        "hnas correlate --with par": ["params"],
        "hnas search nasbench201 --accuracy v": ["valid_accuracy"],
        "hnas fetch nasbench101": ["nasbench101", "nasbench101-full"],
        "hnas import suite": ["suite-zero"],
        "hnas sql --out": ["--output"],
    }.items():
        found, heavy = complete(store, words)
        assert found == offered, words
        assert heavy & {"torch", "duckdb", "dask", "distributed", "sklearn", "scipy", "bayes_opt"} == set(), words


def test_an_invalid_store_completes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no store")
    for place in (tmp_path / "gone", tmp_path / "file", tmp_path):
        assert complete(place, "hnas correlate --run ")[0] in ([], [""])
        assert complete(place, "hnas search --resume ")[0] in ([], [""])


def test_runs_have_descriptions_in_shells_that_show_them(store: Path) -> None:
    found, _ = complete(store, "hnas correlate --run ", shell="zsh")
    assert "nasbench201 on digits, seed 0" in found[0]


def test_completion_uses_the_store_on_the_command_line(store: Path, tmp_path: Path) -> None:
    (run,) = (path.name for path in (store / "runs").iterdir())
    assert complete(tmp_path, f"hnas correlate --store {store} --run ")[0] == [run]
