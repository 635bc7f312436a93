"""The SQL shell: at a terminal, from a script, and its completion."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import time

import duckdb
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from hnas.errors import HnasError, UsageError
from hnas.pipeline.console.shell import SqlCompleter, is_blank, list_columns, run_shell, split_statements
from tests.support.places import ROOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def history(tmp_path, monkeypatch):
    path = tmp_path / "state" / "history"
    monkeypatch.setenv("HNAS_HISTORY", str(path))
    return path


@pytest.fixture
def connection():
    connection = duckdb.connect()
    connection.execute("CREATE VIEW pool AS SELECT 'a' AS arch, 1.5::DOUBLE AS trace FROM range(3)")
    connection.execute('CREATE VIEW runs AS SELECT 1 AS run, 2 AS "Batch size"')
    return connection


def type_in(connection, keys: str, format: str = "csv") -> tuple[str, str]:  # noqa: A002
    """Send keys to the shell on a terminal; return what it wrote to standard output and error."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text(keys)
        run_shell(connection, format=format, stdin=Terminal(), stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def run_script(connection, script: str, format: str = "csv") -> tuple[str, str]:  # noqa: A002
    stdout, stderr = io.StringIO(), io.StringIO()
    run_shell(connection, format=format, stdin=io.StringIO(script), stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


# At a terminal


def test_statement_over_several_lines(connection):
    assert type_in(connection, "SELECT 1 AS a,\n'x;\ny' AS b\n;\n\x04") == ('a,b\n1,"x;\ny"\n', "")


def test_several_statements_on_one_line_are_all_shown(connection):
    assert type_in(connection, "SELECT 1 AS a; SELECT 2 AS b;\n\x04")[0] == "a\n1\nb\n2\n"


def test_an_error_is_one_line_and_the_shell_continues(connection):
    out, err = type_in(connection, "FROM poo;\nSELECT error('boom');\n.nonsense\nSELECT 2 AS a;\n\x04")
    assert out == "a\n2\n"
    assert [line.split(":")[0] for line in err.splitlines()] == ["error"] * 3
    assert "the views are pool, runs" in err


def test_ctrl_c_clears_the_line(connection):
    assert type_in(connection, "SELECT nonsense\x03SELECT 3 AS a;\n\x04") == ("a\n3\n", "")


def test_empty_lines_and_lone_semicolons_do_nothing(connection):
    assert type_in(connection, "\n;\n-- note\n\x04") == ("", "")


def test_dot_commands(connection):
    out, err = type_in(
        connection, ".tables\n.schema runs\n.format\n.format json\nSELECT 1 AS a;\n.timer on\nSELECT 2;\n.quit\n"
    )
    tables, rest = out.split("runs\nruns\n")
    assert tables == "pool\n"
    assert rest.startswith('  run         INTEGER\n  Batch size  INTEGER\ncsv\n[{"a": 1}]\n')
    assert err.endswith(" s\n")


def test_help_names_every_dot_command(connection):
    out, _ = type_in(connection, ".help\n.quit\n")
    assert all(command in out for command in (".help", ".tables", ".schema", ".format", ".timer", ".quit"))


def test_dot_command_errors_say_what_would_be_right(connection):
    _, err = type_in(connection, ".format parquet\n.schema absent\n.timer maybe\n.quit\n")
    assert [
        hint in line for hint, line in zip(["table, csv, json", "pool, runs", ".help"], err.splitlines(), strict=True)
    ] == [True] * 3


def test_misspelled_dot_commands_views_and_formats_get_suggestions(connection):
    _, err = type_in(connection, ".tabels\n.schema pol\n.format jsn\n.quit\n")
    meant = ["'.tables'", "'pool'", "'json'"]
    assert [f"did you mean {name}" in line for name, line in zip(meant, err.splitlines(), strict=True)] == [True] * 3


def test_rows_are_limited_in_every_format_and_counted(connection):
    query = "SELECT i FROM range(5) t(i)"
    for form, shown in (("csv", "i\n0\n1\n"), ("json", '[{"i": 0},\n {"i": 1}]\n')):
        out, err = type_in(connection, f".rows 2\n.rows\n{query};\n.rows all\n.rows\n{query};\n.quit\n", form)
        assert out.startswith(f"2\n{shown}all\n")
        assert out.count("4") == 1
        assert err == "3 more rows (5 in all); .rows all shows them\n"
    out, _ = type_in(connection, f".rows 2\n{query};\n.quit\n", "table")
    assert out.splitlines()[-1] == "… 3 more rows (5 in all)"
    _, err = type_in(connection, ".rows 0\n.rows many\n.quit\n")
    assert err.count(".help") == 2


def test_history_is_kept_between_sessions(connection, history):
    type_in(connection, "SELECT 41 AS a;\n\x04")
    assert "SELECT 41 AS a;" in history.read_text()
    assert type_in(connection, "\x1b[A\n\x04")[0] == "a\n41\n"


def test_unwritable_history_is_kept_in_memory(connection, monkeypatch):
    monkeypatch.setenv("HNAS_HISTORY", "/dev/null/history")
    assert type_in(connection, "SELECT 1 AS a;\n\x04") == ("a\n1\n", "")


def test_aborted_transaction_can_be_rolled_back(connection):
    out, err = type_in(connection, "BEGIN;\nSELECT error('boom');\nSELECT 1;\nROLLBACK;\nSELECT 5 AS a;\n\x04")
    assert out == "a\n5\n"
    assert "ROLLBACK" in err


# From a script


def test_script_executes_every_statement(connection):
    setup = "-- first\nCREATE TABLE t (a INT); INSERT INTO t\nVALUES (1),\n(2);\n"
    out, _ = run_script(connection, setup + ".format json\nFROM t;\n\nSELECT count(*) AS n FROM t")
    assert [json.loads(part) for part in out.replace("]\n[", "]\0[").split("\0")] == [[{"a": 1}, {"a": 2}], [{"n": 2}]]


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("SELECT 1 AS a;\n\nSELECT\n  nonsense;\nCREATE TABLE late (a INT);", UsageError, r"\(line 4\b"),
        ("SELECT 1 AS a; FROM\n\nabsent; CREATE TABLE late (a INT);", UsageError, r"\(line 3, column 1\)"),
        ("-- c\nSELECT 1 AS a;\nSELEC 2;\nCREATE TABLE late (a INT);", UsageError, r"\(line 3, column 1\)"),
        ("SELECT 1 AS a;\nSELECT error('boom');\nCREATE TABLE late (a INT);", HnasError, "boom"),
        ("SELECT 1 AS a;\n.nonsense\nCREATE TABLE late (a INT);", UsageError, r"\.help"),
    ],
)
def test_script_stops_at_its_first_error_and_names_the_line(connection, script, error, message):
    stdout = io.StringIO()
    with pytest.raises(error, match=message) as caught:
        run_shell(connection, format="csv", stdin=io.StringIO(script), stdout=stdout, stderr=io.StringIO())
    assert caught.type is error
    assert stdout.getvalue() == "a\n1\n"
    assert "late" not in list_columns(connection)


