"""The destination of a query's result: standard output, or a file whose suffix determines the format."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, TextIO

from hnas.errors import HnasError, UsageError
from hnas.pipeline.console.streams import discard

Format = Literal["table", "csv", "json", "parquet"]

#: The format for each file suffix.
SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".json": "json", ".txt": "table"}
# Suffixes of formats that hnas does not write.
_OTHER_SUFFIXES = (
    *(".gz", ".zst", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z"),
    *(".tsv", ".tab", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".orc", ".avro"),
    *(".html", ".md", ".tex", ".yaml", ".yml", ".xml", ".db", ".duckdb", ".sqlite", ".npz", ".npy", ".pkl", ".h5"),
)


def output_format(output: Path | None, format: Format | None) -> Format:  # noqa: A002
    """Return the format of a result written to `output`: `format` if given, or the one of the file's suffix.

    Raises `UsageError` if the suffix contradicts `format`, or neither determines a format.
    """
    if output is None:
        return format or "table"
    suffix = output.suffix.lower()
    suffix_format = SUFFIXES.get(suffix)
    chosen = format or suffix_format
    advice = f"end it with {', '.join(SUFFIXES)} (a table)"
    if suffix in _OTHER_SUFFIXES:
        raise UsageError(f"--output {output} ends in {suffix}, which hnas does not write; {advice}")
    if chosen is None:
        raise UsageError(f"--output {output} has no suffix that determines the format; {advice}, or give --format")
    if format is not None and suffix_format not in (None, format):
        raise UsageError(f"--output {output} ends in {suffix}, but --format is {format}; drop one of the two")
    return chosen


@contextlib.contextmanager
def open_sink(output: Path | None, stdout: TextIO, format: Format) -> Iterator[Any]:  # noqa: A002
    """Yield the open file that a result is written to: bytes for Parquet, text otherwise."""
    binary, drawn = format == "parquet", format == "table"
    if output is not None:
        with _file(output, binary) as file:
            yield file
        return
    if binary and (stdout.isatty() or not hasattr(stdout, "buffer")):
        raise UsageError("Parquet is binary; name a file with --output, or redirect standard output to one")
    try:
        stdout.flush()
        with contextlib.nullcontext() if binary or drawn else _exact(stdout):
            yield stdout.buffer if binary else stdout
            stdout.flush()
    except BrokenPipeError:
        # The reader, such as `| head`, has closed the pipe.
        discard(stdout)
    except OSError as error:
        discard(stdout)
        raise HnasError(f"cannot write to standard output: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise HnasError(
            f"standard output is {error.encoding} and cannot hold {error.object[error.start]!r}; "
            "set PYTHONIOENCODING=utf-8 or use --output"
        ) from error


@contextlib.contextmanager
def _exact(stdout: TextIO) -> Iterator[None]:
    """Reject characters that the encoding lacks: an escape would change the data."""
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    before = stdout.errors
    stdout.reconfigure(errors="strict")
    try:
        yield
    finally:
        stdout.reconfigure(errors=before)


@contextlib.contextmanager
def _file(output: Path, binary: bool) -> Iterator[Any]:
    """Open `output` for atomic writing by a rename; pipes, devices (/dev/null) and open files are written directly."""
    if (number := _descriptor(output)) is not None:
        try:
            sys.stdout.flush()
            with _opened(os.dup(number), binary) as file:
                yield file
        except OSError as error:
            raise HnasError(f"cannot write {output}: {error.strerror or error}") from error
        return
    target = output.resolve()
    if target.is_dir():
        raise UsageError(f"{output} is a folder; --output must name a file")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {output.parent} of --output does not exist; create it first")
    device = target.exists() and not target.is_file()
    aside = target if device else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _opened(aside, binary) as file:
            yield file
        if not device:
            if target.exists():
                shutil.copymode(target, aside)
            aside.replace(target)
    except OSError as error:
        raise HnasError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        if not device:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def _descriptor(output: Path) -> int | None:
    """Return the number of the open file that `output` names, or None: /dev/stdout is the file that a shell opened."""
    path = str(output.absolute())
    standard = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    match = re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", path)
    return int(match[1]) if match else standard.get(path)


def _opened(file: Path | int, binary: bool) -> IO[Any]:
    how: dict[str, Any] = {"mode": "wb"} if binary else {"mode": "w", "encoding": "utf-8", "newline": ""}
    opened: IO[Any] = open(file, **how)  # noqa: PTH123, SIM115  (`Path.open` takes no number)
    return opened


def written_text(rows: int, output: Path) -> str:
    """Return how many rows were written to which file."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'} written to {output}"
