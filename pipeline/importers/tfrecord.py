"""TFRecord files: a sequence of records, each framed by its length and two checksums.

    uint64 length | uint32 masked CRC-32C of the length | length bytes | uint32 masked CRC-32C of the bytes

All integers are little-endian. A CRC is masked by rotating it right by 15 bits and adding 0xa282ead8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

from hnas.errors import UsageError

#: The longest record that is read; records of NAS-Bench-101 have a few hundred bytes.
LONGEST = 2**20

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class Record(NamedTuple):
    """A record: its number, counted from 1, the byte of the file where its frame begins, and its content."""

    number: int
    offset: int
    content: bytes


def read_records(path: Path, file: BinaryIO) -> Iterator[Record]:
    """Yield the records of a TFRecord file, verified. Raises `UsageError` with record and byte of the first error."""
    number, offset = 0, 0
    while header := file.read(_HEADER.size):
        number += 1
        if len(header) < _HEADER.size:
            raise UsageError(_truncated(path, number, offset) if number > 1 else _foreign(path))
        length, check = _HEADER.unpack(header)
        if masked_crc(header[:8]) != check:
            raise UsageError(_damaged(path, number, offset, "its length") if number > 1 else _foreign(path))
        if length > LONGEST:
            raise UsageError(
                f"{place(path, number, offset)} has {length:,} bytes; records of NAS-Bench-101 have a few hundred"
            )
        content = file.read(length)
        footer = file.read(_FOOTER.size)
        if len(footer) < _FOOTER.size:
            raise UsageError(_truncated(path, number, offset))
        if masked_crc(content) != _FOOTER.unpack(footer)[0]:
            raise UsageError(_damaged(path, number, offset, "its content"))
        yield Record(number, offset, content)
        offset += _HEADER.size + length + _FOOTER.size


def masked_crc(content: bytes) -> int:
    """Return the masked CRC-32C of `content`."""
    crc: int = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def place(path: Path, number: int, offset: int) -> str:
    """Return the position of a record for error messages."""
    return f"{path}, record {number} (byte {offset})"


def _foreign(path: Path) -> str:
    return f"{path} is not a TFRecord file; give nasbench_only108.tfrecord or nasbench_full.tfrecord"


def _truncated(path: Path, number: int, offset: int) -> str:
    return f"{place(path, number, offset)} is cut off; the file is incomplete, so download it again"


def _damaged(path: Path, number: int, offset: int, what: str) -> str:
    return f"{place(path, number, offset)} is damaged: the checksum of {what} does not match; download the file again"