def test_an_endless_script_is_rejected(connection):
    class Endless(io.StringIO):
        def readline(self, size: int = -1) -> str:  # type: ignore[override]
            assert 0 < size <= 2**24
            return "\0" * size

    with pytest.raises(UsageError, match="line 1 of standard input has more than 16 million characters"):
        run_shell(connection, format="csv", stdin=Endless(), stdout=io.StringIO(), stderr=io.StringIO())


def test_quit_ends_a_script(connection):
    assert run_script(connection, "SELECT 1 AS a;\n.quit\nFROM absent;") == ("a\n1\n", "")


def test_shell_does_not_take_parquet(connection):
    with pytest.raises(UsageError, match="table, csv, json"):
        run_script(connection, "SELECT 1;", format="parquet")


# Where statements end


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT ';';",
        "SELECT 'it''s;';",
        r"SELECT e'\';';",
        'SELECT 1 AS "a;""b;";',
        "SELECT $$;'$$;",
        "SELECT $tag$;$$;$tag$;",
        "SELECT 1 -- it's; \n;",
        "SELECT /* ; ' */ 1;",
    ],
)
def test_only_a_bare_semicolon_ends_a_statement(connection, statement):
    assert split_statements(statement + " SELECT 2") == ([statement], " SELECT 2")
    assert len(connection.extract_statements(statement)) == 1


