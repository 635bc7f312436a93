"""The stack machine that a pickle is a program for, with the instructions that make values and no others.

Python's own machine imports and calls whatever a pickle names. This one looks names up in `pickled_globals.KNOWN` and
ends with a sentence at every other name, at every instruction that makes objects of classes, and at every number or
string of a size that no benchmark has. It is a loop without recursion: nesting costs a pickle's own length.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from hnas.errors import UsageError
from hnas.pipeline.importers.pickles.float_rows import find_run
from hnas.pipeline.importers.pickles.memo import KEPT, Memo
from hnas.pipeline.importers.pickles.names import (
    KNOWN,
    LONGEST,
    SKIPPED,
    UNKNOWN,
    Dtype,
    Global,
    WideInteger,
    add_entries,
)
from hnas.pipeline.importers.pickles.stream import WINDOW, Stream

_STOP = ord(".")
#: Weights are shorter than this.
_WEIGHTS = 2**30


class Machine:
    """Runs the pickle at `stream` and yields the entries of the dictionary that is the value of the key `watched`.

    What it holds besides, with that dictionary left empty, is `result` at the end. See `unpickle.unpickle`.
    """

    def __init__(self, stream: Stream, benchmark: str, watched: str | None, memo: Memo) -> None:
        self.stream = stream
        self.result: Any = None
        self.memo = memo
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # the parts of the stack below each mark
        self._benchmark = benchmark
        self._watched_key = watched
        self._watched: dict[Any, Any] | None = None
        self._gathering: list[Any] | None = None  # the part of the stack that gathers the watched dictionary's entries
        self._ready: list[tuple[Any, Any]] = []

    def run(self) -> Iterator[tuple[Any, Any]]:
        """Run the program to its end. Raises `UsageError`, and `ForgottenError` where `memo` has forgotten too much."""
        stream = self.stream
        try:
            while True:
                if len(stream.buffer) - stream.position < WINDOW and not stream.ended:
                    stream.fill()
                code = stream.byte()
                if code == _STOP:
                    break
                if code not in _INSTRUCTIONS:
                    raise self.unknown(f"the pickle instruction {bytes([code])!r}")
                _INSTRUCTIONS[code](self)
                if self.stack is self._gathering and len(self.stack) == 3:
                    self._hand_out()
                if self._ready:
                    yield from self._ready
                    self._ready.clear()
                    self.memo.forget()
                    if self.memo.overflows:
                        raise self.unknown(f"more than {KEPT:,} things that its architectures share")
                    stream.rest()
            if self._below or len(self.stack) != 1:
                raise self.odd()
            self.result = self.stack.pop()
        except (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise self.odd() from error
        stream.rest()

    def odd(self) -> UsageError:
        return self.stream.refuse("is no whole pickle: its instructions do not fit together")

    def unknown(self, what: str) -> UsageError:
        where = f"which no {self._benchmark} file contains (byte {self.stream.offset:,})"
        return UsageError(f"{self.stream.path} holds {what}, {where}; nothing of it was run")

    def number(self, size: int) -> int:
        return int.from_bytes(self.stream.take(size), "little")

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

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        watched = bool(self.stack) and self._watch(self.stack[-1])
        self._below.append(self.stack)
        self.stack = []
        if watched:
            self._gathering = self.stack
        else:
            self.run_of_entries()

    def marked(self) -> list[Any]:
        items = self.stack
        self.stack = self._below.pop()
        return items

    def frame(self) -> None:
        self.number(8)  # only says how much to read ahead
        self.run_of_entries()

    def run_of_entries(self) -> None:
        stream = self.stream
        while (run := find_run(stream.buffer, stream.position)) is not None:
            keys, values = run.keys, run.values
            if run.fetched:
                keys = self.memo.get_keys(run.fetched)
            elif run.put is None:
                self.memo.put_keys(range(self.memo.count, self.memo.count + len(keys)), keys)
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

    def push_integer(self, size: int) -> None:
        if size > 16:
            raise self.unknown(f"an integer of {size:,} bytes")
        value = int.from_bytes(self.stream.take(size), "little", signed=True)
        self.stack.append(value if size <= 8 else WideInteger(value))

    def push_integer_line(self) -> None:
        line = self.stream.line().removesuffix(b"L")
        if len(line) > 40:
            raise self.unknown(f"an integer of {len(line):,} digits")
        value = int(line)
        if line in (b"00", b"01"):
            self.stack.append(line == b"01")
        else:
            self.stack.append(value if -(2**63) <= value < 2**63 else WideInteger(value))

    def push_float(self) -> None:
        self.push(struct.unpack(">d", self.stream.take(8))[0])
        self.run_of_entries()

    def push_text(self, size: int, encoding: str = "utf-8") -> None:
        if size >= WINDOW:
            raise self.unknown(f"a string of {size:,} bytes")
        self.stack.append(self.stream.take(size).decode(encoding))

    def push_string_line(self) -> None:
        line = self.stream.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"') or b"\\" in line:
            raise self.unknown("a string with escapes")
        self.stack.append(line[1:-1].decode("latin1"))

    def push_bytes(self, size: int) -> None:
        if size > _WEIGHTS:
            raise self.unknown(f"a bytes object of {size:,} bytes")
        if size <= LONGEST:
            self.stack.append(self.stream.take(size))
        else:
            self.stream.skip(size)
            self.stack.append(SKIPPED)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target += items
        elif target is not SKIPPED:
            raise self.odd()

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.odd()
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def make_dictionary(self) -> None:
        items = self.marked()
        self.stack.append({})
        self.set_items(items)

    def set_item(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
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

    def global_line(self) -> None:
        module, name = self.stream.line(), self.stream.line()
        self.push_global(module.decode("utf-8"), name.decode("utf-8"))

    def push_global(self, module: Any, name: Any) -> None:
        if module is SKIPPED or name is SKIPPED:
            self.stack.append(SKIPPED)
            return
        if type(module) is not str or type(name) is not str:
            raise self.odd()
        if (module, name) not in KNOWN:
            raise self.unknown(f"a {ascii(module)[1:-1][:80]}.{ascii(name)[1:-1][:80]}")
        self.stack.append(Global(module, name))

    def reduce(self) -> None:
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

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Dtype:
            target.order = state[1]
        elif type(target) is not dict and target is not SKIPPED:  # of an OrderedDict of weights, its _metadata
            raise self.unknown("an object with a state")


def _pop_two(machine: Machine) -> tuple[Any, Any]:
    second, first = machine.stack.pop(), machine.stack.pop()
    return first, second


def _protocol(machine: Machine) -> None:
    if machine.stream.byte() > 5:
        raise machine.odd()


_INSTRUCTIONS: dict[int, Callable[[Machine], None]] = {
    code if isinstance(code, int) else ord(code): run
    for code, run in (
        # The program.
        (0x80, _protocol),
        (0x95, Machine.frame),
        ("(", Machine.mark),
        # Constants and numbers.
        ("N", lambda m: m.push(None)),
        (0x88, lambda m: m.push(True)),
        (0x89, lambda m: m.push(False)),
        ("K", lambda m: m.push(m.stream.byte())),
        ("M", lambda m: m.push(m.number(2))),
        ("J", lambda m: m.push_integer(4)),
        (0x8A, lambda m: m.push_integer(m.stream.byte())),
        (0x8B, lambda m: m.push_integer(m.number(4))),
        ("I", Machine.push_integer_line),
        ("L", Machine.push_integer_line),
        ("F", lambda m: m.push(float(m.stream.line()))),
        ("G", Machine.push_float),
        # Text and bytes.
        ("X", lambda m: m.push_text(m.number(4))),
        (0x8C, lambda m: m.push_text(m.stream.byte())),
        (0x8D, lambda m: m.push_text(m.number(8))),
        ("T", lambda m: m.push_text(m.number(4), "latin1")),
        ("U", lambda m: m.push_text(m.stream.byte(), "latin1")),
        ("V", lambda m: m.push(m.stream.line().decode("raw-unicode-escape"))),
        ("S", Machine.push_string_line),
        ("B", lambda m: m.push_bytes(m.number(4))),
        ("C", lambda m: m.push_bytes(m.stream.byte())),
        (0x8E, lambda m: m.push_bytes(m.number(8))),
        # Lists, tuples, sets (as lists) and dictionaries.
        ("]", lambda m: m.push([])),
        ("l", lambda m: m.push(m.marked())),
        ("a", lambda m: m.extend([m.stack.pop()])),
        ("e", lambda m: m.extend(m.marked())),
        (")", lambda m: m.push(())),
        ("t", lambda m: m.push(tuple(m.marked()))),
        (0x85, lambda m: m.tuple_of(1)),
        (0x86, lambda m: m.tuple_of(2)),
        (0x87, lambda m: m.tuple_of(3)),
        (0x8F, lambda m: m.push([])),
        (0x90, lambda m: m.extend(m.marked())),
        (0x91, lambda m: m.push(m.marked())),
        ("}", lambda m: m.push({})),
        ("d", Machine.make_dictionary),
        ("s", Machine.set_item),
        ("u", lambda m: m.set_items(m.marked())),
        # The memo.
        ("p", lambda m: m.memo.put(int(m.stream.line()[:20]), m.stack[-1])),
        ("q", lambda m: m.memo.put(m.stream.byte(), m.stack[-1])),
        ("r", lambda m: m.memo.put(m.number(4), m.stack[-1])),
        (0x94, lambda m: m.memo.put(m.memo.count, m.stack[-1])),
        ("g", lambda m: m.push(m.memo.get(int(m.stream.line()[:20])))),
        ("h", lambda m: m.push(m.memo.get(m.stream.byte()))),
        ("j", lambda m: m.push(m.memo.get(m.number(4)))),
        # Names.
        ("c", Machine.global_line),
        (0x93, lambda m: m.push_global(*_pop_two(m))),
        ("R", Machine.reduce),
        ("b", Machine.build),
    )
}
