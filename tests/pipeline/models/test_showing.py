"""`hnas show`: the printed description of an architecture and its drawing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hnas import HnasError, search_spaces
from hnas.models.network_graph import network_graph
from hnas.pipeline.models.drawing import plot_graphs
from hnas.pipeline.models.layout import layout
from hnas.pipeline.models.showing import describe
from hnas.spaces.cell_graph import CellGraph
from tests.support.command_line import hnas
from tests.support.models import ARCHS


@pytest.mark.parametrize("space", ARCHS)
def test_an_architecture_is_described_by_its_space(space: str) -> None:
    done = hnas("show", ARCHS[space], "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    chosen = search_spaces[space]
    assert found["space"] == space
    assert found["canonical"] == chosen.canonical(ARCHS[space])
    assert found["columns"] == chosen.describe(ARCHS[space])
    text = hnas("show", ARCHS[space]).out
    assert f"params        {found['columns']['params']:,}" in text
    assert len(re.findall(" -> ", text)) == sum(len(cell["edges"]) for cell in found["cells"].values())


def test_a_graph_has_the_edges_of_its_cell() -> None:
    cell = describe(ARCHS["nasbench201"]).cells["cell"]
    assert cell.edges[:3] == ((0, 1, "nor_conv_3x3"), (0, 2, "avg_pool_3x3"), (1, 2, "nor_conv_1x1"))
    cell = describe(ARCHS["nasbench101"]).cells["cell"]
    assert cell.nodes == ("input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output")
    assert [edge[:2] for edge in cell.edges] == [(0, 1), (0, 2), (1, 3), (0, 4), (2, 4), (3, 4)]
    normal, reduction = describe("DARTS_V2").cells.values()
    assert (4, 5, "dil_conv_3x3") not in normal.edges
    assert (2, 5, "dil_conv_3x3") in normal.edges
    assert [edge for edge in reduction.edges if edge[1] == 6] == [(node, 6, "") for node in range(2, 6)]


@st.composite
def graphs(draw: st.DrawFn) -> CellGraph:
    n = draw(st.integers(2, 9))
    pairs = st.tuples(st.integers(0, n - 2), st.integers(1, n - 1)).filter(lambda pair: pair[0] < pair[1])
    edges = draw(st.lists(st.tuples(pairs, st.sampled_from(["", "conv", "none"])), max_size=16))
    return CellGraph(tuple(map(str, range(n))), tuple((a, b, name) for (a, b), name in edges))


@settings(max_examples=200)
@given(graph=graphs())
def test_texts_do_not_overlap_and_edges_point_right(graph: CellGraph) -> None:
    found = layout(graph)
    drawn = [edge for edge in graph.edges if edge[2] != "none"]
    assert [(route.source, route.target, route.operation) for route in found.routes] == drawn
    taken = [*found.nodes, *(place for route in found.routes for place in route.places[1:-1])]
    for i, one in enumerate(taken):
        for other in taken[:i]:
            assert one.layer != other.layer or abs(one.height - other.height) > 1 - 1e-6
    for route in found.routes:
        assert route.places[0] == found.nodes[route.source]
        assert route.places[-1] == found.nodes[route.target]
        layers = [place.layer for place in route.places]
        assert layers == list(range(layers[0], layers[-1] + 1))
        assert len(layers) > 1
        assert (route.named in route.places[1:-1]) if route.operation else route.named is None


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
@pytest.mark.parametrize("space", ARCHS)
def test_the_cells_of_every_space_are_drawn(space: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cells.{suffix}"
    assert hnas("show", ARCHS[space], "--plot", path).status == 0
    assert path.stat().st_size > 5000


class Plain:
    """A space that cannot draw its cells."""

    name, size, channels, cells = "plain", 1, 4, 2

    def enumerate(self) -> Iterator[str]:
        yield "plain"

    def sample(self, n: int, seed: int) -> list[str]:
        return ["plain"]

    def canonical(self, arch: str) -> str:
        if arch != "plain":
            raise HnasError("it is not plain")
        return arch

    def network(self, arch: str, *, classes: int, channels: int, cells: int, seed: int) -> nn.Module:
        return nn.Sequential(Residual(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def describe(self, arch: str) -> Mapping[str, int | float | str]:
        return {"params": 1, "flops": 2.5}


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + self.conv(torch.relu(x))


def test_the_network_is_drawn_if_the_space_draws_no_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search_spaces._spaces, "plain", Plain())
    found = describe("plain", "plain")
    assert not found.cells
    (graph,) = found.graphs.values()
    assert " ".join(graph.nodes) == "images conv2d relu conv2d add adaptive_avg_pool2d flatten linear logits"
    edges = [(0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    assert list(graph.edges) == [(source, target, "") for source, target in edges]
    done = hnas("show", "plain", "--space", "plain", "--plot", tmp_path / "network.svg")
    assert done.status == 0, done.err
    assert "flops         2.5" in done.out
    assert (tmp_path / "network.svg").stat().st_size > 5000


def test_a_network_that_cannot_be_traced_is_reported() -> None:
    class Wild(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(HnasError, match="Wild cannot be drawn") as error:
        network_graph(Wild())
    assert "\n" not in str(error.value)


def test_a_name_with_dollars_is_drawn_literally(tmp_path: Path) -> None:
    graph = CellGraph(("a$b$", "$_{x$", "c_{k}"), ((0, 1, r"$\op$"), (1, 2, "")))
    plot_graphs({"$x$": graph}, tmp_path / "x.svg")
    assert (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "must be an architecture of an installed space"),
        (("DARTS_V2", "--plot", "cells.jpg"), "must end in .png"),
        (("DARTS_V2", "--space", "dart"), "did you mean 'darts'"),
        (("DARTS_V2", "--plot", "gone/cells.svg"), "does not exist"),
    ],
)
def test_unknown_architectures_are_reported(arguments: tuple[str, ...], said: str) -> None:
    done = hnas("show", *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
