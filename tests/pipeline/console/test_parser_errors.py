"""Wrong command lines: each gives one sentence in hnas's own words and exit status 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hnas.errors import closest, did_you_mean
from tests.support.command_line import hnas, hnas_process
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parser") / "store"
    place.mkdir()
    make_store(place, architectures=20)
    return place


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("serch", ["unknown command 'serch'", "precompute, import", "did you mean 'search'?"]),
        ("it's", ["unknown command"]),
        ("-", ["unknown command '-'"]),
        ("--", ["a command is missing", "precompute"]),
        ("--bogus", ["`hnas` has no option --bogus", "`hnas --help` lists"]),
        ("--store x info", ["`hnas` has no option --store", "after a command"]),
        ("search --queriez 3", ["`hnas search` has no option --queriez", "did you mean '--queries'"]),
        ("search -x", ["`hnas search` has no option -x", "`hnas search --help` lists"]),
        ("info --debug=3", ["`hnas info` has no option --debug"]),
        ("precompute", ["`hnas precompute` needs SPACE: a search space, such as nasbench201"]),
        ("evaluate", ["`hnas evaluate` needs ARCH"]),
        ("fetch", ["`hnas fetch` needs NAME"]),
        ("import", ["`hnas import` needs KIND"]),
        ("import csv", ["`hnas import` needs PATH"]),
        ("import cvs x", ["the importer 'cvs' is unknown", "choose from columns, csv", "did you mean 'csv'?"]),
        ("precompute nasbench201 --ntk sumed", ["--ntk 'sumed' is unknown", "did you mean 'summed'?"]),
        ("precompute nasbench201 --batch-size many", ["--batch-size takes a whole number, not 'many'"]),
        ("precompute nasbench201 --batch-size 1.5", ["--batch-size takes a whole number, not '1.5'"]),
        (f"search nasbench201 --queries {'9' * 5000}", ["--queries takes a whole number, not '999", "…'"]),
        ("search nasbench201 --t half", ["--t takes a number, not 'half'"]),
        ("precompute nasbench201 --dataset digits --seed", ["--seed needs a value after it"]),
        ("info --json=3", ["--json takes no value"]),
        ("info best extra more", ["`hnas info` takes no further argument", "'extra more'"]),
        ("sql SELECT 1", ["`hnas sql` takes no further argument", "'1'", "quote"]),
    ],
)  # fmt: skip
def test_parser_errors_say_in_one_sentence_what_would_be_right(arguments: str, words: list[str]) -> None:
    done = hnas(*arguments.split())
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("hnas: ")
    assert not re.search(r"[.!?][;:]? +[A-Z]", done.err)
    for word in words:
        assert word in done.err


def test_a_query_that_begins_with_a_comment_needs_two_dashes(store: Path) -> None:
    for query in ("-- c\nSELECT 1 AS a", "--x = 1\nSELECT 1 AS a"):
        done = hnas("sql", query, "--store", store)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert 'begins with a comment, which looks like an option; write `hnas sql -- "…"`' in done.err
        assert hnas("sql", "--store", store, "--", query).out == "a\n─\n1\n"


def test_hnas_alone_shows_its_help_and_the_missing_command() -> None:
    done = hnas()
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: hnas ")
    assert done.last.startswith("hnas: a command is missing; choose from precompute, ")


@pytest.mark.parametrize(
    "command", ["", "precompute", "import", "fetch", "search", "evaluate", "sql", "correlate", "info", "rm", "check"]
)
def test_minus_h_shows_help_everywhere(command: str) -> None:
    assert hnas(*command.split(), "-h") == hnas(*command.split(), "--help")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("search", "nasbench21"), "'nasbench201'"),
        (("search", "nasbench201", "--metric", "trac"), "'trace'"),
        (("search", "nasbench201", "--metric", "GradNorm"), "'grad_norm'"),
        (("search", "nasbench201", "--accuracy", "test"), "'test_accuracy'"),
        (("search", "nasbench201", "--dataset", "digit"), "'digits'"),
        (("correlate", "--dataset", "dgits"), "'digits'"),
        (("correlate", "--space", "nasbench-201"), "'nasbench201'"),
        (("correlate", "--with", "test_acuracy"), "'test_accuracy'"),
        (("correlate", "--with", "parms"), "'params'"),
        (("fetch", "cifar-10"), "'cifar10'"),
        (("precompute", "nasbench201", "--dataset", "digit", "--sample", "2"), "'digits'"),
        (("evaluate", "x", "--space", "drts", "--dataset", "digits"), "'darts'"),
    ],
)  # fmt: skip
def test_a_misspelled_name_gets_a_suggestion(store: Path, arguments: tuple[str, ...], meant: str) -> None:
    if arguments[0] not in ("fetch", "evaluate"):
        arguments = (*arguments, "--store", str(store))
    done = hnas(*arguments)
    assert (done.status, done.out) == (2, "")
    assert f"; did you mean {meant}" in done.err


def test_misspelled_runs_and_searches_get_suggestions_too(store: Path) -> None:
    assert hnas("search", "nasbench201", "--queries", 1, "-q", "--store", store).status == 0
    (run,) = (path.name for path in (store / "runs").iterdir())
    search = next(path.name for path in (store / "searches").iterdir())
    for option, name in (("--run", run), ("--resume", search)):
        wrong = name[:-1] + ("0" if name[-1] != "0" else "1")
        done = hnas("search", "nasbench201", option, wrong, "--store", store)
        assert (done.status, done.out) == (2, "")
        assert f"did you mean {name!r}?" in done.err


def test_a_name_unlike_any_other_gets_no_suggestion() -> None:
    assert did_you_mean("zebra", ["trace", "snip"]) == ""
    assert closest("Trace", ["trace", "TRACE", "grasp"]) == ["trace", "TRACE"]
    assert closest("trace", ["trace"]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "X", "info --X", "precompute X", "precompute nasbench201 --dataset X", "search --resume X", "search X",
        "precompute nasbench201 --dataset digits --architectures X", "precompute nasbench201 --scheduler X",
        "import csv X", "import X a", "fetch X", "fetch cifar10 --to X", "fetch cifar10 --from X", "evaluate X",
        "evaluate a --dataset X", "search nasbench201 --metric X", "search nasbench201 --run X", "sql X",
        "search nasbench201 --dataset X", "search nasbench201 --accuracy X", "sql FROM(runs) --output X.csv",
        "correlate --with X", "correlate --space X", "correlate --plot X.png", "info --store X", "info --json X",
        "search nasbench201 --queries X",
    ],
)  # fmt: skip
def test_an_argument_that_is_not_text_is_rejected_at_once(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hnas(*(argument.replace("X", "a\udcff") for argument in arguments.split()))
    assert (done.status, done.out) == (2, "")
    assert "a\\xff" in done.err
    assert "is not UTF-8 text" in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_text_are_rejected_from_other_sources_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "d\udcff"
    folder.mkdir()
    done = hnas_process("info", "--store", "s", cwd=folder)
    assert (done.status, done.out) == (2, "")
    assert "d\\xff/s, is not UTF-8 text" in done.err
    monkeypatch.setenv("HNAS_STORE", "a\udcff")
    done = hnas_process("info")
    assert (done.status, done.out) == (2, "")
    assert "$HNAS_STORE (a\\xff) is not UTF-8 text" in done.err


def test_control_characters_of_an_argument_are_escaped(store: Path) -> None:
    for arguments in (
        ("info\x1b[2J",), ("search", "x\x1b[2J"), ("search", "nasbench201", "--metric", "\x1b[2J"),
        ("correlate", "--with", "\x1b[2J"), ("correlate", "--run", "\x9b2J"), ("sql", 'FROM "\x1b[2J"'),
        ("fetch", "\x1b[2J"), ("precompute", "nasbench201", "--dataset", "\x1b[2J"), ("import", "csv", "\x1b[2J"),
        ("search", "nasbench201", "--queries", "\x1b[2J"), ("info", "--\x1b[2J"), ("info", "\x1b[2J"),
    ):  # fmt: skip
        done = hnas(*arguments, *(() if arguments[0] == "fetch" else ("--store", store)))
        assert done.status == 2, done.err
        assert "\x1b" not in done.err
        assert "\x9b" not in done.err
        assert done.err.count("\n") == 1
