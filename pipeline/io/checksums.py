"""Checksums that files carry in themselves, so that damage is found whenever a file is read.

A Parquet file has two notes in its footer's metadata: `hnas.place`, its path below the store's root, and
`hnas.checksum`, the CRC-32C of the whole file with the eight digits of the checksum itself read as zeros. A JSON
object has a member `checksum` over the others. Files of older versions have neither, and are read without this check.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

PLACE, CHECKSUM = b"hnas.place", b"hnas.checksum"
#: The note of a part of `metrics` whose matrices are kept in `ntk.zarr`.
GRAM_KEPT = b"hnas.gram"
# The value in the footer: the prefix tells it from other text there.
_PREFIX, _UNSET = b"crc32c:", b"00000000"
_BLOCK = 2**22


class DamagedError(ValueError):
    """The content of a file is not what was written there; the text says how that shows."""


def notes(place: str) -> dict[bytes, bytes]:
    """The metadata for a Parquet file that will lie at `place`; `seal` fills in the checksum once it is written."""
    return {PLACE: place.encode(), CHECKSUM: _PREFIX + _UNSET}


def parquet_bytes(table: pa.Table, place: str, more: dict[bytes, bytes] | None = None) -> bytes:
    """A sealed Parquet file of `table` for `place`, with further metadata in `more`."""
    table = table.replace_schema_metadata(None)  # a table that was read has the notes of its old file there
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**(more or {}), **notes(place)})
    content = bytearray(sink.getvalue().to_pybytes())
    start = _digits(content)
    assert start is not None
    content[start : start + 8] = _hex(google_crc32c.value(bytes(content)))
    return bytes(content)


def seal(file: BinaryIO) -> None:
    """Write the checksum into a Parquet file that has `notes`, which is open for reading and writing."""
    size = file.seek(0, 2)
    tail_start = max(0, size - _BLOCK)
    file.seek(tail_start)
    start = _digits(file.read())
    if start is None:
        raise AssertionError("the file has no notes to seal")
    file.seek(0)
    checksum = 0
    while block := file.read(_BLOCK):
        checksum = google_crc32c.extend(checksum, block)
    file.seek(tail_start + start)
    file.write(_hex(checksum))


def verify_parquet(content: bytes, place: str) -> bool:
    """Check a Parquet file that lies at `place`; returns whether it has a checksum, which files of older versions lack.

    Raises `DamagedError` where it is not what was written, or was written for another place.
    """
    start = _digits(content)
    if start is None:
        if not (content[:4] == content[-4:] == b"PAR1"):
            raise DamagedError("it is not a whole Parquet file")
        return False
    checksum = google_crc32c.value(content[:start])
    for rest in (_UNSET, content[start + 8 :]):
        checksum = google_crc32c.extend(checksum, rest)
    if _hex(checksum) != content[start : start + 8]:
        raise DamagedError("its content does not match its checksum")
    written_for = metadata_of(content).get(PLACE, b"").decode(errors="replace")
    if written_for != place:
        raise DamagedError(f"it is a copy of {written_for}")
    return True


def sealed_json(value: dict[str, Any]) -> dict[str, Any]:
    """The same object with its checksum as the last member."""
    return {**value, "checksum": _json_checksum(value)}


def opened_json(value: dict[str, Any]) -> dict[str, Any]:
    """The object without its checksum. Raises `DamagedError` where they do not match."""
    if "checksum" not in value:
        return value
    rest = {name: item for name, item in value.items() if name != "checksum"}
    if value["checksum"] != _json_checksum(rest):
        raise DamagedError("its content does not match its checksum")
    return rest


def batch_digest(images: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    """16 hexadecimal digits of a batch: images (m, 3, H, W), labels (m,)."""
    digest = blake2b(digest_size=8)
    digest.update(repr(images.shape).encode())
    digest.update(images.astype("<f4", copy=False).tobytes())
    digest.update(labels.astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _digits(content: bytes | bytearray) -> int | None:
    """The position of the eight digits in a Parquet file or the end of one, or None where it has no notes."""
    # The footer's metadata is near the end, behind all pages: the last occurrence is not data.
    key = content.rfind(CHECKSUM)
    start = content.find(_PREFIX, key) + len(_PREFIX) if key >= 0 else -1
    # Thrift puts a tag and a length between key and value.
    return start if 0 <= key < start <= key + len(CHECKSUM) + len(_PREFIX) + 4 else None


def metadata_of(content: bytes) -> dict[bytes, bytes]:
    """The key-value metadata of a Parquet file. Raises `DamagedError` where its footer cannot be read."""
    try:
        found: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(content)).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return found


def _hex(checksum: int) -> bytes:
    return b"%08x" % checksum


def _json_checksum(value: dict[str, Any]) -> str:
    return "crc32c:" + _hex(google_crc32c.value(json.dumps(value, sort_keys=True).encode())).decode()
