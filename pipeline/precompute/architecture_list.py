"""Lists of architectures for `--architectures`: text with one per line, CSV with a column `arch`, programs and logs."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable
from hnas.spaces import Named, Printed, SearchSpace, key_of

# NAS-Bench-101 has 423,624 architectures, 60 MB of definitions.
_MOST_BYTES = 2**28
_MOST_LINES = 200  # of one architecture
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PROGRAMS = (".py", ".log")

Numbered = tuple[int, str]


def read_list(space: SearchSpace, path: Path) -> list[str]:
    """Return the keys of the architectures that a file lists, without repeats, in the order of first occurrence.

    The file is one of:

    * text with one architecture per line, or over several lines while brackets are open; empty lines and comments (`#`
      at the start of a line or after a blank) are ignored
    * CSV whose first line names a column `arch`
    * a program or log, with the suffix .py or .log, in which the space finds architectures (`Printed`)

    The encoding is UTF-8, or UTF-16 or UTF-32 with a byte order mark. The path `named` means the space's own named
    architectures, if it has some and there is no such file.

    Raises `UsageError` for a file that cannot be read, an empty list, and a malformed architecture, with its line.
    """
    if str(path) == "named" and isinstance(space, Named) and not path.exists():
        return [key_of(space, arch) for arch in space.named().values()]
    shown = printable(path)
    text = _read(path, shown)
    keys: dict[str, None] = {}
    for number, arch in _entries(space, path, text):
        try:
            keys[_key(space, arch)] = None
        except UsageError as error:
            raise UsageError(f"{shown}, line {number}: {error}") from error
    if not keys:
        raise UsageError(f"the list of architectures {shown} is empty; give one architecture per line")
    return list(keys)


def _read(path: Path, shown: str) -> str:
    regular_file(path, "a text file with one architecture per line", shell_pipe=True)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"the list of architectures {shown} has more than {_MOST_BYTES:,} bytes; give fewer")
        text = content.decode(next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8"))
        if "\0" in text:  # UTF-16 without a byte order mark
            raise ValueError("not text")
        return text
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the list of architectures {shown} cannot be read: {reason}; give one architecture per line"
        ) from error


def _entries(space: SearchSpace, path: Path, text: str) -> Iterator[Numbered]:
    if path.suffix.lower() in _PROGRAMS and isinstance(space, Printed):
        return space.printed(text)
    lines = text.splitlines()
    header = next(csv.reader(lines[:1]), [])
    names = [name.strip() for name in header]
    if "arch" in names:
        return _of_csv(lines[1:], names.index("arch"))
    return _of_lines(lines)


def _of_csv(lines: list[str], column: int) -> Iterator[Numbered]:
    rows = csv.reader(line + "\n" for line in lines)
    for row in rows:
        if len(row) > column and row[column].strip():
            yield rows.line_num + 1, row[column]


def _of_lines(lines: list[str]) -> Iterator[Numbered]:
    """Yield architectures of one line, or of several lines while a bracket is open."""
    entry: list[str] = []
    depth = first = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not entry:
            first = number
        entry.append(line)
        bare = line.partition(" #")[0]
        depth += sum(map(bare.count, "([{")) - sum(map(bare.count, ")]}"))
        if depth <= 0 or len(entry) == _MOST_LINES:
            yield first, "\n".join(entry)
            entry, depth = [], 0
    if entry:
        yield first, "\n".join(entry)


def _key(space: SearchSpace, arch: str) -> str:
    try:
        return key_of(space, arch)
    except UsageError:
        plain = _plain(arch)
        if plain == arch.strip():
            raise
        return key_of(space, plain)


def _plain(arch: str) -> str:
    """Strip the comment, comma and quotes that surround an architecture in a program or a list."""
    text = arch.partition(" #")[0].strip().rstrip(",;").rstrip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
