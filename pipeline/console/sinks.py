"""Where the result of a query goes: a file whose name says what is in it, or standard output."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from hnas.errors import HnasError, UsageError
from hnas.pipeline.console.streams import discard

Format = Literal["table", "csv", "json", "parquet"]

#: What the end of a file's name says about its content.
SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".json": "json", ".txt": "table"}
# Names of contents that hnas does not write.
_OTHER_SUFFIXES = (
    *(".gz", ".zst", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z"),
    *(".tsv", ".tab", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".orc", ".avro"),
    *(".html", ".md", ".tex", ".yaml", ".yml", ".xml", ".db", ".duckdb", ".sqlite", ".npz", ".npy", ".pkl", ".h5"),
)


def output_format(output: Path | None, format: Format | None) -> Format:  # noqa: A002
    """The format of a result that goes to `output`: the one asked for, else what the file's name says.

    Raises `UsageError` where the name says something else than the format, or nothing and none is asked for.
    """
    if output is None:
        return format or "table"
    suffix = output.suffix.lower()
    said = SUFFIXES.get(suffix)
    asked = format or said
    advice = f"end it with {', '.join(SUFFIXES)} (a table)"
    if suffix in _OTHER_SUFFIXES:
        raise UsageError(f"--output {output} ends with {suffix}, which hnas does not write; {advice}")
    if asked is None:
        raise UsageError(f"--output {output} does not say in its name how to write it; {advice}, or give --format")
    if format is not None and said not in (None, format):
        raise UsageError(f"--output {output} ends as {said} does, and --format says {format}; drop one of the two")
    return asked


@contextlib.contextmanager
def open_sink(output: Path | None, stdout: TextIO, format: Format) -> Iterator[Any]:  # noqa: A002
    """The open file that a result is written to: bytes for Parquet, text otherwise."""
    binary, drawn = format == "parquet", format == "table"
    if output is not None:
        with _file(output, binary) as file:
            yield file
        return
    if binary and (stdout.isatty() or not hasattr(stdout, "buffer")):
        raise UsageError("Parquet is binary: name a file with --output, or send standard output to one")
    try:
        stdout.flush()
        with contextlib.nullcontext() if binary or drawn else _exact(stdout):
            yield stdout.buffer if binary else stdout
            stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough.
        discard(stdout)
    except OSError as error:
        discard(stdout)
        raise HnasError(f"cannot write to standard output: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise HnasError(
            f"standard output is {error.encoding} and cannot hold {error.object[error.start]!r}: "
            "set PYTHONIOENCODING=utf-8 or use --output"
        ) from error


@contextlib.contextmanager
def _exact(stdout: TextIO) -> Iterator[None]:
    """Data are refused where the encoding lacks a character: an escape in its place would be another value."""
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
    """`output`, written aside and renamed when complete; pipes and devices (/dev/null) are written as they are."""
    target = output.resolve()
    if target.is_dir():
        raise UsageError(f"{output} is a folder: --output names a file")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {output.parent} of --output does not exist: make it first")
    device = target.exists() and not target.is_file()
    aside = target if device else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") if binary else aside.open("w", encoding="utf-8", newline="") as file:
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


def written_text(rows: int, output: Path) -> str:
    """How many rows of a result are in which file."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'} written to {output}"
