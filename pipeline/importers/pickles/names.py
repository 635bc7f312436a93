"""The few names in pickles of NAS-Bench-201 and NATS-Bench, and what each of them becomes.

A pickle calls what it names. Here a name is looked up in `KNOWN` and nowhere else, and is answered by a function of
this file that makes a number, a list or a dictionary. Nothing is imported, and no numpy or torch class is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any


class Dtype:
    """Stands in for numpy.dtype: type and size, such as f8, and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"


class Skipped:
    """Stands in for skipped values: weights, or long bytes objects."""

    __slots__ = ()

    def append(self, _: object) -> None:
        """Ignore an item of a skipped list."""

    extend = append


SKIPPED = Skipped()

#: Bytes objects longer than this are weights, which no importer needs.
LONGEST = 64

#: Returned by a function of `KNOWN` for unexpected arguments.
UNKNOWN = object()

_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}


def add_entries(target: dict[Any, Any], keys: list[Any], values: Iterable[Any]) -> bool:
    """Add the entries and return True if all keys are text, 64-bit integers, or short tuples of those.

    Other keys may take forever to hash: a tuple hashes its members again for each reference to them, and colliding
    hashes are easy to construct.
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


# None of these copies its arguments: a few bytes of a pickle can refer to the same long list many times.


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
    # Protocol 2 writes bytes as a call of this function.
    text, encoding = arguments
    if type(text) is not str or len(text) > LONGEST or type(encoding) is not str or encoding != "latin1":
        return UNKNOWN
    return text.encode("latin1")


def _skipped(_: tuple[Any, ...]) -> Any:
    return SKIPPED


#: The names in the benchmarks' files. The last two belong to the weights in NATS-Bench's `-full` folder.
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
