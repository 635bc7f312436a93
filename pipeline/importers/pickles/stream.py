"""A file read sequentially through a window of bounded size, as input of the pickle machine."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hnas.errors import UsageError
from hnas.pipeline.io.input_files import regular_file

CHUNK = 2**18
#: Bytes that `Stream.fill` reads ahead: more than any instruction or run of entries that is read at once.
WINDOW = 2**16
#: Bytes allowed between two calls of `Stream.rest`. An architecture takes 0.3 MB in NAS-Bench-201's file, at most 0.5.
ALLOWANCE = 2**22


class Stream:
    """A byte stream whose `buffer[position:]` comes next. `read(n)` returns up to n bytes, and none at the end.

    `progress` is called after each chunk of the file, `close` when the stream is closed.

    A single byte of a pickle can take up a hundred bytes of memory. The stream therefore raises `UsageError` once more
    than `ALLOWANCE` bytes are read between two calls of `rest`.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[int], bytes],
        progress: Callable[[], object] = lambda: None,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = path
        self.close = close
        self.buffer = b""
        self.position = 0
        self.ended = False
        self._read = read
        self._progress = progress
        self._start = 0
        self._allowed = ALLOWANCE

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._start + self.position

    def rest(self) -> None:
        """Mark everything read so far as consumed, which renews the allowance."""
        self._allowed = self.offset + ALLOWANCE

    def fill(self, need: int = WINDOW) -> None:
        """Read until `need` bytes are ahead, or the file ends."""
        if self.offset > self._allowed:
            raise self.refuse(f"holds more than {ALLOWANCE:,} bytes in one part, which no such file does")
        parts = [self.buffer[self.position :]]
        ahead = len(parts[0])
        while ahead < need and not self.ended:
            parts.append(self._chunk(CHUNK))
            ahead += len(parts[-1])
        self._start, self.position = self.offset, 0
        self.buffer = b"".join(parts)
        self._progress()

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, at most `WINDOW`. Raises `UsageError` if the file ends first."""
        end = self.position + count
        if end > len(self.buffer):
            self.fill()
            end = self.position + count
            if end > len(self.buffer):
                raise self.truncated()
        content = self.buffer[self.position : end]
        self.position = end
        return content

    def readline(self) -> bytes:
        """Return the bytes up to and including the next newline."""
        end = self.buffer.find(b"\n", self.position, self.position + WINDOW)
        if end < 0:
            self.fill()
            end = self.buffer.find(b"\n", self.position, self.position + WINDOW)
            if end < 0:
                raise self.truncated() if self.ended else self.refuse("holds an endless line")
        return self.read(end - self.position + 1)

    def skip(self, count: int) -> None:
        """Skip `count` bytes, however many, without keeping them."""
        self._allowed += count
        left = count - (len(self.buffer) - self.position)
        if left <= 0:
            self.position += count
            return
        self._start, self.position, self.buffer = self._start + len(self.buffer), 0, b""
        while left > 0:
            chunk = self._chunk(min(CHUNK, left))
            if not chunk:
                raise self.truncated()
            self._start += len(chunk)
            left -= len(chunk)
        self._progress()

    def finish(self) -> None:
        """Raise `UsageError` unless the file ends here. Reaching the end verifies the checksums of bz2 and zip."""
        self.fill(1)
        if self.position < len(self.buffer):
            raise self.refuse("goes on after the end of its pickle")

    def refuse(self, text: str) -> UsageError:
        return UsageError(f"{self.path} {text} (byte {self.offset:,}); get the file again")

    def truncated(self) -> UsageError:
        return self.refuse("ends in the middle")

    def _chunk(self, count: int) -> bytes:
        try:
            chunk = self._read(count)
        except EOFError as error:
            raise self.truncated() from error
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UsageError(
                f"{self.path} cannot be read after byte {self.offset:,}: {reason}; get the file again"
            ) from error
        self.ended = not chunk
        return chunk


def open_file(path: Path, count: int, advice: str) -> tuple[BinaryIO, int, bytes]:
    """Return the file at `path`, open at its beginning, its size and first `count` bytes. Raises `UsageError`."""
    regular_file(path, needed=advice.removeprefix("give "))
    try:
        file = path.open("rb")
        size = path.stat().st_size
        head = file.read(count)
        file.seek(0)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; {advice}") from error
    return file, size, head
