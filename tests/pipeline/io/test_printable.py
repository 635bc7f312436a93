"""Text from files reaches a terminal as plain text."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hnas.errors import UsageError
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Übergröße 猫 κ", "Übergröße 猫 κ"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\tb\r\nc", r"a\tb\r\nc"),
        ("\x7f\x9b31m", r"\x7f\x9b31m"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("one\u2028two", r"one\u2028two"),
        (os.fsdecode(b"a\xff.png"), r"a\xff.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_terminal_control_sequences_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_line_feeds_stay_with_lines() -> None:
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"


def test_every_control_character_is_escaped() -> None:
    assert printable("".join(map(chr, (*range(32), *range(127, 160))))).isprintable()


def test_endless_files_are_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in (("pipe", "a named pipe"), ("link", "a named pipe"), ("socket", "a socket")):
            with pytest.raises(UsageError, match=f"{name} is {kind}, which may never end; give a CSV file"):
                regular_file(tmp_path / name, "a CSV file", shell_pipe=True)
    with pytest.raises(UsageError, match="/dev/zero is a device"):
        regular_file(Path("/dev/zero"))
    for name in ("file", "absent", "", "a\0b"):
        regular_file(tmp_path / name)


def test_a_shell_pipe_passes_where_allowed() -> None:
    reading, writing = os.pipe()
    try:
        regular_file(Path(f"/dev/fd/{reading}"), shell_pipe=True)
        with pytest.raises(UsageError, match="is a named pipe"):
            regular_file(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
        os.close(writing)
