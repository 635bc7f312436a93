"""The standard streams of a command, and its arguments, where they are closed, full, or not UTF-8."""

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
    """Standard output. A failed write raises `HnasError`, to tell it from failures of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HnasError(f"cannot write to standard output: {error.strerror or error}") from error


class _Remarks(io.FileIO):
    """Standard error. A message that cannot be written, as on a full disk, is lost and the work continues."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)


def open_streams() -> None:
    """Make the standard streams usable, whatever state the shell left them in.

    A closed stream is replaced by /dev/null, so that no file opened later gets its number. Then reading ends at once,
    writing results fails as on a full disk, and messages are lost. Characters that the encoding lacks are escaped.
    Streams that a caller has substituted stay as they are.
    """
    if sys.stdin is None:
        sys.stdin = open(_null(0, os.O_RDONLY), closefd=False)  # noqa: SIM115 (stays open for the process's lifetime)
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
    """Return a descriptor of /dev/null: `number`, unless another file already has it."""
    opened = os.open(os.devnull, flags)
    with contextlib.suppress(OSError):
        os.fstat(number)
        return opened
    os.dup2(opened, number)
    os.close(opened)
    return number


@contextlib.contextmanager
def results() -> Iterator[None]:
    """Write all output of a command. Raises `HnasError` if standard output cannot be written.

    `BrokenPipeError` passes through: the reader has closed the pipe. Afterwards nothing is left for Python to write at
    exit.
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
    """Drop what `stream` still buffers, which Python would otherwise try to write at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def check_names(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an argument, or an HNAS_* variable, that is not text.

    Such a file name can be neither stored nor passed to DuckDB.
    """
    named = {f"the argument {_shown(argument)}": argument for argument in arguments}
    named |= {f"${name} ({_shown(value)})": value for name, value in os.environ.items() if name.startswith("HNAS_")}
    for what, text in named.items():
        if not is_text(text):
            encoding = sys.getfilesystemencoding()
            advice = "rename the file" if encoding == "utf-8" else "set PYTHONUTF8=1, or rename the file"
            raise UsageError(f"{what} is not {encoding.upper()} text; {advice}")


def _shown(name: str) -> str:
    return printable(os.fsencode(name).decode(errors="backslashreplace")) if not is_text(name) else name


def warn(text: str) -> None:
    """Print a message for people to standard error."""
    print(printable(text, lines=True), file=sys.stderr, flush=True)
