"""Commands as oracles: one process per evaluation, whose last line on standard output is the performance.

    command: python train.py --arch {arch} --epochs {epochs}

The text is split into arguments as a shell would split it. Then the placeholders `{arch}`, `{epochs}`, `{seed}` and
`{dataset}` are filled in argument by argument, so no shell interprets the `|` and `(` of an architecture. `{{word}}`
stands for the text `{word}`.
"""

from __future__ import annotations

import math
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hnas.errors import UsageError, unknown
from hnas.optim.algorithm import Evaluation, EvaluationError
from hnas.pipeline.io.printable import printable

PREFIX = "command:"
PLACEHOLDERS = ("arch", "epochs", "seed", "dataset")
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")
# Programs that execute the argument after such an option.
_INTERPRETER = re.compile(r"(ba|da|z|k|fi)?sh|python[\d.]*|perl|ruby|node")
_PROGRAM_FOLLOWS = re.compile(r"-\w*[ce]")

#: Bytes of a command's output that are kept.
KEPT = 2000
# Starts a command, and kills it if this process is killed.
_WATCHED = str(Path(__file__).with_name("watched.py"))
# Seconds that a command has to end after SIGTERM.
_GRACE = 2.0
# Bytes to read from an output after the command has ended; a pipe holds no more of the command's own output.
_LEFT = 2**20


@dataclass(frozen=True)
class CommandOracle:
    """Runs `words` for each evaluation for at most `timeout` seconds; `values` fill the placeholders except `arch`."""

    words: tuple[str, ...]
    values: Mapping[str, str]
    timeout: float | None = None

    @property
    def takes_epochs(self) -> bool:
        """Whether an evaluation can be for a given number of epochs."""
        return "epochs" in placeholders(self.words)

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """Return the performance that the command prints for `arch`, and the seconds that it ran.

        Raises `EvaluationError` if it cannot be started, fails, takes too long, or does not end with a number.
        """
        values = {**self.values, "arch": arch} | ({} if epochs is None else {"epochs": str(epochs)})
        words = [_PLACEHOLDER.sub(lambda match: _filled(match, values), word) for word in self.words]
        begun = time.monotonic()
        try:
            status, last, output = _run(words, self.timeout)
        except (OSError, ValueError) as error:  # arguments that are too long or contain a NUL
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise EvaluationError(f"the command cannot be started: {reason}", time.monotonic() - begun) from error
        seconds = time.monotonic() - begun
        try:
            performance = _performance(status, last, output, self.timeout)
        except ValueError as error:
            raise EvaluationError(str(error), seconds, output, status) from None
        return Evaluation(performance, seconds, output, status)


def parse_command(text: str) -> tuple[str, ...]:
    """Return the arguments of a text that begins with `command:`, with placeholders not filled in yet.

    Raises `UsageError` for an invalid command, a program that is not found, a missing `{arch}`, or other placeholders.
    """
    try:
        words = tuple(shlex.split(text.removeprefix(PREFIX)))
    except ValueError as error:
        raise UsageError(f"--oracle {printable(text)!r:.300} is not a command: {str(error).lower()}") from error
    names = placeholders(words)
    for name in names:
        if name not in PLACEHOLDERS:
            refusal = unknown("the placeholder", name, PLACEHOLDERS)
            raise UsageError(f"{refusal}; write {{{{{name}}}}} for the text {{{name}}}")
    if "arch" not in names:
        raise UsageError(
            "the command of --oracle does not say where the architecture goes; write {arch} there, such as 'command: "
            "python train.py {arch}'"
        )
    for i in range(len(words) - 2):
        program = _INTERPRETER.fullmatch(Path(words[i]).name) and _PROGRAM_FOLLOWS.fullmatch(words[i + 1])
        if program and placeholders(words[i + 2 : i + 3]):
            raise UsageError(
                f"{words[i]} {words[i + 1]} would execute the architecture's name; pass it as an argument, such as "
                '\'command: sh -c "python train.py \\"\\$1\\"" sh {arch}\''
            )
    if shutil.which(words[0]) is None:
        raise UsageError(f"the program {printable(words[0])!r:.200} of --oracle was not found or is not executable")
    return words


def placeholders(words: tuple[str, ...]) -> set[str]:
    """Return the names in braces."""
    return {match[2] for word in words for match in _PLACEHOLDER.finditer(word) if match[2]}


def _filled(match: re.Match[str], values: Mapping[str, str]) -> str:
    return f"{{{match[1]}}}" if match[1] else values[match[2]]


def _performance(status: int | None, last: str, output: str, timeout: float | None) -> float:
    """Return the number in a command's last line. Raises `ValueError` with a sentence if there is none."""
    if status is None:
        raise ValueError(f"the command took longer than the {timeout:g} s of --oracle-timeout and was stopped")
    last_line = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    if status:
        how = f"was killed by {_signal(-status)}" if status < 0 else f"ended with exit status {status}"
        raise ValueError(f"the command {how}{f': {last_line.strip():.200}' if last_line else ''}")
    if not last:
        raise ValueError("the command printed nothing; its last line must be the performance, a number")
    try:
        number = float(last)
    except ValueError:
        raise ValueError(f"the command's last line is {last!r:.200}; it must be the performance, a number") from None
    if not math.isfinite(number):
        raise ValueError(f"the command's last line is {last}; it must be a finite number")
    return number


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _run(words: list[str], timeout: float | None) -> tuple[int | None, str, str]:
    """Run a command; return its exit status (None on timeout), its last line, and the end of all its output.

    All processes left in its process group are killed.
    """
    begun = time.monotonic()
    stdout, both = bytearray(), bytearray()
    # A new process group, so that it can be stopped as a whole; watched, so that it ends with this process.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _WATCHED, *words], bufsize=0, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    status: int | None = None
    try:
        with selectors.DefaultSelector() as pipes:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                pipes.register(pipe, selectors.EVENT_READ, (stdout, both) if pipe is process.stdout else (both,))
            while status is None and (timeout is None or time.monotonic() - begun < timeout):
                left = math.inf if timeout is None else max(0.0, begun + timeout - time.monotonic())
                if pipes.get_map():
                    # With a timeout, because a process left behind by the command may hold its pipes open.
                    for key, _ in pipes.select(min(0.1, left)):
                        if not _read(key.fd, key.data):
                            pipes.unregister(key.fileobj)
                    status = process.poll()
                else:
                    with suppress(subprocess.TimeoutExpired):
                        status = process.wait(None if timeout is None else left)
            for key in list(pipes.get_map().values()):
                unread = _LEFT
                while unread > 0 and (count := _read(key.fd, key.data)):
                    unread -= count
    finally:
        _stop(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    lines = stdout.decode(errors="replace").splitlines()
    return status, next((line.strip() for line in reversed(lines) if line.strip()), ""), both.decode(errors="replace")


def _read(pipe: int, ends: tuple[bytearray, ...]) -> int:
    """Append a pipe's content to `ends`, which keep their last bytes; return its length, 0 at the pipe's end."""
    try:
        content = os.read(pipe, 2**16)
    except BlockingIOError:
        return 0
    for end in ends:
        end += content
        del end[:-KEPT]
    return len(content)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a command if it is running, and all that is left of its process group."""
    try:
        if process.poll() is None:
            _send(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
    finally:
        _send(process, signal.SIGKILL)
        process.wait()


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
