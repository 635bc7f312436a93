"""User-defined oracles: commands, installed packages and Python functions, their failures, and what never runs."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import hnas as package
from hnas import Evaluation, EvaluationError, HnasError, UsageError
from hnas.optim.oracles import PythonOracle, installed_oracle
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search import commands
from hnas.pipeline.search.commands import KEPT, CommandOracle, parse_command
from hnas.pipeline.search.oracles import own_oracle
from hnas.pipeline.store.store import Store
from tests.support.command_line import Outcome, hnas
from tests.support.contents import snapshot
from tests.support.stores import make_store

ODD = "|a~0|+(b)'\"$HOME `id`;{seed} é"
#: Prints the length of the architecture's name, and fails for an odd number of convolutions.
PROGRAM = """
import sys
arch, seed = sys.argv[1:]
print("trained", arch, "with seed", seed)
if arch.count("conv") % 2:
    sys.exit("out of memory\\x1b[2J")
print(len(arch) / 2)
print()
"""


def command(text: str, **values: str) -> CommandOracle:
    return CommandOracle(parse_command(f"command: {text}"), values, timeout=30.0)


# Input and exit of a command.


def test_an_architecture_reaches_the_command_without_a_shell() -> None:
    show = f"{sys.executable} -c 'import sys; print(sys.argv[1:]); print(7)' a={{arch}} {{seed}} {{{{seed}}}} {{a:1}}"
    found = command(show, seed="3")(ODD)
    assert (found.performance, found.exit_status) == (7.0, 0)
    assert found.output == f"{['a=' + ODD, '3', '{seed}', '{a:1}']}\n7\n"


def test_a_methods_epochs_replace_the_requested_ones() -> None:
    oracle = command("sh -c 'echo $1' sh {epochs} {arch}", epochs="12")
    assert oracle.takes_epochs
    assert (oracle("a").performance, oracle("a", 4).performance) == (12.0, 4.0)
    assert not command("echo {arch}").takes_epochs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("true {arch}", "printed nothing"),
        ("echo {arch}", "last line is 'x'; it must be the performance, a number"),
        ("echo nan {arch}", "'nan x'"),
        ("sh -c 'echo nan' {arch}", "last line is nan; it must be a finite number"),
        ("sh -c 'echo 3; echo oh >&2; exit 4' {arch}", "ended with exit status 4: oh"),
        ("sh -c 'kill -9 $$' {arch}", "was killed by SIGKILL"),
        ("{arch}", "exit status 127: x cannot be started: No such file"),
        ("true {arch} \0", "the command cannot be started: embedded null byte"),
    ],
)
def test_a_failing_command_gives_one_sentence(text: str, words: str) -> None:
    oracle = CommandOracle(tuple(shlex.split(text)), {}, timeout=30.0)
    with pytest.raises(EvaluationError, match=words) as error:
        oracle("x")
    assert error.value.cost is not None
    assert str(error.value).count("\n") == 0


def test_the_last_line_counts_and_the_end_of_large_output_is_kept() -> None:
    found = command("sh -c 'yes | head -c 100000000; printf \"\\n81.5 \\n\\n\"' {arch}")("x")
    assert found.performance == 81.5
    assert found.output is not None
    assert len(found.output) == KEPT


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def check_gone(pid: int) -> None:
    for _ in range(100):  # its adoptive parent has to notice
        if not alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the process is still alive")


@pytest.mark.parametrize("hangs", [True, False])
def test_a_hanging_command_and_its_children_are_killed(hangs: bool, tmp_path: Path) -> None:
    """The child holds the pipes open, and the command ignores SIGTERM."""
    after = "trap '' TERM; sleep 1000; sleep 1000" if hangs else "echo 5"
    oracle = CommandOracle(("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; {after}", "{arch}"), {}, 0.5)
    if hangs:
        with pytest.raises(EvaluationError, match=r"took longer than the 0\.5 s of --oracle-timeout and was stopped"):
            oracle("x")
    else:
        assert oracle("x").performance == 5.0
    check_gone(int((tmp_path / "pid").read_text()))


def test_a_command_ends_when_the_evaluating_process_is_killed(tmp_path: Path) -> None:
    text = f"command: sh -c 'echo $$ > {tmp_path}/pid; sleep 1000; echo 1' {{arch}}"
    program = f"from {commands.__name__} import *; CommandOracle(parse_command({text!r}), {{}})('x')"
    process = subprocess.Popen([sys.executable, "-c", program])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    check_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nosuchprogram {arch}", "program 'nosuchprogram' of --oracle was not found"),
        ("echo {ach}", r"placeholder 'ach' is unknown.*did you mean 'arch'.*write \{\{ach\}\} for the text \{ach\}"),
        ("echo 1", r"does not say where the architecture goes"),
        ("", r"does not say where the architecture goes"),
        ("echo '{arch}", "is not a command: no closing quotation"),
        ("sh -c 'train {arch}'", "would execute the architecture's name"),
        ("nice /bin/bash -ec 'train {arch}'", "would execute the architecture's name"),
        ("python3.11 -c 'print({arch})'", "would execute the architecture's name"),
    ],
)
def test_an_invalid_command_is_rejected(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_command(f"command: {text}")


@pytest.mark.parametrize(
    ("oracle", "given", "words"),
    [
        ("trian", {}, r"the oracle 'trian' is unknown; choose from table, train, table,train.*did you mean 'train'"),
        ("command: echo {arch}", {"options": ["a=1"]}, "requires an installed oracle"),
        ("table", {"options": ["a=1"]}, "requires an installed oracle"),
        ("train", {"timeout": 3.0}, "--oracle-timeout requires a command"),
        ("command: echo {arch}", {"timeout": 0.0}, "must be a positive number of seconds"),
        ("command: echo {arch}", {"timeout": math.nan}, "must be a positive number of seconds"),
        ("command: echo {arch} {epochs}", {}, "give their number with --epochs"),
        ("command: echo {arch}", {"epochs": 3}, "--epochs would have no effect"),
        ("command: echo {arch} {epochs}", {"epochs": 0}, "must be at least 1"),
    ],
)
def test_options_that_do_not_fit_the_oracle_are_rejected(oracle: str, given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        own_oracle(oracle, **given)  # type: ignore[arg-type]


# Searches.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("oracles"), architectures=30, accuracies=False)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("program") / "train it.py"
    program.write_text(PROGRAM)
    return f"command: {sys.executable} {shlex.quote(str(program))} {{arch}} {{seed}}"


@pytest.fixture(scope="module")
def searched(store: Store, oracle: str) -> Outcome:
    search = ("search", "nasbench201", "--method", "random", "--queries", 6, "--seed", 5, "--store", store.root)
    return hnas(*search, "--oracle", oracle, "--json")


def test_a_search_continues_after_failed_commands_and_keeps_output(store: Store, searched: Outcome) -> None:
    assert searched.status == 0, searched.err
    found = json.loads(searched.out)
    failed = [query for query in found["queries"] if query["arch"].count("conv") % 2]
    assert 0 < len(failed) < 6
    assert [query for query in found["queries"] if query["performance"] is None] == failed
    assert {q["failure"] for q in failed} == {"the command ended with exit status 1: out of memory\x1b[2J"}
    assert found["best"]["performance"] == max(q["performance"] or 0 for q in found["queries"])
    assert searched.err.count(" failed: the command ended with exit status 1: out of memory") == len(failed)
    assert "\x1b" not in searched.err
    rows = (
        connect(store).execute("SELECT arch, performance, failure, output, exit_status, cost FROM queries").fetchall()
    )
    for arch, performance, failure, output, status, cost in rows:
        assert (performance is None, failure is None, status) == (status == 1, status == 0, arch.count("conv") % 2)
        assert output.startswith(f"trained {arch} with seed 5\n")
        assert cost > 0
    best = connect(store).execute("SELECT arch, performance FROM incumbents ORDER BY query DESC LIMIT 1").fetchall()
    assert best == [(found["best"]["arch"], found["best"]["performance"])]


def test_a_saved_command_runs_only_if_given_again(store: Store, oracle: str, searched: Outcome) -> None:
    name = json.loads(searched.out)["search"]
    resume = ("search", "--resume", name, "--store", store.root)
    for given in ((), ("--oracle", "train"), ("--oracle", oracle + " "), ("--oracle", "command: echo {arch}")):
        done = hnas(*resume, *given)
        assert (done.status, done.out) == (2, "")
        assert "does not run because a store says so" in done.last
        assert shlex.quote(oracle) in done.last
    queries = store.read_table(None, "searches", name, "queries.parquet")
    store.write_table(queries.slice(0, 2), "searches", name, "queries.parquet")
    again = hnas(*resume, "--oracle", oracle, "--json")
    plain = [
        [(q["arch"], q["performance"]) for q in json.loads(outcome.out)["queries"]] for outcome in (searched, again)
    ]
    assert plain[0] == plain[1]


def test_a_forged_record_runs_nothing(store: Store, tmp_path: Path) -> None:
    name = hnas("search", "nasbench201", "--queries", 1, "--oracle", "command: echo 1 {arch}", "--store", store.root)
    assert "the only evaluation failed" in name.last
    (search,) = (s for s in store.folders("searches") if read_oracle(store, s) == "command: echo 1 {arch}")
    saved = store.read_json("searches", search, "search.json")
    for change in (
        {"own": None},
        {"own": {"epochs": "3"}},
        {"own": {"command": "x"}},
        {"oracle": "table"},
        {"oracle": 5},
    ):
        settings = {**saved["settings"], "oracle": f"command: touch {tmp_path}/ran {{arch}}", **change}
        store.write_json({**saved, "settings": settings}, "searches", search, "search.json")
        done = hnas("search", "--resume", search, "--store", store.root)
        assert (done.status, "search.json" in done.last) == (1, True), done
    store.fs.rm(store.path("searches", search), recursive=True)
    assert not (tmp_path / "ran").exists()


def read_oracle(store: Store, search: str) -> str:
    return str(store.read_json("searches", search, "search.json")["settings"]["oracle"])


def test_a_dry_run_runs_no_command(store: Store, tmp_path: Path) -> None:
    touch = ("--oracle", f"command: touch {tmp_path}/ran {{arch}}", "--dry-run", "--store", store.root)
    done = hnas("search", "nasbench201", *touch)
    assert "unknown: an oracle of one's own takes what it takes" in done.out
    compared = hnas("compare", "nasbench201", "--methods", "hnas,random", *touch)
    assert "unknown: an oracle of one's own takes what it takes" in compared.out
    assert not (tmp_path / "ran").exists()


def test_methods_are_compared_by_a_command(store: Store, oracle: str) -> None:
    compare = ("compare", "nasbench201", "--methods", "random,top:params", "--queries", 3, "--seeds", 2, "--workers", 1)
    done = hnas(*compare, "--oracle", oracle, "--store", store.root, "--quiet")
    assert done.status == 0, done.err
    rows = connect(store).execute("SELECT output, search FROM queries WHERE search LIKE '%-0-1'").fetchall()
    assert len(rows) == 3
    assert all("with seed 1\n" in output for output, _ in rows)
    failed = connect(store).execute("SELECT count(*) FROM queries WHERE search LIKE '%-%' AND failure IS NOT NULL")
    assert f"{failed.fetchall()[0][0]} evaluations failed" in done.out


def test_a_search_with_only_failures_has_no_winner_but_is_saved(store: Store) -> None:
    done = hnas(
        "search", "nasbench201", "--oracle", "command: false {arch}", "--queries", 2, "--store", store.root, "--quiet"
    )
    assert done.status == 1
    assert "all 2 evaluations failed, so the search has no winner; the last: the command ended with" in done.last


def test_methods_with_several_lengths_need_oracles_with_epochs(store: Store) -> None:
    bohb = ("search", "nasbench201", "--method", "bohb", "--store", store.root, "--queries", 3)
    done = hnas(*bohb, "--oracle", "command: sh -c 'echo $1' sh {epochs} {arch}", "--epochs", 9, "--json")
    assert {query["performance"] for query in json.loads(done.out)["queries"]} == {1.0}
    assert "needs epochs" in hnas(*bohb, "--oracle", "command: echo {arch}").last


# Python.


class Answer:
    """An oracle for the entry points below."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, arch: str, *, seed: int, dataset: str) -> float:
        assert dataset == "digits"
        return self.scale * len(arch) + seed


