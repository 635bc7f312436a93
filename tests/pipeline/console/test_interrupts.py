"""Interrupts by terminals and batch systems at any time: one sentence, status 1, no processes left behind."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hnas.pipeline.store.trainings import FOLDER
from tests.support.command_line import CONVOLUTION
from tests.support.processes import HNAS, WAIT, group_is_gone, precompute_command, run_command, running, wait_until
from tests.support.runs import fill

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def mapped(process: subprocess.Popen[str], library: str) -> bool:
    """Whether a process has loaded a library."""
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except ProcessLookupError:
        return False


def catches(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process handles a signal itself."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"^SigCgt:\s*([0-9a-f]+)", text, re.MULTILINE)
    return bool(match and int(match[1], 16) >> (number - 1) & 1)


def worker_processes(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that are or will become Dask workers."""
    found = []
    for child in psutil.Process(process.pid).children():
        try:
            if "multiprocessing.spawn" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def interrupt(process: subprocess.Popen[str], send: Callable[[], None]) -> str:
    """Interrupt a process by `send` and return its last line on standard error; checks that no child is left."""
    send()
    stdout, stderr = process.communicate(timeout=WAIT)
    wait_until(lambda: group_is_gone(process.pid))
    assert process.returncode == 1, (process.returncode, stderr)
    assert "Traceback" not in stderr
    assert "computed now" not in stdout
    *log, sentence = stderr.splitlines()
    assert not any(line.startswith("hnas:") for line in log), stderr
    return sentence