@pytest.mark.parametrize("text", ["SELECT 'a;", 'SELECT "a;', "SELECT $$a;", "SELECT /* a;", "SELECT 1"])
def test_unfinished_statements_wait(text):
    assert split_statements(text) == ([], text)
    assert not is_blank(text)


# Completion


def complete(connection, text: str, tab: bool = False) -> list[str]:
    event = CompleteEvent(completion_requested=tab)
    return [found.text for found in SqlCompleter(connection).get_completions(Document(text), event)]


def test_completion(connection):
    assert complete(connection, "SELECT tra")[0] == "trace"
    assert complete(connection, "FROM po")[0] == "pool"
    assert "select" in complete(connection, "sel")
    assert "SELECT" in complete(connection, "SEL")
    assert complete(connection, "SELECT pool.") == ["arch", "trace"]
    assert complete(connection, "SELECT p.tr") == ["trace"]
    assert complete(connection, "SELECT bat")[0] == '"Batch size"'
    assert complete(connection, ".ta") == [".tables"]
    assert complete(connection, "SELECT ") == []
    assert "pool" in complete(connection, "SELECT ", tab=True)


def test_completion_offers_objects_made_by_statements(connection):
    completer = SqlCompleter(connection)
    assert next(completer.get_completions(Document("lat"), CompleteEvent())).text == "lateral"
    connection.execute("CREATE TABLE later_on (a INT)")
    completer.forget()
    assert next(completer.get_completions(Document("lat"), CompleteEvent())).text == "later_on"


# A real terminal

SHELL = (
    "import sys, duckdb; from hnas.pipeline.console.shell import run_shell\n"
    'c = duckdb.connect(); c.execute("CREATE VIEW pool AS SELECT i, i / 4 AS mu FROM range(100) t(i)")\n'
    "run_shell(c, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)"
)


class Screen:
    """A process on a pseudo-terminal: type, and wait for its output."""

    def __init__(self, stdout: int | None = None) -> None:
        self.fd, inner = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL],
            stdin=inner, stdout=inner if stdout is None else stdout, stderr=inner, env=environment,
            cwd=ROOT, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait_for(self, *texts: str) -> None:
        """Wait until the texts have appeared, one after the other."""
        end = time.monotonic() + 20
        for text in texts:
            while text not in self.seen:
                assert time.monotonic() < end, f"{text!r} did not appear: {self.seen!r}"
                if select.select([self.fd], [], [], 0.1)[0]:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
            self.seen = self.seen.split(text, 1)[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.fixture
def screen():
    screen = Screen()
    yield screen
    screen.close()


def test_multi_line_query_interrupt_and_leaving_at_a_real_terminal(screen):
    screen.wait_for("hnas>")
    screen.type("SELECT count(*) AS n, max(mu) AS top\r")
    screen.wait_for("...>")
    screen.type("FROM pool;\r")
    screen.wait_for("100  24.75", "hnas>")
    screen.type("FROM pool;\r")
    screen.wait_for("… 60 more rows (100 in all)", "hnas>")
    screen.type(".format csv\rFROM pool;\r")
    screen.wait_for("39,9.75", "60 more rows (100 in all); .rows all shows them", "hnas>")
    screen.type(".format table\r")
    screen.wait_for("hnas>")
    screen.type("SELECT count(*) FROM range(200000000000) t(i) WHERE random() < 2;\r")
    time.sleep(1)
    screen.type("\x03")
    screen.wait_for("interrupted", "hnas>")
    screen.type("SELECT 6 * 7 AS answer;\r")
    screen.wait_for("42", "hnas>")
    screen.type("\x04")
    assert screen.process.wait(timeout=10) == 0


def test_prompt_stays_out_of_redirected_results(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        screen = Screen(stdout=out.fileno())
    try:
        screen.wait_for("hnas>")
        screen.type("SELECT 6 * 7 AS answer;\r.quit\r")
        assert screen.process.wait(timeout=10) == 0
    finally:
        screen.close()
    assert (tmp_path / "out").read_text() == "answer\n──────\n    42\n"
