"""Fast reading of long runs of similar entries in a pickle.

Nearly all bytes of a benchmark are dictionaries such as `{"x-valid@0": 41.2, "x-valid@1": 48.9, …}` and
`{0: 31.4, 1: 44.0, …}`. A pickled entry is a key (a new string, one fetched from the memo, or a small integer) and the
nine bytes of a float. As long as the keys have the same length, so do the entries: they form a table of bytes, whose
columns numpy compares and converts ten times as fast as a loop over instructions. Lists of floats have no keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_FLOAT = ord("G")
_INTEGER = ord("K")
_FETCH, _FETCH_LONG = ord("h"), ord("j")
_TEXT, _SHORT_TEXT = ord("X"), 0x8C
#: The number of key bytes that begin with each instruction: none before a float.
_HEADS = {_INTEGER: 2, _FETCH: 2, _FETCH_LONG: 5, _FLOAT: 0}
#: Instructions that put the preceding string into the memo, and their lengths.
_PUTS = {ord("q"): 2, ord("r"): 5, 0x94: 1}
#: Number of rows examined together. Strings of one length come in hundreds: x-valid@100 to x-valid@199.
_ROWS, _TEXT_ROWS = 512, 128


class Run(NamedTuple):
    """Entries up to the byte `end`. Their keys are `keys`, or the memo entries `fetched`; a run of a list has neither.

    `put` lists the memo slots that the keys go to: an empty list means none, None means the next free ones.
    """

    end: int
    values: list[float]
    keys: list[Any]
    fetched: list[int]
    put: list[int] | None


class _Layout(NamedTuple):
    """The layout of an entry of `size` bytes: the columns that are the same in every entry, and its text columns."""

    size: int
    fixed: np.ndarray
    text: slice | None
    put: int


_layouts: dict[tuple[int, int, int], _Layout] = {}
_texts: dict[tuple[int, bytes], list[str]] = {}


def find_run(buffer: bytes, position: int) -> Run | None:
    """Return the run of two or more entries that begins at `position`, or None."""
    layout = _layout(buffer, position)
    if layout is None:
        return None
    size = layout.size
    ahead = min((len(buffer) - position) // size, _ROWS if layout.text is None else _TEXT_ROWS)
    # Check the second entry first, to spare numpy the single ones.
    if ahead < 2 or buffer[position + size] != buffer[position] or buffer[position + 2 * size - 9] != _FLOAT:
        return None
    rows = np.frombuffer(buffer, np.uint8, ahead * size, position).reshape(ahead, size)
    alike = (rows[:, layout.fixed] == rows[0, layout.fixed]).all(axis=1)
    count = int(alike.argmin()) or ahead
    if count < 2:
        return None
    rows = rows[:count]
    values = np.ascontiguousarray(rows[:, -8:]).view(">f8").ravel().tolist()
    end = position + count * size
    if layout.text is not None:
        keys = _keys(rows[:, layout.text])
        return None if keys is None else Run(end, values, keys, [], _puts(rows, layout))
    first = buffer[position]
    if first == _INTEGER:
        return Run(end, values, rows[:, 1].tolist(), [], [])
    if first == _FETCH:
        return Run(end, values, [], rows[:, 1].tolist(), [])
    if first == _FETCH_LONG:
        return Run(end, values, [], _numbers(rows[:, 1:5]), [])
    return Run(end, values, [], [], [])


def _puts(rows: np.ndarray, layout: _Layout) -> list[int] | None:
    if layout.put == 0:
        return []
    if layout.put == 1:
        return None
    places = rows[:, -8 - layout.put : -9]
    return _numbers(places) if layout.put == 5 else places.ravel().tolist()


def _numbers(columns: np.ndarray) -> list[int]:
    numbers: list[int] = np.ascontiguousarray(columns).view("<u4").ravel().tolist()
    return numbers


def _keys(columns: np.ndarray) -> list[str] | None:
    """Return the strings in the rows of `columns`, memoised: the same few blocks recur in every training."""
    length = columns.shape[1]
    block = columns.tobytes()
    keys = _texts.get((length, block))
    if keys is None:
        if not block.isascii():
            return None
        text = block.decode("ascii")
        keys = [text[at : at + length] for at in range(0, len(text), length)]
        if len(_texts) >= 1024:
            _texts.clear()
        _texts[length, block] = keys
    return keys


def _layout(buffer: bytes, position: int) -> _Layout | None:
    """Return the layout of the entry at `position`; None if it is not a short key followed by a float."""
    if position + 64 > len(buffer):
        return None
    first = buffer[position]
    length = put = 0
    if first in (_TEXT, _SHORT_TEXT):
        length = buffer[position + 1]
        if not 0 < length < 32 or (first == _TEXT and buffer[position + 2 : position + 5] != b"\0\0\0"):
            return None
        put = buffer[position + (5 if first == _TEXT else 2) + length]
    elif first not in _HEADS:
        return None
    layout = _layouts.get((first, length, put))
    if layout is None:
        layout = _layouts[first, length, put] = _lay_out(first, length, put)
    return layout if buffer[position + layout.size - 9] == _FLOAT else None


def _lay_out(first: int, length: int, put: int) -> _Layout:
    if first in (_TEXT, _SHORT_TEXT):
        head = 5 if first == _TEXT else 2
        puts = _PUTS.get(put, 0)
        key = head + length + puts
        fixed = [*range(head), *([head + length] if puts else []), key]
        return _Layout(key + 9, np.array(fixed), slice(head, head + length), puts)
    key = _HEADS[first]
    return _Layout(key + 9, np.array([0, key]), None, 0)