# --- precompute


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("whom", ["the driver", "all"])
def test_an_interrupt_while_workers_start_ends_the_command_at_once(tmp_path, number, whom):
    command = precompute_command(tmp_path / "store", "--sample=90", "--workers=2", "--quiet")
    with running(*command, env={"TMPDIR": str(tmp_path)}) as process:
        wait_until(lambda: len(worker_processes(process)) > 0, process)
        kill = os.kill if whom == "the driver" else os.killpg
        sentence = interrupt(process, lambda: kill(process.pid, number))
    assert re.fullmatch(
        r"hnas: interrupted: 0 of \d\d rows are stored in run [0-9a-f]{10}; run the same command again to resume",
        sentence,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_to_all_processes_keep_finished_work(tmp_path, number):
    parts = (tmp_path / "store" / "runs").glob
    command = precompute_command(tmp_path / "store", "--sample=90", "--workers=1", "--chunk-size=1", "--quiet")
    with running(*command) as process:
        wait_until(lambda: len(list(parts("*/metrics/*.parquet"))) > 2, process)
        sentence = interrupt(process, lambda: os.killpg(process.pid, number))
    assert re.match(r"hnas: interrupted: \d+ of \d\d rows are stored in run", sentence)


def test_workers_and_replacements_do_not_receive_ctrl_c(tmp_path):
    command = precompute_command(tmp_path / "store", "--sample=90", "--workers=1", "--chunk-size=1", "--quiet")

    def blocked(child: psutil.Process) -> bool:
        match = re.search(r"^SigBlk:\s*([0-9a-f]+)", Path(f"/proc/{child.pid}/status").read_text(), re.MULTILINE)
        return bool(match and int(match[1], 16) >> (signal.SIGINT - 1) & 1)

    with running(*command) as process:
        wait_until(lambda: len(worker_processes(process)) == 1, process)
        (first,) = worker_processes(process)
        assert blocked(first)
        wait_until(lambda: bool(list((tmp_path / "store" / "runs").glob("*/metrics/*.parquet"))), process)
        first.kill()
        wait_until(lambda: any(child.pid != first.pid for child in worker_processes(process)), process)
        (second,) = worker_processes(process)
        assert blocked(second)
        sentence = interrupt(process, lambda: os.killpg(process.pid, signal.SIGINT))
    assert sentence.startswith("hnas: interrupted: ")


# --- before a command begins


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_during_the_import_of_the_command_line(tmp_path, number):
    with running(str(HNAS), "info", f"--store={tmp_path}") as process:
        wait_until(lambda: catches(process, signal.SIGTERM), process)
        assert interrupt(process, lambda: os.kill(process.pid, number)) == "hnas: interrupted"


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_during_the_import_of_a_library(tmp_path, number):
    with running(*precompute_command(tmp_path / "store", "--sample=2")) as process:
        wait_until(lambda: mapped(process, "libtorch"), process)
        assert interrupt(process, lambda: os.kill(process.pid, number)) == "hnas: interrupted"
    assert not (tmp_path / "store").exists()


def test_ignored_signals_stay_ignored(tmp_path):
    ignored = "for number in (1, 2): signal.signal(number, signal.SIG_IGN)"
    program = f"import os, signal, sys\n{ignored}\nos.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", program, str(HNAS), "info", f"--store={tmp_path}"]
    with running(*command) as process:
        wait_until(lambda: catches(process, signal.SIGTERM), process)
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGHUP)
        stdout, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (0, "")
    assert stdout.startswith(f"store {tmp_path}")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "where",
    [
        "gc.callbacks.append(lambda phase, _: send() if phase == 'stop' else None)\ngc.collect()",
        "thing.__del__ = lambda self: send()\nthing()",
        "it = thing()\nkept = weakref.ref(it, lambda _: send())\ndel it",
    ],
    ids=["garbage collection", "destructor", "weak reference"],
)
def test_an_interrupt_where_python_drops_exceptions_is_not_lost(number, where):
    program = f"""
import gc, os, time, weakref
from hnas.pipeline.console import exit
exit.raise_interrupts()
sent = []
def send():
    if not sent:
        sent.append(True)
        os.kill(os.getpid(), {int(number)})
class thing: pass
{where}
try:
    assert sent
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run_command(sys.executable, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


# --- other commands


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_plan) -> Path:
    """A store with a run of 20 architectures."""
    from hnas.pipeline.store.store import Store

    folder = tmp_path_factory.mktemp("filled") / "store"
    place = Store(str(folder))
    fill(place, small_plan(place, sample=20))
    return folder


@pytest.fixture
def slow_server() -> Iterator[str]:
    """The URL of a download that never ends."""
    asked, finish = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            self.wfile.write(bytes(100_000))
            asked.set()
            finish.wait(WAIT)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = asked  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server  # type: ignore[misc]
    finish.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_query(store, number):
    endless = "SELECT count(*) FROM range(100000000000) a, range(10000000) b"
    with running(str(HNAS), "sql", endless, f"--store={store}") as process:
        wait_until(lambda: psutil.Process(process.pid).num_threads() > 1 and mapped(process, "_duckdb"), process)
        wait_until(lambda: psutil.Process(process.pid).cpu_times().user > 1.2, process)
        assert interrupt(process, lambda: os.kill(process.pid, number)) == "hnas: interrupted"


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_training(tmp_path, number):
    size = ("--dataset=digits", "--epochs=100000", "--channels=4", "--cells=1")
    with running(str(HNAS), "evaluate", CONVOLUTION, *size, "--quiet", f"--store={tmp_path}") as process:
        wait_until(lambda: any(tmp_path.glob(f"{FOLDER}/*/*.checkpoint")), process)
        assert interrupt(process, lambda: os.kill(process.pid, number)) == "hnas: interrupted"


def test_an_interrupted_search_without_saved_queries(store):
    command = (str(HNAS), "search", "nasbench201", "--oracle=train", "--dataset=digits", "--epochs=100000", "--quiet")
    with running(*command, f"--store={store}") as process:
        wait_until(lambda: any(store.glob(f"{FOLDER}/*/*.checkpoint")), process)
        assert interrupt(process, lambda: os.kill(process.pid, signal.SIGINT)) == "hnas: interrupted"
    assert not (store / "searches").exists()


def test_an_interrupted_download_says_that_it_resumes(tmp_path, slow_server):
    url = f"http://127.0.0.1:{slow_server.server_port}/cifar-10-python.tar.gz"
    with running(str(HNAS), "fetch", "cifar10", f"--to={tmp_path}", f"--from={url}") as process:
        wait_until(slow_server.asked.is_set, process)
        assert interrupt(process, lambda: os.kill(process.pid, signal.SIGINT)).startswith("hnas: interrupted")


# --- the end


def test_a_full_standard_output_gives_one_sentence_and_status_1(store):
    done = subprocess.run(
        ["bash", "-c", f"{HNAS} info --store {store} > /dev/full"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "hnas: cannot write to standard output: No space left on device\n",
    )


def test_all_output_is_written_and_the_status_is_kept(store):
    done = run_command(str(HNAS), "sql", "SELECT repeat('x', 1000000) AS x", "--format=csv", f"--store={store}")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1_000_003, "")
    assert run_command(str(HNAS), "sql", "SELECT", f"--store={store}").returncode == 2
    assert run_command(str(HNAS), "nonsense").returncode == 2
    assert run_command(str(HNAS), "--version").returncode == 0
