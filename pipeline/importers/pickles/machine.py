"""A pickle virtual machine with only the instructions that build plain values.

Python's own machine imports and calls whatever a pickle names. This one is `pickle._Unpickler` with a smaller dispatch
table, in which the instructions that call, hash or set are rewritten. It looks names up in `names.KNOWN`. It raises
`UsageError` at any other name, at any instruction that creates instances of classes, and at any number or string larger
than the benchmarks have. It is a loop without recursion, so the cost of nesting is linear in the pickle's length.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

from hnas.errors import UsageError
from hnas.pipeline.importers.pickles.float_rows import find_run
from hnas.pipeline.importers.pickles.memo import KEPT, Memo
from hnas.pipeline.importers.pickles.names import KNOWN, LONGEST, SKIPPED, UNKNOWN, Dtype, Global, add_entries
from hnas.pipeline.importers.pickles.stream import WINDOW, Stream

_STOP = ord(".")
#: Upper bound on the bytes of a weight tensor.
_WEIGHTS = 2**30
#: The errors that an inconsistent program raises.
_FAULTS = (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error, pickle.UnpicklingError)
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined,unused-ignore]
#: Instructions that use Python's own methods. They make numbers, text, lists and tuples, fetch and put them through our
#: `read`, `readline`, `memo` and `find_class`, and append to lists.
_INHERITED = b"\x80N\x88\x89JKMFSTUVX\x8c\x8d]lae)t\x85\x86\x87}qr\x94ghjc"


class Machine(_Python):  # type: ignore[misc]
    """Runs the pickle at `stream` and yields the entries of the dictionary stored under the key `watched`.

    At the end, `result` is the whole value with that dictionary left empty. See `unpickle.unpickle`.
    """

    def __init__(self, stream: Stream, benchmark: str, watched: str | None, memo: Memo) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream = stream
        self.readline = stream.readline
        self.result: Any = None
        self.memo = memo
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.metastack: list[list[Any]] = []  # the stack below each mark
        self._benchmark = benchmark
        self._watched_key = watched
        self._watched: dict[Any, Any] | None = None
        self._gathering: list[Any] | None = None  # the stack segment that collects entries of the watched dictionary
        self._ready: list[tuple[Any, Any]] = []

    def run(self) -> Iterator[tuple[Any, Any]]:
        """Run to the end. Raises `UsageError`, and `ForgottenError` if `memo` has dropped something still needed."""
        stream, dispatch = self.stream, self.dispatch
        try:
            while True:
                if len(stream.buffer) - stream.position < WINDOW and not stream.ended:
                    stream.fill()
                code = stream.read(1)[0]
                if code == _STOP:
                    break
                if (instruction := dispatch.get(code)) is None:
                    raise self.unknown(f"the pickle instruction {bytes([code])!r}")
                instruction(self)
                if self.stack is self._gathering and len(self.stack) == 3:
                    self._hand_out()
                if self._ready:
                    yield from self._ready
                    self._ready.clear()
                    self.memo.forget()
                    if self.memo.overflows:
                        raise self.unknown(f"more than {KEPT:,} objects that its architectures share")
                    stream.rest()
            if self.metastack or len(self.stack) != 1:
                raise self.odd()
            self.result = self.stack.pop()
        except _FAULTS as error:
            raise self.odd() from error
        stream.rest()

    def odd(self) -> UsageError:
        return self.stream.refuse("is not a complete pickle: its instructions are inconsistent")

    def unknown(self, what: str) -> UsageError:
        where = f"which no {self._benchmark} file contains (byte {self.stream.offset:,})"
        return UsageError(f"{self.stream.path} holds {what}, {where}; nothing of it was run")

    def read(self, size: int) -> bytes:
        if size >= WINDOW:
            raise self.unknown(f"a string of {size:,} bytes")
        return self.stream.read(size)

    def number(self, size: int) -> int:
        return int.from_bytes(self.stream.read(size), "little")

    # --- the watched dictionary -------------------------------------------------------------------------------------

    def _watch(self, target: Any) -> bool:
        """Return whether `target`, the stack top about to receive entries, is the watched dictionary."""
        if self._watched is None and len(self.stack) > 1 and type(target) is dict and not target:
            below = self.stack[-2]
            if type(below) is str and below == self._watched_key:
                self._watched = target
                self.memo.keep()
                self.stream.rest()
        return self._watched is not None and target is self._watched

    def _hand_out(self) -> None:
        # Entries come a thousand at a time. One is complete once the next key follows it.
        key, value, following = self.stack
        if type(key) is int and type(value) is dict and type(following) is int:
            self._ready.append((key, value))
            self.stack[:] = [following]

    # --- instructions -----------------------------------------------------------------------------------------------

    def load_mark(self) -> None:
        watched = bool(self.stack) and self._watch(self.stack[-1])
        super().load_mark()
        if watched:
            self._gathering = self.stack
        else:
            self.run_of_entries()

    def load_frame(self) -> None:
        self.number(8)  # only a read-ahead hint
        self.run_of_entries()

    def load_binfloat(self) -> None:
        super().load_binfloat()
        self.run_of_entries()

    def run_of_entries(self) -> None:
        stream = self.stream
        while (run := find_run(stream.buffer, stream.position)) is not None:
            keys, values = run.keys, run.values
            if run.fetched:
                keys = self.memo.get_keys(run.fetched)
            elif run.put is None:
                self.memo.put_keys(range(len(self.memo), len(self.memo) + len(keys)), keys)
            elif run.put:
                self.memo.put_keys(run.put, keys)
            if keys:
                entries: list[Any] = [None] * (2 * len(keys))
                entries[::2] = keys
                entries[1::2] = values
                self.stack += entries
            else:
                self.stack += values
            stream.position = run.end

    def load_integer(self, load: Callable[[Machine], None]) -> None:
        load(self)
        if not -(2**63) <= self.stack[-1] < 2**63:
            raise self.unknown("an integer of more than 64 bits")

    def load_bytes(self, size: int) -> None:
        if size > _WEIGHTS:
            raise self.unknown(f"a bytes object of {size:,} bytes")
        if size <= LONGEST:
            self.append(self.stream.read(size))
        else:
            self.stream.skip(size)
            self.append(SKIPPED)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values):
            raise self.odd()
        if self._watch(target):
            if not {int, str}.issuperset(map(type, keys)):
                raise self.unknown("architectures without a number")
            self._ready += zip(keys, values, strict=True)
        elif type(target) is dict:
            if not add_entries(target, keys, values):
                raise self.unknown("a dictionary with keys other than strings and numbers")
        elif target is not SKIPPED:
            raise self.odd()

    def load_stack_global(self) -> None:
        if SKIPPED in (self.stack[-1], self.stack[-2]):
            self.stack[-2:] = [SKIPPED]
        else:
            super().load_stack_global()

    def find_class(self, module: str, name: str) -> Global:
        if (module, name) not in KNOWN:
            raise self.unknown(f"a {ascii(module)[1:-1][:80]}.{ascii(name)[1:-1][:80]}")
        return Global(module, name)

    def load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        result: Any = SKIPPED
        if called is not SKIPPED and arguments is not SKIPPED:
            if type(called) is not Global or type(arguments) is not tuple:
                raise self.odd()
            if not any(argument is SKIPPED for argument in arguments):
                result = called.call(arguments)
            if result is UNKNOWN:
                raise self.unknown(f"a {called.name} of an unknown kind")
        self.stack.append(result)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Dtype:
            target.order = state[1]
        elif type(target) is not dict and target is not SKIPPED:  # a dict: the _metadata of an OrderedDict of weights
            raise self.unknown("an object with a state")

    dispatch = {code: _Python.dispatch[code] for code in _INHERITED} | {
        0x95: load_frame,
        ord("("): load_mark,
        ord("G"): load_binfloat,
        ord("I"): lambda self: self.load_integer(_Python.load_int),
        ord("L"): lambda self: self.load_integer(_Python.load_long),
        0x8A: lambda self: self.load_integer(_Python.load_long1),
        0x8B: lambda self: self.load_integer(_Python.load_long4),
        ord("C"): lambda self: self.load_bytes(self.number(1)),
        ord("B"): lambda self: self.load_bytes(self.number(4)),
        0x8E: lambda self: self.load_bytes(self.number(8)),
        # Sets become lists, so that members are not hashed.
        0x8F: _Python.load_empty_list,
        0x90: _Python.load_appends,
        0x91: _Python.load_list,
        ord("d"): load_dict,
        ord("s"): lambda self: self.set_items([self.stack.pop(-2), self.stack.pop()]),
        ord("u"): lambda self: self.set_items(self.pop_mark()),
        ord("p"): lambda self: self.memo.__setitem__(int(self.readline()[:20]), self.stack[-1]),  # at most 20 digits
        0x93: load_stack_global,
        ord("R"): load_reduce,
        ord("b"): load_build,
    }
