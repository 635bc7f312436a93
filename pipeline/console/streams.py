"""The standard streams of a command, and the names that reach it from outside: closed, full, or not UTF-8."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from hnas.errors import HnasError, UsageError
from hnas.pipeline.io.printable import is_text, printable


class _Results(io.FileIO):
    """Standard output. Its refusals to take more are sentences, told from those of other files by their type."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HnasError(f"cannot write to standard output: {error.strerror or error}") from error


class _Remarks(io.FileIO):
    """Standard error. A remark that a full disk refuses is lost, and the work goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)


def open_streams() -> None:
    """Make the standard streams usable in whatever state the shell left them.

    A closed stream gets /dev/null in its place, so that no file opened later takes its number: reading ends at once,
    results are refused as on a full disk, remarks are lost. Text that an encoding lacks is escaped. Streams that a
    caller has put in place of the process's own stay as they are.
    """
    if sys.stdin is None:
        sys.stdin = open(_null(0, os.O_RDONLY), closefd=False)  # noqa: SIM115 (open as long as the process lives)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(_number(sys.stdout, 1, os.O_RDONLY), "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Remarks(_number(sys.stderr, 2, os.O_WRONLY), "w", closefd=False), sys.stderr, lines=True)


def _number(stream: TextIO | None, number: int, flags: int) -> int:
    return _null(number, flags) if stream is None else stream.fileno()


def _text(raw: io.FileIO, stream: TextIO | None, *, lines: bool = False) -> io.TextIOWrapper:
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=lines or raw.isatty()
    )


def _null(number: int, flags: int) -> int:
    """A descriptor of /dev/null: `number`, unless another file has that already."""
    opened = os.open(os.devnull, flags)
    with contextlib.suppress(OSError):
        os.fstat(number)
        return opened
    os.dup2(opened, number)
    os.close(opened)
    return number


@contextlib.contextmanager
def results() -> Iterator[None]:
    """Write what a command prints to its end. Raises `HnasError` where standard output refuses it.

    `BrokenPipeError` passes: the reader has seen enough. Afterwards nothing is left that Python would write at exit.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BaseException:
        try:
            sys.stdout.flush()
        except (OSError, HnasError):
            discard(sys.stdout)
        raise


def discard(stream: TextIO) -> None:
    """Send what `stream` still buffers nowhere: Python would try to write it at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def check_names(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an argument, or a variable HNAS_*, that is not text.

    Such a name of a file can neither be stored nor handed to DuckDB.
    """
    named = {f"the argument {_shown(argument)}": argument for argument in arguments}
    named |= {f"${name} ({_shown(value)})": value for name, value in os.environ.items() if name.startswith("HNAS_")}
    for what, text in named.items():
        if not is_text(text):
            encoding = sys.getfilesystemencoding()
            advice = "rename what it names" if encoding == "utf-8" else "set PYTHONUTF8=1, or rename what it names"
            raise UsageError(f"{what} is not {encoding.upper()} text; {advice}")


def _shown(name: str) -> str:
    return printable(os.fsencode(name).decode(errors="backslashreplace")) if not is_text(name) else name


def warn(text: str) -> None:
    """A remark for people, on standard error."""
    print(printable(text, lines=True), file=sys.stderr, flush=True)
