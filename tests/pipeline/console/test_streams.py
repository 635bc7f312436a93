"""Every command with standard streams that are closed, full, broken, or lack characters in their encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import CONVOLUTION
from tests.support.places import ROOT
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

COMMANDS = {
    "help": ("--help",),
    "version": ("--version",),
    "info": ("info",),
    "correlate": ("correlate", "--dataset", "digits"),
    "correlate as CSV": ("correlate", "--format", "csv"),
    "search": ("search", "nasbench201", "--queries", "2"),
    "sql": ("sql", "FROM pool"),
    "sql as CSV": ("sql", "FROM pool", "--format", "csv"),
    "sql as Parquet": ("sql", "FROM pool", "--format", "parquet"),
    "a shell": ("sql",),
    "import": ("import", "csv"),
    "dry run": ("precompute", "nasbench201", "--dataset", "digits", "--sample", "1", "--channels", "4", "--cells", "1",
                "--batch-size", "16", "--dry-run"),
    "completion": ("--show-completion", "bash"),
}  # fmt: skip

SHELL_NAMED = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("streams") / "store"
    place.mkdir()
    make_store(place, architectures=20)
    (place.parent / "a.csv").write_text(f"arch,dataset,test_accuracy\n{CONVOLUTION},digits,50\n")
    return place


def run(store: Path, name: str, redirect: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command through a shell, with redirections such as `>&-`."""
    arguments = COMMANDS[name]
    if name == "import":
        arguments += (str(store.parent / "a.csv"),)
    if name not in ("help", "version", "completion"):
        arguments += ("--store", str(store))
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", sys.executable, "-m", "hnas.cli", *arguments],
        # The variable gives the option the shell, which it would otherwise look up among the parent processes.
        env={**os.environ, "PYTHONPATH": str(ROOT), **SHELL_NAMED, **environment},
        cwd=store.parent,
        input=".tables\nFROM runs;\n",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_reported(store: Path, name: str, redirect: str) -> None:
    done = run(store, name, redirect)
    assert done.returncode == 1
    reason = "No space left on device" if "full" in redirect else "Bad file descriptor"
    *remarks, last = done.stderr.splitlines()
    assert last == f"hnas: cannot write to standard output: {reason}"
    assert "Exception ignored" not in done.stderr
    assert not any("hnas:" in line for line in remarks)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&- <&-"])
def test_results_do_not_depend_on_the_other_streams(store: Path, name: str, redirect: str) -> None:
    done = run(store, name, redirect)
    assert done.returncode == 0, done.stderr
    assert done.stdout != "" or (name == "a shell" and "<" in redirect)
    assert "hnas:" not in done.stderr


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "2>&- >&-", "2>&- >&- <&-"])
def test_an_unreadable_error_still_sets_the_status(store: Path, redirect: str) -> None:
    for arguments, status in ((["serch"], 2), (["info", "--store", str(store / "store.json")], 2)):
        done = subprocess.run(
            ["bash", "-c", f'"$@" {redirect}', "bash", sys.executable, "-m", "hnas.cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_pipe_ends_every_command_quietly(store: Path, name: str) -> None:
    done = run(store, name, "| true")
    assert done.returncode == 0
    assert "hnas:" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_an_encoding_that_lacks_characters_is_not_an_error(store: Path, name: str) -> None:
    done = run(store, name, "", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


def test_data_are_rejected_if_an_escape_would_change_them(store: Path) -> None:
    for form, status in (("csv", 1), ("json", 1), ("table", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "hnas.cli", "sql", "SELECT 'κ' AS k", "--format", form, "--store", str(store)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status
        assert ("latin-1 and cannot hold" in done.stderr) == bool(status)
        assert "\\u03ba" not in done.stdout or form == "table"
