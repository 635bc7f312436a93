"""The result of a query in every format, and the errors of failing queries."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.console.query import FORMATS, run_query, view_names
from tests.support.places import ROOT

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|"
HARD = (
    "SELECT * FROM (VALUES "
    "(1, 0.1::DOUBLE + 0.2::DOUBLE, [1.5, 'inf'::DOUBLE, NULL], {'k': 'a,b', 'x': 'nan'::DOUBLE}, 'plain'), "
    "(2, 'inf'::DOUBLE, [], NULL, 'com,ma'), "
    "(3, '-inf'::DOUBLE, NULL, {'k': 'Infinity \"NaN\"', 'x': -1e-300}, 'quo\"te'), "
    "(4, 'nan'::DOUBLE, ['-inf'::DOUBLE], NULL, e'new\\nline\\r'), "
    "(NULL, NULL, NULL, NULL, NULL), "
    "(6, 5e-324, [5e-324], NULL, '')) t(i, x, l, s, t)"
)


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    connection.execute(f"CREATE VIEW pool AS SELECT '{ARCH}' AS arch, i, i / 3 AS mu FROM range(15625) t(i)")
    connection.execute("CREATE VIEW runs AS SELECT 'abc' AS run")
    return connection


def run(connection: duckdb.DuckDBPyConnection, sql: str, format: str, max_rows: int | None = None) -> str:  # noqa: A002
    stdout = io.StringIO(newline="")
    run_query(connection, sql, format=format, stdout=stdout, max_rows=max_rows)
    return stdout.getvalue()


# CSV


def test_csv_reads_back_with_the_csv_module(connection):
    rows = list(csv.reader(io.StringIO(run(connection, HARD, "csv"), newline="")))
    assert rows[0] == ["i", "x", "l", "s", "t"]
    assert [row[1] for row in rows[1:]] == ["0.30000000000000004", "inf", "-inf", "nan", "", "5e-324"]
    assert [row[4] for row in rows[1:]] == ["plain", "com,ma", 'quo"te', "new\nline\r", "", ""]
    assert json.loads(rows[1][2]) == [1.5, "inf", None]
    assert json.loads(rows[3][3]) == {"k": 'Infinity "NaN"', "x": -1e-300}


def test_csv_reads_back_with_duckdb(connection, tmp_path):
    path = tmp_path / "hard.csv"
    run_query(connection, HARD, format="csv", output=path)
    again = connection.sql(f"SELECT i, x, t FROM read_csv('{path}', header = true)").fetchall()
    first = connection.sql(f"SELECT i, x, t FROM ({HARD})").fetchall()
    assert repr(again[:5]) == repr(first[:5])


def test_csv_keeps_every_bit_of_a_float(connection):
    sql = "SELECT (random() * pow(10, 40 * random() - 20))::DOUBLE AS x FROM range(5000)"
    connection.execute(f"CREATE TABLE numbers AS {sql}")
    texts = run(connection, "FROM numbers", "csv").split()[1:]
    assert [float(text) for text in texts] == [x for (x,) in connection.sql("FROM numbers").fetchall()]


@pytest.mark.parametrize("name", ["csv", "json", "table"])
def test_rows_come_in_the_order_of_the_query(connection, name):
    connection.execute("SET threads = 4")
    sql = "SELECT i FROM (SELECT (i * 7919) % 300007 AS i FROM range(300007) t(i)) ORDER BY i DESC"
    numbers = [int(text) for text in re.findall(r"\d+", run(connection, sql, name))]
    assert numbers == list(range(300006, -1, -1))


def test_csv_row_of_one_null_is_not_a_blank_line(connection):
    assert run(connection, "SELECT NULL AS x FROM range(2)", "csv") == 'x\n""\n""\n'


@pytest.mark.parametrize("name", ["csv", "json"])
def test_long_results_stream(name, tmp_path):
    """500,000 rows need hardly more memory than 30,000, measured in a separate process."""
    script = (
        "import sys, duckdb; from pathlib import Path; from hnas.pipeline.console.query import run_query\n"
        "from hnas.allocator import most_held\n"
        "c = duckdb.connect(); c.execute('SET threads = 1')\n"
        "q = \"SELECT i, repeat('x', 100) || i AS s, i / 7 AS x FROM range({}) t(i)\"\n"
        "o = Path(sys.argv[2])\n"
        "run_query(c, q.format(30_000), format=sys.argv[1], output=o); before = most_held()\n"
        "assert run_query(c, q.format(500_000), format=sys.argv[1], output=o) == 500_000\n"
        "print((most_held() - before) // 1024**2, o.stat().st_size // 1024**2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name, str(tmp_path / "out")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    grown, size = map(int, done.stdout.split())
    assert size > 60
    assert grown < 40


# JSON


def test_json_is_valid_and_complete(connection):
    rows = json.loads(run(connection, HARD, "json"), parse_constant=lambda name: pytest.fail(name))
    assert [row["x"] for row in rows] == [0.1 + 0.2, "inf", "-inf", "nan", None, 5e-324]
    assert [row["i"] for row in rows] == [1, 2, 3, 4, None, 6]
    assert [row["t"] for row in rows] == ["plain", "com,ma", 'quo"te', "new\nline\r", None, ""]
    assert [row["l"] for row in rows] == [[1.5, "inf", None], [], None, ["-inf"], None, [5e-324]]
    assert rows[2]["s"] == {"k": 'Infinity "NaN"', "x": -1e-300}


def test_json_types(connection):
    sql = (
        "SELECT 12345678901234567890.123456789::DECIMAL(30, 9) AS d, 170141183460469231731687303715884105727 AS h, "
        "TIMESTAMP '2024-01-02 03:04:05.5' AS t, TIMESTAMPTZ '2024-01-02 03:04:05+02' AS z, DATE '2024-01-02' AS day, "
        "true AS b, map {'a': 1} AS m, '{\"q\": [NaN, 1]}'::JSON AS j, 'infinity'::TIMESTAMP AS never, 0.1::FLOAT AS f"
    )
    [row] = json.loads(run(connection, sql, "json"), parse_float=Decimal)
    assert row == {
        "d": Decimal("12345678901234567890.123456789"),
        "h": 170141183460469231731687303715884105727,
        "t": "2024-01-02T03:04:05.5",
        "z": "2024-01-02T01:04:05+00:00",
        "day": "2024-01-02",
        "b": True,
        "m": {"a": 1},
        "j": {"q": ["nan", 1]},
        "never": "infinity",
        "f": Decimal("0.1"),
    }


def test_json_without_rows_is_an_empty_array(connection):
    assert json.loads(run(connection, "SELECT 1 AS a WHERE false", "json")) == []


def test_json_distinguishes_columns_with_the_same_name(connection):
    assert json.loads(run(connection, "SELECT 1 AS a, 2 AS a, 3 AS a", "json")) == [{"a": 1, "a_1": 2, "a_2": 3}]


# Parquet


def test_parquet_reads_back(connection, tmp_path):
    path = tmp_path / "hard.parquet"
    assert run_query(connection, HARD, format="parquet", output=path) == 6
    table = pq.read_table(path)
    assert table.column_names == ["i", "x", "l", "s", "t"]
    x = table["x"].to_pylist()
    assert x[:3] == [0.1 + 0.2, math.inf, -math.inf]
    assert math.isnan(x[3])
    assert x[4:] == [None, 5e-324]
    assert table["s"].to_pylist()[2] == {"k": 'Infinity "NaN"', "x": -1e-300}
    assert connection.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(6,)]


def test_parquet_without_rows_keeps_the_columns(connection, tmp_path):
    path = tmp_path / "empty.parquet"
    assert run_query(connection, "SELECT 1 AS a, 'x' AS a WHERE false", format="parquet", output=path) == 0
    assert pq.read_table(path).column_names == ["a", "a_1"]


def test_parquet_goes_to_a_pipe(connection):
    stdout = io.TextIOWrapper(io.BytesIO())
    run_query(connection, "FROM pool", format="parquet", stdout=stdout)
    assert pq.read_table(io.BytesIO(stdout.buffer.getvalue())).num_rows == 15625  # type: ignore[attr-defined]


def test_parquet_does_not_go_to_a_terminal(connection):
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    with pytest.raises(UsageError, match="--output"):
        run_query(connection, "FROM pool", format="parquet", stdout=Terminal(io.BytesIO()))


@pytest.mark.parametrize("value", ["INTERVAL 1 DAY", "[INTERVAL 1 DAY]", "'101'::BIT"])
def test_parquet_rejects_types_it_cannot_hold(connection, tmp_path, value):
    with pytest.raises(UsageError, match="Parquet"):
        run_query(connection, f"SELECT {value} AS x", format="parquet", output=tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


# Tables


def test_a_piped_table_is_not_cut(connection):
    lines = run(connection, "FROM pool", "table").splitlines()
    assert len(lines) == 2 + 15625
    assert all(line.startswith(ARCH) for line in lines[2:])
    assert "\x1b" not in "".join(lines)


def test_table_is_aligned(connection):
    assert run(
        connection, "SELECT * FROM (VALUES (1, 2/3, 'a', NULL), (200, 1e20, 'bcd', 'x')) t(i, x, s, n)", "table"
    ) == ("  i         x  s    n\n───  ────────  ───  ────\n  1  0.666667  a    NULL\n200     1e+20  bcd  x\n")


def test_a_long_table_says_what_it_omits(connection):
    lines = run(connection, "FROM pool", "table", max_rows=40).splitlines()
    assert len(lines) == 2 + 40 + 1
    assert lines[-1] == "… 15,585 more rows (15,625 in all)"
    assert run(connection, "FROM range(3)", "table", max_rows=2).endswith("… 1 more row (3 in all)\n")


def test_table_shows_non_finite_numbers_and_no_control_characters(connection):
    text = run(
        connection, "SELECT 'inf'::DOUBLE AS a, '-inf'::FLOAT AS b, 'nan'::DOUBLE AS c, chr(27) || '[1m' AS d", "table"
    )
    assert text.splitlines()[2].split() == ["inf", "-inf", "nan", r"\x1b[1m"]


def test_table_draws_a_query_plan(connection):
    assert "╰──" in run(connection, "EXPLAIN SELECT * FROM range(3)", "table")


def test_terminal_gets_forty_rows_colours_and_narrow_texts(connection):
    reader, writer = pty.openpty()
    os.set_blocking(reader, False)
    env, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "60"
    os.environ["TERM"] = "xterm-256color"
    try:
        with os.fdopen(writer, "w") as terminal:
            sql = "SELECT arch, mu, NULL AS n FROM pool"
            output = b""

            def drain() -> None:
                nonlocal output
                while b"in all" not in output:
                    with open(os.dup(reader), "rb", buffering=0) as source:  # noqa: PTH123
                        output += source.read(65536) or b""

            thread = threading.Thread(target=drain)
            thread.start()
            assert run_query(connection, sql, stdout=terminal) == 15625
            thread.join(timeout=30)
    finally:
        os.close(reader)
        os.environ.pop("COLUMNS") if env is None else os.environ.update(COLUMNS=env)
    lines = output.decode().splitlines()
    assert len(lines) == 2 + 40 + 1
    assert "15,585 more rows" in lines[-1]
    assert "\x1b[2mNULL" in lines[2]
    assert "…" in lines[2]
    assert len(lines[1]) <= 60


# Statements


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
def test_statements_without_a_result_print_nothing(connection, name):
    sql = "CREATE TABLE t (a INT); SET threads = 1; INSERT INTO t VALUES (1); BEGIN; COMMIT; CHECKPOINT"
    assert run(connection, sql, name) == ""
    assert connection.sql("FROM t").fetchall() == [(1,)]


def test_every_statement_runs_and_the_last_result_is_written(connection):
    sql = "CREATE SEQUENCE q; SELECT nextval('q') FROM range(3); SELECT nextval('q') AS x; CREATE TABLE after (a INT)"
    assert run(connection, sql, "csv") == "x\n4\n"
    assert "after" in view_names(connection)


def test_table_format_shows_each_result(connection):
    assert run(connection, "SELECT 1 AS a; SELECT 2 AS b", "table") == "a\n─\n1\n\nb\n─\n2\n"


def test_statements_that_return_rows_show_them(connection):
    connection.execute("CREATE TABLE t (a INT)")
    assert run(connection, "INSERT INTO t VALUES (7) RETURNING a", "csv") == "a\n7\n"
    assert run(connection, "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)", "csv") == "1\n2\n"
    assert run(connection, "DESCRIBE runs", "csv").splitlines()[1].startswith("run,VARCHAR")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ';é' AS a; -- note; more",
        "SELECT 0 AS a; -- note\nSELECT ';é' AS a -- end",
        "SELECT 0 AS a; /* c */ SELECT /* ; /* é ; */ */ ';é' AS a;; /* d */ ; -- e",
        "-- first; é\nSELECT $$;é$$ AS a; --",
    ],
)
def test_comments_stand_anywhere(connection, name, sql):
    plain = "SELECT 0 AS a; SELECT ';é' AS a" if "SELECT 0" in sql else "SELECT ';é' AS a"
    assert run(connection, sql, name) == run(connection, plain, name)


# Errors


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC" (line 1, column 1)'),
        ("SELECT 1;\n\nSELECT muu\nFROM pool", '"muu" not found in FROM clause (line 3, column 8); did you mean "mu"?'),
        ("FROM poo", "Table with name poo does not exist (line 1, column 6); the views are pool, runs"),
        ("SELECT abss(1)", "Scalar Function with name abss does not exist (line 1, column 8); did you mean"),
        ("SELECT " + "1234567890, " * 40 + "foo", "(line 1)"),
        ("SELECT 'é', foo FROM pool", "(line 1)"),
        ("FROM connection", "Table with name connection does not exist"),
        (" -- nothing\n;", "the query is empty"),
        ("SELECT $x", "unbound parameters ($x)"),
        ("SELECT $x, ?", "positional parameters"),
        ("SELECT 1 + DATE '2024-01-01' + '1'::JSON", "type casts (line 1"),
    ],
)  # fmt: skip
def test_wrong_sql_gives_one_sentence_with_its_position(connection, sql, message):
    with pytest.raises(UsageError) as caught:
        run(connection, sql, "table")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sql", ["SELECT error('boom')", "SELECT 'a'::INT", "FROM 'absent.parquet'"])
def test_failed_execution_is_not_a_usage_error(connection, sql):
    with pytest.raises(HnasError) as caught:
        run(connection, sql, "table")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_unknown_format(connection):
    with pytest.raises(UsageError, match="table, csv, json, parquet"):
        run(connection, "SELECT 1", "xml")


# Destinations


@pytest.mark.parametrize("name", FORMATS)
def test_failed_query_leaves_the_old_file(connection, tmp_path, name):
    path = tmp_path / "out"
    path.write_text("old")
    sql = "SELECT CASE WHEN i = 400000 THEN error('boom') ELSE i::VARCHAR END AS x FROM range(500000) t(i)"
    with pytest.raises(HnasError, match="boom"):
        run_query(connection, sql, format=name, output=path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_output_replaces_the_file_and_keeps_its_mode_and_link(connection, tmp_path):
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    run_query(connection, "SELECT 1 AS a", format="csv", output=link)
    assert path.read_text() == "a\n1\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()


def test_output_to_a_device_leaves_it_a_device(connection):
    run_query(connection, "SELECT 1", format="csv", output=Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(HnasError, match="No space left"):
        run_query(connection, "SELECT 1", format="csv", output=Path("/dev/full"))


def test_output_to_an_open_file_adds_to_it(connection, tmp_path, capfd):
    path = tmp_path / "log"
    path.write_text("old\n")
    with path.open("a") as log:
        for name in (f"/dev/fd/{log.fileno()}", f"/proc/self/fd/{log.fileno()}"):
            run_query(connection, "SELECT 1 AS a", format="csv", output=Path(name))
    assert path.read_text() == "old\na\n1\na\n1\n"
    print("before")
    run_query(connection, "SELECT 1 AS a", format="csv", output=Path("/dev/stdout"))
    print("after")
    assert capfd.readouterr().out == "before\na\n1\nafter\n"
    with pytest.raises(HnasError, match="cannot write /dev/fd/999: Bad file descriptor"):
        run_query(connection, "SELECT 1 AS a", format="csv", output=Path("/dev/fd/999"))


def test_output_needs_its_folder_a_file_name_and_a_result(connection, tmp_path):
    with pytest.raises(UsageError, match="absent of --output does not exist"):
        run_query(connection, "SELECT 1", output=tmp_path / "absent" / "out")
    with pytest.raises(UsageError, match="is a folder"):
        run_query(connection, "SELECT 1", output=tmp_path)
    with pytest.raises(UsageError, match="no statement"):
        run_query(connection, "SET threads = 1", output=tmp_path / "out")


SCRIPT = (
    "import sys, duckdb; from hnas.pipeline.console.query import run_query\n"
    "run_query(duckdb.connect(), sys.argv[2], format=sys.argv[1])"
)


def start(name: str, sql: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name, sql],
        stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_closed_pipe_ends_quietly(name):
    with start(
        name, "SELECT i, random() AS x FROM range(2000000) t(i)" + " LIMIT 20000" * (name == "table")
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_full_disk_gives_one_sentence():
    with open("/dev/full", "wb") as full, start("csv", "FROM range(10)", full.fileno()) as process:  # noqa: PTH123
        assert process.stderr
        message = process.stderr.read().decode()
    assert message.strip().endswith("cannot write to standard output: No space left on device")
    assert "Exception ignored" not in message


def test_ctrl_c_interrupts_a_running_query():
    with start("csv", "SELECT count(*) FROM range(200000000000) t(i) WHERE random() < 2") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.send_signal(2)
        assert process.wait(timeout=10) != 0
        assert process.stderr
        assert b"KeyboardInterrupt" in process.stderr.read()