def length(arch: str, epochs: int = 0, scale: float = 1.0) -> Evaluation:
    return Evaluation(scale * len(arch) + epochs, 5.0)


def raising(arch: str) -> float:
    raise SystemExit("no\nmore")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with entry points, as pip installs it."""
    folder = tmp_path / "own-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    entries = "".join(f"{name} = {__name__}:{name}\n" for name in ("Answer", "length", "raising", "gone"))
    (folder / "entry_points.txt").write_text(f"[hnas.oracles]\n{entries}")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_installed_oracles_take_options_and_must_be_named_to_resume(store: Store) -> None:
    place = ("--store", store.root, "--json", "--quiet")
    search = ("search", "nasbench201", "--queries", 2, "--method", "random", "--seed", 4, "--oracle", "Answer", *place)
    done = hnas(*search, "--oracle-option", "scale=10")
    found = json.loads(done.out)
    assert [query["performance"] for query in found["queries"]] == [10 * len(q["arch"]) + 4 for q in found["queries"]]
    resume = ("search", "--resume", found["search"], "--oracle", "Answer", *place)
    assert "--oracle Answer --oracle-option scale=10" in hnas(*resume).last
    assert "scale=10" in hnas(*resume, "--oracle-option", "scale=11").last
    assert json.loads(hnas(*resume, "--oracle-option", "scale=10").out)["queries"] == found["queries"]
    assert "does not accept these options" in hnas(*search, "--oracle-option", "scal=10").last
    assert "cannot be loaded" in hnas(*search[:-5], "gone", *place).last
    failed = hnas("search", "nasbench201", "--queries", 2, "--oracle", "raising", *place)
    assert (failed.status, "the oracle raised SystemExit: no" in failed.last) == (1, True)


@pytest.mark.usefixtures("installed")
def test_an_installed_function_takes_options_and_epochs() -> None:
    made = installed_oracle("length", {"scale": 2}, epochs=100, seed=0, dataset="digits")
    assert made.takes_epochs
    assert (made("abc"), made("abc", 7)) == (Evaluation(106.0, 5.0), Evaluation(13.0, 5.0))
    assert pickle.loads(pickle.dumps(made))("abc") == Evaluation(106.0, 5.0)
    with pytest.raises(UsageError, match=r"does not accept these options.*'scal'"):
        installed_oracle("length", {"scal": 2}, epochs=None, seed=0, dataset="digits")
    with pytest.raises(UsageError, match="has no parameter epochs"):
        installed_oracle("Answer", {}, epochs=3, seed=0, dataset="digits")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (math.nan, "the performance nan"),
        (None, "raised TypeError"),
        ("text", "raised ValueError"),
        (Evaluation(5.0, -1.0), "a cost of -1.0 seconds"),
        (Evaluation(None, 1.0), "raised TypeError"),
        (Evaluation(5.0, "a day"), "raised ValueError"),
    ],
)
def test_a_result_that_is_not_a_number_fails_the_evaluation(answer: object, words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        PythonOracle(lambda arch: answer, seed=0, dataset="digits")("a")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"queries": 2.5}, "queries must be a whole number, got 2.5"),
        ({"queries": "3"}, "queries must be a whole number, got '3'"),
        ({"budget": "100"}, "budget must be a number of seconds, got '100'"),
        ({"seed": 0.5}, "seed must be a whole number between 0 and 2**63 - 1, got 0.5"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer of at least 1, got 1.5"),
    ],
    ids=str,
)
def test_a_limit_of_another_type_gives_one_sentence(store: Store, limits: dict[str, Any], words: str) -> None:
    before = snapshot(store.root)
    with pytest.raises(UsageError, match=re.escape(words)):
        package.search_store("nasbench201", length, store=store.root, **limits)
    assert snapshot(store.root) == before


def test_a_python_function_searches_a_store_and_can_resume(store: Store) -> None:
    asked: list[str] = []

    def accuracy(arch: str, seed: int) -> float:
        asked.append(arch)
        if len(asked) == 2:
            raise ValueError("this one broke")
        return len(arch) + seed

    result = package.search_store("nasbench201", accuracy, store=store.root, queries=4, seed=1, method="random")
    assert [query.arch for query in result.queries] == asked
    assert [query.failure for query in result.queries] == [
        None,
        "the oracle raised ValueError: this one broke",
        *2 * [None],
    ]
    assert result.best.performance == max(len(arch) + 1 for i, arch in enumerate(asked) if i != 1)
    again = package.search_store("nasbench201", accuracy, store=store.root, resume=result.search)
    assert len(asked) == 4
    assert [query.arch for query in again.queries] == asked
    with pytest.raises(UsageError, match=r"was evaluated by 'function: .*accuracy', not 'function: .*length'"):
        package.search_store("nasbench201", length, store=store.root, resume=result.search)
    with pytest.raises(UsageError, match="is of nasbench201, not of darts"):
        package.search_store("darts", accuracy, store=store.root, resume=result.search)
    done = hnas("search", "--resume", result.search, "--store", store.root)
    assert "resume it from Python, by hnas.search_store and" in done.last
    with pytest.raises(HnasError, match="all 2 evaluations failed"):
        package.search_store("nasbench201", lambda arch: 1 / 0, store=store.root, queries=2)
