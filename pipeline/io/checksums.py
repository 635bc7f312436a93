"""Embedded checksums, so that every read of a file detects damage.

A Parquet file has two entries in its footer's metadata: `hnas.place`, its path below the store's root, and
`hnas.checksum`, the CRC-32C of the whole file with the eight digits of the checksum itself read as zeros. A JSON object
has a member `checksum` over its other members. Files of older versions have neither and are read without this check.
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
#: The metadata key of a part of `metrics` whose matrices are kept in `ntk.zarr`.
GRAM_KEPT = b"hnas.gram"
# Prefix of the value in the footer, to tell it from other text there.
_PREFIX, _UNSET = b"crc32c:", b"00000000"
_BLOCK = 2**22


class DamagedError(ValueError):
    """The content of a file is not what was written; the message gives the evidence."""


def notes(place: str) -> dict[bytes, bytes]:
    """Return the metadata for a Parquet file destined for `place`; `seal` fills in the checksum after writing."""
    return {PLACE: place.encode(), CHECKSUM: _PREFIX + _UNSET}


def parquet_bytes(table: pa.Table, place: str, more: dict[bytes, bytes] | None = None) -> bytes:
    """Return `table` as a sealed Parquet file for `place`, with further metadata from `more`."""
    table = table.replace_schema_metadata(None)  # drop the entries of the file that the table was read from
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
    """Write the checksum into a Parquet file that has `notes`; `file` is open for reading and writing."""
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
    """Check a Parquet file that lies at `place` and return whether it has a checksum; those of older versions do not.

    Raises `DamagedError` if the content is not what was written, or was written for another place.
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
    """Return the object with its checksum as the last member."""
    return {**value, "checksum": _json_checksum(value)}


def opened_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object without its checksum. Raises `DamagedError` if the checksum does not match."""
    if "checksum" not in value:
        return value
    rest = {name: item for name, item in value.items() if name != "checksum"}
    if value["checksum"] != _json_checksum(rest):
        raise DamagedError("its content does not match its checksum")
    return rest


def batch_digest(images: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    """Return a 16-digit hexadecimal hash of a batch: images (m, 3, H, W), labels (m,)."""
    digest = blake2b(digest_size=8)
    digest.update(repr(images.shape).encode())
    digest.update(images.astype("<f4", copy=False).tobytes())
    digest.update(labels.astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def _digits(content: bytes | bytearray) -> int | None:
    """Return the position of the eight digits in the content or tail of a Parquet file; None if it has no checksum."""
    # The footer's metadata comes after all pages, so the last occurrence is not data.
    key = content.rfind(CHECKSUM)
    start = content.find(_PREFIX, key) + len(_PREFIX) if key >= 0 else -1
    # Thrift puts a tag and a length between key and value.
    return start if 0 <= key < start <= key + len(CHECKSUM) + len(_PREFIX) + 4 else None


def metadata_of(content: bytes) -> dict[bytes, bytes]:
    """Return the key-value metadata of a Parquet file. Raises `DamagedError` if its footer cannot be read."""
    try:
        metadata: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(content)).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return metadata


def _hex(checksum: int) -> bytes:
    return b"%08x" % checksum


def _json_checksum(value: dict[str, Any]) -> str:
    return "crc32c:" + _hex(google_crc32c.value(json.dumps(value, sort_keys=True).encode())).decode()
