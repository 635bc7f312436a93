"""Architectures as a report keeps them: names, numbers and cells, in little room."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hnas.errors import UsageError
from hnas.optim.objective import Array
from hnas.pipeline.io.printable import printable
from hnas.spaces.cell_graph import NONE, CellGraph
from hnas.spaces.protocols import Drawn

# Whole numbers up to here are kept exactly; others have the 24 bits of float32, more digits than are shown.
_WHOLE = 2**31


@dataclass(frozen=True)
class PointSet:
    """Architectures (n) with their `columns` (n,) and, where their space draws them, their `cells` (n).

    `shown` says of each column how a reader calls it; those that are not in it are drawn, and not told.
    """

    archs: Sequence[str]
    columns: Mapping[str, Array]
    shown: Mapping[str, str]
    cells: Sequence[Mapping[str, CellGraph] | None] = ()

    def as_json(self) -> dict[str, Any]:
        """The form that report.js reads: columns in base64, structures and names of cells once each."""
        content: dict[str, Any] = {
            "names": [printable(arch) for arch in self.archs],
            "columns": {name: packed(column) for name, column in self.columns.items()},
            "shown": {name: printable(text) for name, text in self.shown.items()},
        }
        if any(self.cells):
            content |= _cells(self.cells)
        return content


def packed(values: Array) -> dict[str, str]:
    """Numbers (n,) as little-endian bytes in base64: int32 where all are whole, else float32."""
    known = np.isfinite(values)
    whole = bool(known.all()) and bool((values == np.rint(values)).all()) and bool((np.abs(values) < _WHOLE).all())
    with np.errstate(over="ignore"):  # to infinity, which is drawn nowhere
        raw = values.astype("<i4" if whole else "<f4")
    return {"type": "i4" if whole else "f4", "data": base64.b64encode(raw.tobytes()).decode()}


def cells_of(space: object, archs: Sequence[str], spelled: Mapping[str, str]) -> list[Mapping[str, CellGraph] | None]:
    """The cells of each of `archs`, None where its space draws none; `spelled` are definitions of those that have one.

    A name that the space does not take, as a store that was tampered with may have, has none either.
    """
    if not isinstance(space, Drawn):
        return []
    return [_drawn(space, spelled.get(arch, arch)) for arch in archs]


def _drawn(space: Drawn, arch: str) -> Mapping[str, CellGraph] | None:
    try:
        return space.graphs(arch)
    except UsageError:
        return None


class _Numbered:
    """Things by the order in which they were first seen."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.known.setdefault(thing, len(self.known))


def _cells(cells: Iterable[Mapping[str, CellGraph] | None]) -> dict[str, Any]:
    """Each architecture as numbers: its structure, then the names of nodes and of operations of edges, in order."""
    structures, words = _Numbered(), _Numbered()
    rows: list[list[int] | None] = []
    for graphs in cells:
        if graphs is None:
            rows.append(None)
            continue
        drawn = {name: [edge for edge in graph.edges if edge[2] != NONE] for name, graph in graphs.items()}
        structure = tuple(
            (printable(name), len(graph.nodes), tuple(edge[:2] for edge in drawn[name]))
            for name, graph in graphs.items()
        )
        row = [structures(structure)]
        for name, graph in graphs.items():
            row += [words(printable(node)) for node in graph.nodes]
            row += [words(printable(operation)) for _, _, operation in drawn[name]]
        rows.append(row)
    return {"cells": rows, "structures": list(structures.known), "words": list(words.known)}
