"""Reads pickles of benchmark files in bounded memory, without running anything that they ask for.

The file of NAS-Bench-201 is a single pickle of 4.7 GB: a dictionary of 15,625 architectures. They are yielded one by
one as the pickle builds them and then dropped together with their memo entries, except for names, which architectures
share. If a file refers to an object that has been dropped, it is read again: once to list what must be kept, and once
to yield the rest.
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
    """Read the pickle that `source()` opens, then call `finish` to check that the file ends properly.

    Yields the entries of the dictionary stored under the key `watched`, whose keys are numbers or strings, and returns
    the pickle's value with that dictionary left empty. Memory is bounded by one entry, by what comes before and after
    the dictionary (each up to `stream.ALLOWANCE` bytes of the file), and by what entries share. `source` is called
    again if the file must be read again.

    Sets become lists, an OrderedDict a dict, numpy scalars numbers, and weights `SKIPPED`.

    Raises `UsageError` if the pickle is truncated or holds anything that files of `benchmark` do not.
    """
    yielded = 0
    with closing(source()) as stream:
        machine = Machine(stream, benchmark, watched, Memo())
        try:
            for entry in machine.run():
                yielded += 1
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
        yield from islice(machine.run(), yielded, None)
        finish(stream)
        return machine.result


def unpickle_all(stream: Stream, benchmark: str) -> Any:
    """Return the value of the pickle at `stream`: up to `stream.ALLOWANCE` bytes besides weights. See `unpickle`."""
    machine = Machine(stream, benchmark, None, Memo())
    for _ in machine.run():
        pass
    return machine.result
