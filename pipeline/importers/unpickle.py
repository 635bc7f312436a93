"""Pickles of benchmark files, read without running anything that they ask for, and in bounded memory.

The file of NAS-Bench-201 is one pickle of 4.7 GB: a dictionary of 15,625 architectures. They are handed out one by one
as the pickle makes them and then forgotten, with what its memo holds of them, but for names, which architectures
share. Where a file does refer to something that is already forgotten, it is read again, once to list what must be kept
and once to hand out the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import islice
from typing import Any

from pipeline.importers.pickle_machine import Machine
from pipeline.importers.pickled_memo import ForgottenError, Memo
from pipeline.importers.stream import Stream


def unpickle(
    source: Callable[[], Stream], benchmark: str, watched: str
) -> Generator[tuple[Any, Any], None, tuple[Any, Stream]]:
    """Read the pickle that begins where `source()` stands; it is called again where a second reading is needed.

    Yields the entries of the dictionary that is the value of the key `watched`. Returns what the pickle holds, with that
    dictionary left empty, and the stream behind the pickle. Needs memory for an entry, for what precedes the dictionary
    and what follows it (each up to `stream.ALLOWANCE` bytes of the file), and for what entries share.

    Sets come as lists, an OrderedDict as a dict, numpy's scalars as numbers, weights as `SKIPPED`.

    Raises:
        UsageError: the pickle is truncated, or holds what no file of `benchmark` does.
    """
    machine = Machine(source(), benchmark, watched, Memo())
    given = 0
    try:
        for entry in machine.run():
            given += 1
            yield entry
    except ForgottenError:
        lost: set[int] = set()
        for _ in Machine(source(), benchmark, watched, Memo(lost=lost)).run():
            pass
        machine = Machine(source(), benchmark, watched, Memo(needed=frozenset(lost)))
        yield from islice(machine.run(), given, None)
    return machine.result, machine.stream


def unpickle_all(stream: Stream, benchmark: str) -> Any:
    """What the pickle at `stream` holds: up to `stream.ALLOWANCE` bytes of the file, weights aside. See `unpickle`."""
    machine = Machine(stream, benchmark, None, Memo())
    for _ in machine.run():
        pass
    return machine.result
