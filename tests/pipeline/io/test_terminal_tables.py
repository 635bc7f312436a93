"""Tables and lines at terminals of several widths, and without a terminal."""

from __future__ import annotations

import os
import pty
import re
from contextlib import suppress
from pathlib import Path
from threading import Thread
from unittest import mock

import pytest

from hnas.pipeline.io.terminal_tables import cut, described, fitted, table
from tests.support.command_line import hnas
from tests.support.stores import make_store

COMMANDS = {
    "info": ("info",),
    "correlate": ("correlate",),
    "sql": ("sql", "FROM pool"),
    "one wide column": ("sql", "SELECT repeat('wide ', 60) AS text"),
    "long headers": ("sql", f"SELECT {' + '.join(['1'] * 30)}, 2"),
    "search": ("search", "nasbench201", "--queries", "3"),
    "dry run": ("precompute", "nasbench201", "--dataset", "digits", "--sample", "2", "--channels", "4", "--cells", "1",
                "--batch-size", "16", "--dry-run"),
}  # fmt: skip
# Never cut, so that they can be copied; the terminal wraps them itself.
WHOLE = re.compile(r"store |best: |      .*(accuracy|oracle|whole)|run \w+: ")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fitting") / "store"
    place.mkdir()
    make_store(place, architectures=50)
    assert hnas("search", "nasbench201", "--queries", 1, "-q", "--store", place).status == 0
    return place


def on_terminal(store: Path, width: int, *arguments: str) -> list[str]:
    """The lines that a command writes to a terminal of that width, without colours."""
    leader, follower = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(leader, 65536):
                shown.extend(piece)

    reader = Thread(target=read)
    reader.start()
    with (
        os.fdopen(follower, "w", encoding="utf-8") as terminal,
        mock.patch.dict(os.environ, {"COLUMNS": str(width), "TERM": "xterm"}),
    ):
        done = hnas(*arguments, "--store", store, terminal=terminal)
    reader.join()
    os.close(leader)
    assert done.status == 0, done.err
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_output_fits_the_width_of_the_terminal(store: Path, name: str, width: int) -> None:
    lines = on_terminal(store, width, *COMMANDS[name])
    assert lines
    assert [line for line in lines if len(line) > width and not WHOLE.match(line)] == []


def test_omitted_columns_are_named(store: Path) -> None:
    assert any(re.match(r"… \d+ more columns, `hnas info --json`", line) for line in on_terminal(store, 40, "info"))
    assert any(re.match(r"… \d+ more columns, `--format", line) for line in on_terminal(store, 60, "correlate"))
    lines = on_terminal(store, 80, "sql", "FROM pool")
    assert lines[-2:] == ["… 10 more rows (50 in all)", lines[-1]]
    assert re.match(r"… \d+ more columns, --format csv has all: ", lines[-1])
    lines = on_terminal(store, 80, "search", "nasbench201", "--queries", "2")
    assert lines[0].endswith("…")
    assert re.search(r"`hnas search --resume \w+ --json` shows the queries whole", lines[-1])


def test_nothing_is_cut_without_a_terminal(store: Path) -> None:
    for name in ("info", "correlate", "sql", "search"):
        done = hnas(*COMMANDS[name], "--store", store)
        assert "…" not in done.out
    assert len(hnas("sql", "FROM pool", "--store", store).out.splitlines()) == 52
    assert "seconds" in hnas("info", "--store", store).out


def test_the_widest_columns_shrink_first_and_the_last_are_omitted() -> None:
    assert fitted([10, 30, 20], [10, 12, 12], 60) == [10, 26, 20]
    assert fitted([10, 30, 20], [10, 12, 12], 40) == [10, 13, 13]
    assert fitted([10, 30, 20], [10, 12, 12], 30) == [10, 18]
    assert fitted([50], [50], 10) == [50]
    assert fitted([10, 30], [10, 12], None) == [10, 30]


def test_wide_characters_count_twice() -> None:
    rows = [["name", "n"], ["数据集", "1"], ["a", "22"]]
    assert table(rows, texts=[True, False], remedy="").splitlines() == ["name     n", "数据集   1", "a       22"]
    assert cut("数据集", 5) == "数据…"


def test_descriptions_wrap_at_spaces_only() -> None:
    assert described([["key", "one two three four five"]], 34) == (
        "key           one two three four\n              five"
    )
    assert described([["key", "x" * 50]], 30) == "key           " + "x" * 50
