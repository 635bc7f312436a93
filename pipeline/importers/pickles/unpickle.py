"""Pickles of benchmark files, read without running anything that they ask for, and in bounded memory.

The file of NAS-Bench-201 is one pickle of 4.7 GB: a dictionary of 15,625 architectures. They are handed out one by one
as the pickle makes them and then forgotten, with what its memo holds of them, but for names, which architectures
share. Where a file does refer to something that is already forgotten, it is read again, once to list what must be kept
and once to hand out the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from typing import Any

from hnas.pipeline.importers.pickles.machine import Machine
from hnas.pipeline.importers.pickles.memo import ForgottenError, Memo
from hnas.pipeline.importers.pickles.stream import Stream


def unpickle(
    source: Callable[[], Stream], benchmark: str, watched: str, finish: Callable[[Stream], None] = Stream.finish
) -> Generator[tuple[Any, Any], None, Any]:
    """Read the pickle that begins where `source()` stands, up to where `finish` finds the file's end to be right.

    Yields the entries of the dictionary that is the value of the key `watched`, whose keys are numbers or strings, and
    returns what the pickle holds, with that dictionary left empty. Needs memory for an entry, for what precedes the
    dictionary and what follows it (each up to `stream.ALLOWANCE` bytes of the file), and for what entries share.
    `source` is called again where a second reading is needed.

    Sets come as lists, an OrderedDict as a dict, numpy's scalars as numbers, weights as `SKIPPED`.

    Raises:
        UsageError: the pickle is truncated, or holds what no file of `benchmark` does.
    """
    given = 0
    with closing(source()) as stream:
        machine = Machine(stream, benchmark, watched, Memo())
        try:
            for entry in machine.run():
                given += 1
                yield entry
            finish(stream)
            return machine.result
        except ForgottenError:
            pass
    lost: set[int] = set()
    with closing(source()) as stream:
        for _ in Machine(stream, benchmark, watched, Memo(lost=lost)).run():
            pass
    with closing(source()) as stream:
        machine = Machine(stream, benchmark, watched, Memo(needed=frozenset(lost)))
        yield from islice(machine.run(), given, None)
        finish(stream)
        return machine.result


def unpickle_all(stream: Stream, benchmark: str) -> Any:
    """What the pickle at `stream` holds: up to `stream.ALLOWANCE` bytes of the file, weights aside. See `unpickle`."""
    machine = Machine(stream, benchmark, None, Memo())
    for _ in machine.run():
        pass
    return machine.result
