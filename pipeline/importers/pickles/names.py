"""The few names that the pickles of NAS-Bench-201 and NATS-Bench contain, and what each amounts to.

A pickle calls what it names. Here a name is looked up in `KNOWN` and nowhere else; what answers is a function of this
file, which makes a number, a list or a dictionary. Nothing is imported, and no class of numpy or torch is touched.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any


class Dtype:
    """Stands in for numpy.dtype: its type and size, such as f8, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"


class Skipped:
    """Stands in for something that is read over: weights, or bytes of any length."""

    __slots__ = ()

    def append(self, _: object) -> None:
        """Skip an item of a skipped list."""

    extend = append


SKIPPED = Skipped()

#: Bytes objects longer than this are weights, which nobody asks for.
LONGEST = 64

#: What a name's function returns where its arguments are not the known ones.
UNKNOWN = object()

_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}


def add_entries(target: dict[Any, Any], keys: list[Any], values: Iterable[Any]) -> bool:
    """Whether all keys are such as the benchmarks have: text, 64-bit integers, or a few short tuples of those.

    Anything else may take for ever to hash: a tuple hashes its members again for each place that refers to them, and
    colliding hashes are easily made.
    """
    for kind in set(map(type, keys)):
        if kind is tuple:
            tuples = [key for key in keys if type(key) is tuple]
            if len(target) + len(tuples) > 4096:
                return False
            if any(len(key) > 4 or not {str, int}.issuperset(map(type, key)) for key in tuples):
                return False
        elif kind is not str and kind is not int and kind is not Skipped:
            return False
    target.update(zip(keys, values, strict=True))
    return True


# None of these copies its arguments: a few bytes of a pickle can ask for the same long list again and again.


def _ordered(arguments: tuple[Any, ...]) -> Any:
    return UNKNOWN if arguments else {}  # its entries follow


def _items(arguments: tuple[Any, ...]) -> Any:
    (items,) = arguments
    return items if type(items) is list else UNKNOWN


def _dtype(arguments: tuple[Any, ...]) -> Any:
    code = arguments[0]
    return Dtype(code) if type(code) is str and code in _FORMATS else UNKNOWN


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, content = arguments
    if type(dtype) is not Dtype or dtype.order not in ("<", ">"):
        return UNKNOWN
    return struct.unpack(dtype.order + _FORMATS[dtype.code], content)[0]


def _encoded(arguments: tuple[Any, ...]) -> Any:
    # What protocol 2 calls to write bytes.
    text, encoding = arguments
    if type(text) is not str or len(text) > LONGEST or type(encoding) is not str or encoding != "latin1":
        return UNKNOWN
    return text.encode("latin1")


def _skipped(_: tuple[Any, ...]) -> Any:
    return SKIPPED


#: What the benchmarks' files name. The last two are the weights in NATS-Bench's `-full` folder.
KNOWN: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _items,
    ("__builtin__", "set"): _items,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encoded,
    ("torch._utils", "_rebuild_tensor_v2"): _skipped,
    ("torch.storage", "_load_from_bytes"): _skipped,
}


class Global:
    """A name of `KNOWN` on the pickle's stack."""

    __slots__ = ("call", "name")

    def __init__(self, module: str, name: str) -> None:
        self.name = f"{module}.{name}"
        self.call = KNOWN[module, name]
