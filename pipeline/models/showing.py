"""Describes one architecture: its sizes, its canonical form, its cells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import described
from hnas.spaces import CellGraph, Drawn, definition_of, key_of, search_spaces, space_of


@dataclass(frozen=True)
class Architecture:
    """An architecture: its key, its canonical form, its static columns, and its cells.

    `cells` is empty if the space cannot draw its cells; then `graphs` is the graph of the whole network.
    """

    space: str
    arch: str
    definition: str
    canonical: str
    columns: Mapping[str, int | float | str]
    cells: Mapping[str, CellGraph]

    @property
    def graphs(self) -> Mapping[str, CellGraph]:
        """The graphs to draw: the cells, or the network with one cell per stage, traced at 32 × 32 pixels."""
        if self.cells:
            return self.cells
        from hnas.models.network_graph import network_graph

        space = search_spaces[self.space]
        network = space.network(self.definition, classes=10, channels=space.channels, cells=1, seed=0)
        return {f"{self.space} {self.arch}": network_graph(network)}


def describe(arch: str, space: str | None = None) -> Architecture:
    """Describe `arch` of `space`, by default the first space that accepts it. Raises `UsageError`."""
    chosen = search_spaces[space] if space is not None else space_of(arch)
    return Architecture(
        space=chosen.name,
        arch=key_of(chosen, arch),
        definition=definition_of(chosen, arch),
        canonical=chosen.canonical(arch),
        columns=chosen.describe(arch),
        cells=chosen.graphs(arch) if isinstance(chosen, Drawn) else {},
    )


def architecture_text(architecture: Architecture, width: int | None = None) -> str:
    """Return an architecture as text."""
    rows = [("space", architecture.space), ("architecture", architecture.arch), ("canonical", architecture.canonical)]
    rows += [(name, _value(value)) for name, value in architecture.columns.items() if value != ""]
    for name, cell in architecture.cells.items():
        repeated = len(set(cell.nodes)) < len(cell.nodes)
        names = [f"{i} {node}" if repeated else node for i, node in enumerate(cell.nodes)]
        edges = (
            f"{names[a]} -> {names[b]}" + (f"  {operation}" if operation else "") for a, b, operation in cell.edges
        )
        rows += [(name if i == 0 else "", edge) for i, edge in enumerate(edges)]
    return described([(name, printable(text)) for name, text in rows], width)


def _value(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int | float) else value


def architecture_json(architecture: Architecture) -> str:
    """Return an architecture as JSON."""
    record = {
        "space": architecture.space,
        "arch": architecture.arch,
        "definition": architecture.definition,
        "canonical": architecture.canonical,
        "columns": dict(architecture.columns),
        "cells": {name: cell._asdict() for name, cell in architecture.cells.items()},
    }
    return json.dumps(record, indent=2)
