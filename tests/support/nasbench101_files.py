"""NAS-Bench-101's files, written byte by byte as the formats are documented.

The checksum is computed from its polynomial, and messages are encoded in Protocol Buffers' wire format.
"""

from __future__ import annotations

import base64
import json
import struct
from hashlib import md5
from random import Random
from typing import Any

LAYERS = ("conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3")
CHAIN = {n: "".join("1" if j == i + 1 else "0" for i in range(n) for j in range(n)) for n in range(2, 8)}
OPERATIONS = {n: ",".join(["input", *(LAYERS[k % 3] for k in range(n - 2)), "output"]) for n in range(2, 8)}
Row = list[Any]
Evaluation = tuple[float, float, float, float, float]


def _divided(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_REMAINDERS = [_divided(byte) for byte in range(256)]


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _REMAINDERS[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def frame(content: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        crc = crc32c(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(evaluations: list[Evaluation], path: str = "/cell/model.ckpt-16875") -> bytes:
    out = b""
    for evaluation in evaluations:
        inner = b"".join(bytes([8 * k + 1]) + struct.pack("<d", value) for k, value in enumerate(evaluation, start=1))
        inner += b"\x32" + varint(len(path)) + path.encode()
        out += b"\x0a" + varint(len(inner)) + inner
    return out + b"\x10" + varint(8_555_530) + b"\x19" + struct.pack("<d", 1234.5)


def name_of(number: int) -> str:
    return md5(str(number).encode()).hexdigest()


def evaluations(random: Random, epochs: int) -> list[Evaluation]:
    seconds = 1000 * random.random()
    return [
        (at, seconds * at, random.randrange(10_001) / 1e4, random.randrange(10_001) / 1e4, random.random())
        for at in (0.0, epochs / 2 - 0.0032, float(epochs))
    ]


def training(number: int = 0, epochs: int = 108, seed: int = 0, n: int = 7) -> Row:
    metrics = message(evaluations(Random(f"{number} {epochs} {seed}"), epochs))
    return [name_of(number), epochs, CHAIN[n], OPERATIONS[n], base64.b64encode(metrics).decode()]


def fields(values: dict[int, float]) -> bytes:
    """An `EvaluationData` message with the given field numbers and values, in this order."""
    return b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in values.items())


def framed(*trainings: Row) -> bytes:
    return b"".join(frame(json.dumps(row).encode()) for row in trainings)
