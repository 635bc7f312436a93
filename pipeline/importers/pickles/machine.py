"""The stack machine that a pickle is a program for, with the instructions that make values and no others.

Python's own machine imports and calls whatever a pickle names. This one is `pickle._Unpickler` with a table of fewer
instructions, of which those that call, hash or set are written anew. It looks names up in `names.KNOWN` and ends with a
sentence at every other name, at every instruction that makes objects of classes, and at every number or string of a
size that no benchmark has. It is a loop without recursion: nesting costs a pickle's own length.
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
#: Weights are shorter than this.
_WEIGHTS = 2**30
#: What a program that does not fit together ends in.
_FAULTS = (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error, pickle.UnpicklingError)
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined,unused-ignore]
#: The instructions whose methods are Python's own. They make numbers, text, lists and tuples, or fetch and put them, by
#: way of `read`, `readline`, `memo` and `find_class`, which are ours; and they append to a list.
_INHERITED = b"\x80N\x88\x89JKMFSTUVX\x8c\x8d]lae)t\x85\x86\x87}qr\x94ghjc"


class Machine(_Python):  # type: ignore[misc]
    """Runs the pickle at `stream` and yields the entries of the dictionary that is the value of the key `watched`.

    What it holds besides, with that dictionary left empty, is `result` at the end. See `unpickle.unpickle`.
    """

    def __init__(self, stream: Stream, benchmark: str, watched: str | None, memo: Memo) -> None:
        super().__init__(stream, encoding="latin1")
        self.stream = stream
        self.readline = stream.readline
        self.result: Any = None
        self.memo = memo
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.metastack: list[list[Any]] = []  # the parts of the stack below each mark
        self._benchmark = benchmark
        self._watched_key = watched
        self._watched: dict[Any, Any] | None = None
        self._gathering: list[Any] | None = None  # the part of the stack that gathers the watched dictionary's entries
        self._ready: list[tuple[Any, Any]] = []

    def run(self) -> Iterator[tuple[Any, Any]]:
        """Run the program to its end. Raises `UsageError`, and `ForgottenError` where `memo` has forgotten too much."""
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
                        raise self.unknown(f"more than {KEPT:,} things that its architectures share")
                    stream.rest()
            if self.metastack or len(self.stack) != 1:
                raise self.odd()
            self.result = self.stack.pop()
        except _FAULTS as error:
            raise self.odd() from error
        stream.rest()

    def odd(self) -> UsageError:
        return self.stream.refuse("is no whole pickle: its instructions do not fit together")

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
        """Whether `target`, which is on top of the stack and about to get entries, is the watched dictionary."""
        if self._watched is None and len(self.stack) > 1 and type(target) is dict and not target:
            below = self.stack[-2]
            if type(below) is str and below == self._watched_key:
                self._watched = target
                self.memo.keep()
                self.stream.rest()
        return self._watched is not None and target is self._watched

    def _hand_out(self) -> None:
        # Entries are gathered a thousand at a time. One is complete where the next key follows it.
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
        self.number(8)  # only says how much to read ahead
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
        made: Any = SKIPPED
        if called is not SKIPPED and arguments is not SKIPPED:
            if type(called) is not Global or type(arguments) is not tuple:
                raise self.odd()
            if not any(argument is SKIPPED for argument in arguments):
                made = called.call(arguments)
            if made is UNKNOWN:
                raise self.unknown(f"a {called.name} of an unknown kind")
        self.stack.append(made)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Dtype:
            target.order = state[1]
        elif type(target) is not dict and target is not SKIPPED:  # of an OrderedDict of weights, its _metadata
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
        # Sets are lists: a member is not hashed.
        0x8F: _Python.load_empty_list,
        0x90: _Python.load_appends,
        0x91: _Python.load_list,
        ord("d"): load_dict,
        ord("s"): lambda self: self.set_items([self.stack.pop(-2), self.stack.pop()]),
        ord("u"): lambda self: self.set_items(self.pop_mark()),
        ord("p"): lambda self: self.memo.__setitem__(int(self.readline()[:20]), self.stack[-1]),  # short places
        0x93: load_stack_global,
        ord("R"): load_reduce,
        ord("b"): load_build,
    }
