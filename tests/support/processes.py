"""Commands in separate processes, run to their end or stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.runs import SIZE

#: Seconds.
WAIT = 240
HNAS = Path(sys.executable).with_name("hnas")


@contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command in its own process group, which is killed at the end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def precompute_command(store: Path | str, *options: str) -> list[str]:
    """The command line of `hnas precompute` on digits with networks of `SIZE`."""
    size = [f"--{name.replace('_', '-')}={value}" for name, value in SIZE.items()]
    return [str(HNAS), "precompute", "nasbench201", "--dataset=digits", *size, f"--store={store}", *options]


def run_command(*command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
