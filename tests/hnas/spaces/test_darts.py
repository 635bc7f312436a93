"""DARTS: genotypes, canonical forms and networks, against DARTS' own unpruned network, rebuilt slowly here."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hnas import UsageError, compute_metrics, search_spaces
from hnas.spaces import SearchSpace, Spelled, definition_of, key_of, space_of
from hnas.spaces.darts.canonical import additions, canonical_darts_cell
from hnas.spaces.darts.genotype import (
    FURTHER_OPERATIONS,
    OPERATIONS,
    CellGenotype,
    Genotype,
    from_suite_zero,
    genotype_of,
    parse_genotype,
)
from hnas.spaces.darts.layout import places
from hnas.spaces.darts.network import _dropped as dropped
from hnas.spaces.darts.published import NAMED, depth, genotype, width
from hnas.spaces.darts.space import DARTS, canonical_cells
from tests.support.networks import batch, shake
from tests.support.references import agrees, check_invariants, reference_scalars, reference_summed

SPACE = DARTS()
ALL = OPERATIONS + FURTHER_OPERATIONS
#: The smallest network with all kinds of cell positions: stem, reduction after normal, normal after reduction.
SMALL = {"classes": 5, "channels": 2, "cells": 4}
V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


@st.composite
def cells(draw: st.DrawFn, operations: tuple[str, ...] = ALL, most: int = 5) -> CellGenotype:
    nodes = draw(st.integers(1, most))
    edges = [
        (draw(st.sampled_from(operations)), draw(st.integers(0, node - 1)))
        for node in range(2, 2 + nodes)
        for _ in range(2)
    ]
    concat = draw(st.sets(st.integers(2, 1 + nodes), min_size=1))
    return CellGenotype(tuple(edges), tuple(sorted(concat)))


genotypes = st.builds(Genotype, cells(), cells())


@pytest.fixture(scope="module")
def suite_zero() -> dict[str, dict[str, float]]:
    """The 250 rows of NAS-Bench-Suite-Zero by encoding."""
    folder = os.environ.get("HNAS_TEST_DATA")
    if not folder:
        pytest.skip("HNAS_TEST_DATA is unset; it names the folder with nasbench301/zc_nasbench301.json")
    rows: dict[str, dict[str, float]] = json.loads((Path(folder) / "nasbench301" / "zc_nasbench301.json").read_text())[
        "nasbench301"
    ]["cifar10"]
    return rows


# DARTS' own network: an operation on every edge, with or without effect, each with its own ReLU.


def relu_conv_bn(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class FactorizedReduce(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], 1))


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def depthwise(c: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False)
    return [nn.ReLU(), conv, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]


def reference_operation(name: str, c: int, stride: int) -> nn.Module:
    match name.split("_"):
        case ["none"]:
            return Zero(stride)
        case ["max", "pool", _]:
            return nn.MaxPool2d(3, stride, 1)
        case ["avg", "pool", _]:
            return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        case ["skip", _]:
            return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
        case ["sep", _, size]:
            return nn.Sequential(*depthwise(c, int(size[0]), stride, 1), *depthwise(c, int(size[0]), 1, 1))
        case ["dil", _, size]:
            return nn.Sequential(*depthwise(c, int(size[0]), stride, 2))
        case _:
            row = nn.Conv2d(c, c, (1, 7), (1, stride), (0, 3), bias=False)
            column = nn.Conv2d(c, c, (7, 1), (stride, 1), (3, 0), bias=False)
            return nn.Sequential(nn.ReLU(), row, column, nn.BatchNorm2d(c))


class ReferenceCell(nn.Module):
    def __init__(self, cell: CellGenotype, blocks: list[int], inputs: tuple[int, int], c: int, **kind: bool) -> None:
        super().__init__()
        self.cell, self.blocks, self.reduction = cell, blocks, kind["reduction"]
        first = FactorizedReduce(inputs[0], c) if kind["after_reduction"] else relu_conv_bn(inputs[0], c)
        self.inputs = nn.ModuleList([first, relu_conv_bn(inputs[1], c)])
        self.operations = nn.ModuleList(
            reference_operation(name, c, 2 if self.reduction and state < 2 else 1) for name, state in cell.edges
        )

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = [self.inputs[0](s0), self.inputs[1](s1)]
        for a in range(0, len(self.cell.edges), 2):
            states.append(sum(self.operations[e](states[self.cell.edges[e][1]]) for e in (a, a + 1)))
        return torch.cat([states[node] for node in self.blocks], 1)


class ReferenceNetwork(nn.Module):
    """`blocks` gives the nodes of the normal and the reduction cell in the order of concatenation."""

    def __init__(
        self, g: Genotype, *, classes: int, channels: int, cells: int, blocks: tuple[list[int], list[int]] | None = None
    ) -> None:
        super().__init__()
        normal_blocks, reduce_blocks = blocks or (list(g.normal.concat), list(g.reduce.concat))
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels))
        self.cells = nn.ModuleList()
        previous, last, c, after = 3 * channels, 3 * channels, channels, False
        for i in range(cells):
            reduction = i in (cells // 3, 2 * cells // 3)
            c *= 1 + reduction
            cell, order = (g.reduce, reduce_blocks) if reduction else (g.normal, normal_blocks)
            self.cells.append(
                ReferenceCell(cell, order, (previous, last), c, reduction=reduction, after_reduction=after)
            )
            previous, last, after = last, c * len(order), reduction
        self.classifier = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        s0 = s1 = self.stem(images)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        return self.classifier(F.adaptive_avg_pool2d(s1, 1).flatten(1))


def copy(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters between modules that hold them in the same order."""
    ours, theirs = ([*m.parameters()] for m in (source, target))
    if isinstance(source, nn.Module) and hasattr(source, "pointwise"):  # ours lists all depthwise weights first
        ours = [
            p
            for depthwise_conv, pointwise in zip(source.depthwise, source.pointwise, strict=True)
            for p in [*depthwise_conv.parameters(), *pointwise.parameters()]
        ]
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p.data)


def operation_kind(name: str, stride: int) -> str | None:
    """Return the name of a layer in the canonical form, from the operation alone; None for one without weights."""
    if name == "none" or "pool" in name or (name == "skip_connect" and stride == 1):
        return None
    short = {"skip_connect": "skip", "conv_7x1_1x7": "conv7"}.get(name) or name[:3] + name[-1]
    return short + ("/2" if stride == 2 else "")


def match(ours: nn.Module, theirs: ReferenceCell) -> tuple[dict[int, int], list[int]]:
    """Edges of the reference cell for the layers of ours, and its nodes for our blocks, so that both compute the same.

    Layers are dealt out in order, each to an edge of its kind whose state has the values that the layer reads. If there
    are several such edges, all are tried. Edges without a layer keep their own weights, which must not matter.
    """
    c = ours.channels
    x = [torch.randn(2, c, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    cell, edges = ours.cell, theirs.cell.edges
    for i in range(2):
        theirs.inputs[i] = nn.Identity()
    kinds = [operation_kind(name, 2 if cell.reduction and state < 2 else 1) for name, state in edges]
    with torch.no_grad():
        blocks = run_cell(ours, x)
        read: list[Tensor] = []
        hooks = [layer.register_forward_pre_hook(lambda _, args: read.append(args[0])) for layer in ours.layers]
        run_cell(ours, x)
        for hook in hooks:
            hook.remove()

        def states() -> list[Tensor]:
            values = list(x)
            for a in range(0, len(edges), 2):
                values.append(sum(theirs.operations[e](values[edges[e][1]]) for e in (a, a + 1)))
            return values

        def deal(k: int, dealt: dict[int, int]) -> tuple[dict[int, int], list[int]] | None:
            values = states()
            if k == len(ours.layers):
                order: list[int] = []
                for block in blocks:
                    found = [n for n in theirs.cell.concat if n not in order and close(values[n], block)]
                    if not found:
                        return None
                    order.append(found[0])
                return dealt, order
            for e, kind in enumerate(kinds):
                if (
                    e not in dealt.values()
                    and kind == cell.layers[k].kind
                    and close(F.relu(values[edges[e][1]]), read[k])
                ):
                    kept = [p.detach().clone() for p in theirs.operations[e].parameters()]
                    copy(ours.layers[k], theirs.operations[e])
                    if found := deal(k + 1, {**dealt, k: e}):
                        return found
                    for p, q in zip(theirs.operations[e].parameters(), kept, strict=True):
                        p.data.copy_(q)
            return None

        result = deal(0, {})
    assert result, f"no assignment of {cell} to {edges}"
    return result


def run_cell(ours: nn.Module, states: list[Tensor]) -> list[Tensor]:
    kept, ours.inputs = ours.inputs, nn.ModuleDict({key: nn.Identity() for key in ours.inputs})
    try:
        return ours(*states, 0.0)
    finally:
        ours.inputs = kept


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-10 * (1 + b.abs().max()))


def assert_same_network(g: Genotype) -> None:
    """Check in float64 that the canonical form's network equals the genotype's network, built edge by edge."""
    network = SPACE.network(str(g), **SMALL).double()
    redraw_scales(network)
    dealt: list[tuple[dict[int, int], list[int]]] = []
    for i, cell in ((0, g.normal), (1, g.reduce)):
        ours = network.cells[i]
        theirs = ReferenceCell(
            cell, list(cell.concat), (2, 2), ours.channels, reduction=bool(i), after_reduction=False
        ).double()
        redraw_scales(theirs)
        dealt.append(match(ours, theirs))
    reference = ReferenceNetwork(g, **SMALL, blocks=(dealt[0][1], dealt[1][1])).double()
    redraw_scales(reference)
    copy(network.stem, reference.stem)
    copy(network.classifier, reference.classifier)
    for ours, theirs in zip(network.cells, reference.cells, strict=True):
        for state, way in ours.inputs.items():
            copy(way, theirs.inputs[int(state)])
        for k, e in dealt[theirs.reduction][0].items():
            copy(ours.layers[k], theirs.operations[e])
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        ours, theirs = network(images), reference(images)
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-9), f"{g}: off by {(ours - theirs).abs().max():.3g}"


def redraw_scales(network: nn.Module) -> None:
    """Draw batch norm scales, so that a mixed-up batch norm shows; shifts stay zero, as at initialisation."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)


def logits(arch: str, **sizes: int) -> Tensor:
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return SPACE.network(arch, **{**SMALL, **sizes})(images)


# Genotypes as strings.


def test_genotypes_are_read_as_darts_prints_them() -> None:
    parsed = parse_genotype(V2)
    assert parsed.normal.edges[5] == ("skip_connect", 0)
    assert parsed.normal.nodes[3] == (("skip_connect", 0), ("dil_conv_3x3", 2))
    assert parsed.normal.concat == parsed.reduce.concat == (2, 3, 4, 5)
    assert str(parsed) == V2 == SPACE.key(V2) == SPACE.definition(V2)


SPELLINGS = {
    "a list": V2.replace("range(2, 6)", "[2, 3, 4, 5]"),
    "a tuple in another order": V2.replace("range(2, 6)", "(5, 3, 4, 2)"),
    "double quotes": V2.replace("'", '"'),
    "no blanks": V2.replace(" ", ""),
    "lines": V2.replace(", (", ",\n\t (").replace("(normal", "(\n  normal").replace("]", " , ]"),
    "outer blanks": f"\n {V2}  ",
    "fields in another order": "Genotype(" + V2[V2.index("reduce=") : -1] + ", " + V2[9 : V2.index("reduce=")] + ")",
    "its name": "DARTS_V2",
    "its name in another case": " darts-v2\n",
    "DARTS' own short name": "DARTS",
}


@pytest.mark.parametrize("arch", SPELLINGS.values(), ids=SPELLINGS)
def test_all_spellings_have_the_same_key(arch: str) -> None:
    assert SPACE.key(arch) == SPACE.definition(arch) == key_of(SPACE, arch) == definition_of(SPACE, arch) == V2


@given(genotypes)
def test_every_genotype_survives_printing_and_parsing(g: Genotype) -> None:
    assert parse_genotype(str(g)) == g
    assert SPACE.key(str(g)) == str(g)


MALFORMED = {
    "empty": ("", "a DARTS genotype must look like Genotype"),
    "a name": ("resnet18", "a DARTS genotype must .* got 'resnet18'"),
    "another space's": ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "a DARTS genotype must look like"),
    "cut off": (V2[:200], "a DARTS genotype must look like"),
    "code": ("Genotype(normal=__import__('os').getcwd())", "a DARTS genotype must look like"),
    "a call in its place": (V2.replace("range(2, 6)", "open(2, 6)"), r"normal_concat .*range\(2, 6\) or a list"),
    "a range with a step": (V2.replace("range(2, 6)", "range(2, 6, 1)"), "normal_concat"),
    "too long": (V2 + " " * 4000, r"at most 4000 characters"),
    "no reduction cell": (V2[: V2.index(", reduce=")] + ")", "must have the fields normal, normal_concat, reduce"),
    "a field twice": (V2[:-1] + ", normal=[])", "a DARTS genotype must|each once"),
    "an unknown field": (V2.replace("reduce_concat", "concat"), "must have the fields"),
    "fields without names": (V2.replace("normal=", "", 1), "must have the fields"),
    "an edge too few": (V2.replace("('skip_connect', 0), ('dil", "('dil"), "normal .* two edges per node, .* got 7"),
    "no edge": (V2.replace(V2[V2.index("normal=") + 7 : V2.index(", normal_c")], "[]"), "normal .* got 0 edges"),
    "too many nodes": (V2.replace("('sep_conv_3x3', 0)", ", ".join(["('none', 0)"] * 7), 1), "normal .* got 14 edges"),
    "edges that are no pairs": (V2.replace("('sep_conv_3x3', 0)", "('sep_conv_3x3', 0, 1)", 1), "normal .*pairs"),
    "edges that are no tuples": (V2.replace("('sep_conv_3x3', 0)", "'sep_conv_3x3'", 1), "normal .*pairs"),
    "a state that is a truth value": (V2.replace("3x3', 0)", "3x3', False)", 1), "normal .*pairs"),
    "a state of many digits": (V2.replace("3x3', 0)", f"3x3', {'9' * 900})", 1), "normal .*pairs"),
    "a negative state": (V2.replace("3x3', 0)", "3x3', -1)", 1), "a DARTS genotype must look like"),
    "a state that is not earlier": (V2.replace("t', 2)", "t', 3)", 1), "node 3 in reduce .* 0 to 2, got 3"),
    "an unknown operation": (V2.replace("sep_conv_3x3", "conv_3x3", 1), "normal .*'conv_3x3'; choose from none, max"),
    "nothing concatenated": (V2.replace("range(2, 6)", "[]"), r"normal .* must concatenate .*got \[\]"),
    "a cell input concatenated": (V2.replace("range(2, 6)", "range(1, 6)"), r"normal .* 2 to 5, got \[1, 2, "),
    "a node concatenated twice": (V2.replace("range(2, 6)", "[2, 2]"), r"normal .* distinct nodes .*got \[2, 2\]"),
    "a node that is not there": (V2.replace("range(2, 6)", "[2, 6]"), "normal .*2 to 5"),
}  # fmt: skip


@pytest.mark.parametrize(("arch", "what"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.filterwarnings("error")
def test_a_malformed_genotype_is_refused_in_one_sentence(arch: str, what: str) -> None:
    for use in (SPACE.canonical, SPACE.key, SPACE.describe, SPACE.network):
        with pytest.raises(UsageError, match=f"(?s){what}") as caught:
            use(arch)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


@given(st.text() | st.text("Genotype(normal=[]'_,0123) \"\n", max_size=300))
@pytest.mark.filterwarnings("error")
def test_any_text_is_an_architecture_or_raises_usage_error(text: str) -> None:
    try:
        SPACE.canonical(text)
    except UsageError:
        return
    assert SPACE.key(text)


@given(st.integers(0, len(V2) - 1), st.text("Gn=[]()'_,012 6xé\0\\", max_size=3))
@pytest.mark.filterwarnings("error")
def test_damaged_genotypes_are_architectures_or_raise_usage_error(at: int, text: str) -> None:
    for damaged in (V2[:at] + text + V2[at:], V2[:at] + text + V2[at + 1 :]):
        try:
            key = SPACE.key(damaged)
        except UsageError:
            continue
        assert SPACE.key(key) == key


@pytest.mark.parametrize(
    "nested", ["(" * 1500, "[" * 3000, "Genotype(" * 400, "Genotype(normal=" + "(" * 90 + ")" * 90 + ")"]
)
def test_deep_nesting_is_refused(nested: str) -> None:
    with pytest.raises(UsageError):
        SPACE.canonical(nested)


# NAS-Bench-Suite-Zero's encoding.


def test_all_250_encodings_of_suite_zero_are_architectures(suite_zero: Any) -> None:
    assert len(suite_zero) == 250
    for code in suite_zero:
        arch = from_suite_zero(code)
        assert SPACE.key(arch) == arch
        assert SPACE.canonical(arch)
        nested = [[tuple(edge) for edge in cell] for cell in json.loads(code.replace("(", "[").replace(")", "]"))]
        parsed = parse_genotype(arch)
        assert [
            [(state, OPERATIONS.index(name) - 1) for name, state in cell.edges]
            for cell in (parsed.normal, parsed.reduce)
        ] == nested
        assert from_suite_zero(nested) == arch


def test_encodings_number_operations_in_darts_order_without_none() -> None:
    cell = [(0, 0), (1, 1), (0, 2), (2, 3), (1, 4), (3, 5), (4, 6), (0, 0)]
    parsed = parse_genotype(from_suite_zero([cell, cell]))
    assert parsed.normal == parsed.reduce
    assert parsed.normal.edges == (
        ("max_pool_3x3", 0), ("avg_pool_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 2), ("sep_conv_5x5", 1),
        ("dil_conv_3x3", 3), ("dil_conv_5x5", 4), ("max_pool_3x3", 0),
    )  # fmt: skip


@pytest.mark.parametrize(
    "encoding",
    [
        "", "[]", "[[(0, 1)], [(0, 1)]]", "[[(0, 7), (1, 0)] * 4] * 2", "9" * 5000, "__import__('os')", "[1, 2]",
        "((((", [[(0, 7)] * 8] * 2, [[(0, -1)] * 8] * 2, [[(5, 0)] * 8] * 2, [[(0, 0.0)] * 8] * 2, [[(0, 0)] * 8] * 3,
        7, None, [[(0, 0)] * 10] * 2, {"normal": 1}, "[[(0, 0)]*8]*2",
    ],
)  # fmt: skip
def test_a_malformed_encoding_is_refused(encoding: Any) -> None:
    with pytest.raises(UsageError):
        from_suite_zero(encoding)


# Canonical forms.


def renumbered(cell: CellGenotype, rng: random.Random) -> CellGenotype:
    """Return the cell with its nodes in another topological order, and each node's inputs in any order."""
    pending = list(enumerate(cell.nodes, start=2))
    new = {0: 0, 1: 1}
    edges: list[tuple[str, int]] = []
    while pending:
        ready = [item for item in pending if all(state in new for _, state in item[1])]
        node, pair = rng.choice(ready)
        pending.remove((node, pair))
        new[node] = len(new)
        edges += rng.sample([(name, new[state]) for name, state in pair], 2)
    return CellGenotype(tuple(edges), tuple(sorted(new[node] for node in cell.concat)))


@given(genotypes, st.integers(0, 2**32))
def test_reordering_inputs_and_nodes_keeps_the_canonical_form(g: Genotype, seed: int) -> None:
    rng = random.Random(seed)
    other = Genotype(renumbered(g.normal, rng), renumbered(g.reduce, rng))
    assert SPACE.canonical(str(other)) == SPACE.canonical(str(g))


@settings(max_examples=15)
@given(genotypes, st.integers(0, 2**32))
def test_reordering_inputs_and_nodes_keeps_the_network_bit_for_bit(g: Genotype, seed: int) -> None:
    rng = random.Random(seed)
    other = Genotype(renumbered(g.normal, rng), renumbered(g.reduce, rng))
    assert torch.equal(logits(str(other)), logits(str(g)))


@settings(max_examples=40)
@given(genotypes)
def test_the_canonical_network_matches_the_genotype(g: Genotype) -> None:
    assert_same_network(g)


@pytest.mark.parametrize("arch", [*NAMED, *SPACE.sample(4, seed=5)])
def test_networks_of_published_and_sampled_cells_match_darts(arch: str) -> None:
    assert_same_network(genotype(arch))


def test_different_canonical_forms_are_different_functions() -> None:
    archs = [*NAMED, *SPACE.sample(40, seed=6)]
    found = {tuple(logits(arch).flatten().tolist()): arch for arch in archs}
    assert len(found) == len(archs)


def cell_key(edges: list[tuple[str, int]], concat: tuple[int, ...] | None = None, *, reduction: bool = False) -> str:
    everything = tuple(range(2, 2 + len(edges) // 2))
    return str(canonical_darts_cell(CellGenotype(tuple(edges), concat or everything), reduction=reduction))


SEP, DIL, SKIP, MAX, AVG, NONE = (
    "sep_conv_3x3", "dil_conv_5x5", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "none",
)  # fmt: skip


def test_keys_spell_out_the_cell() -> None:
    edges = [(SEP, 0), (SKIP, 1), (AVG, 2), (DIL, 2), (MAX, 0), (MAX, 0)]
    assert cell_key(edges) == "a=sep3(x0);b=dil5(x1+a);y=2max3(x0),b+avg3(x1+a),x1+a"
    assert cell_key(edges, reduction=True) == ("a=sep3/2(x0);b=skip/2(x1);c=dil5(a+b);y=2max3/2(x0),a+b,c+avg3(a+b)")


def test_unused_nodes_are_dropped_with_what_only_they_read() -> None:
    live = [(SEP, 0), (SEP, 1)]
    assert cell_key([*live, (DIL, 0), (AVG, 2)], (2,)) == cell_key(live)
    assert cell_key([*live, (DIL, 0), (AVG, 2), (DIL, 3), (SEP, 3)], (2,)) == cell_key(live)


def test_nodes_that_only_feed_others_stay() -> None:
    assert cell_key([(SEP, 0), (SEP, 1), (DIL, 2), (NONE, 0)], (3,)) == "a=sep3(x0);b=sep3(x1);c=dil5(a+b);y=c"


def test_readers_of_zeros_are_zero_and_zero_blocks_stay_blocks() -> None:
    dead = [(NONE, 0), (NONE, 1), (SEP, 2), (AVG, 2)]
    assert cell_key([*dead, (SEP, 3), (SKIP, 0)]) == "y=0,0,x0"
    assert cell_key([*dead, (SEP, 3), (SKIP, 0)], reduction=True) == "a=skip/2(x0);y=0,0,a"


def test_skips_are_sums_except_of_inputs_of_reduction_cells() -> None:
    chain = [(SEP, 0), (SKIP, 1), (SKIP, 2), (NONE, 0)]
    assert cell_key(chain) == "a=sep3(x0);y=x1+a,x1+a"
    assert cell_key(chain, reduction=True) == "a=sep3/2(x0);b=skip/2(x1);y=a+b,a+b"
    assert cell_key([(SKIP, 0), (SKIP, 0)]) == "y=2x0"
    assert cell_key([(SKIP, 0), (SKIP, 0)], reduction=True) == "a=skip/2(x0);b=skip/2(x0);y=a+b"


def test_layers_of_one_value_stay_distinct_and_shared_layers_stay_one() -> None:
    assert cell_key([(SEP, 0), (SEP, 0)]) == "a=sep3(x0);b=sep3(x0);y=a+b"
    assert cell_key([(SEP, 0), (NONE, 0), (SKIP, 2), (SKIP, 2)], (3,)) == "a=sep3(x0);y=2a"


@pytest.mark.parametrize(
    "wiring", [[0, 0] * 5, [0, 1] * 5, [0, 0, 0, 0, 2, 2, 3, 3, 4, 4], [0, 1, 0, 1, 2, 3, 2, 3, 2, 3]]
)
def test_the_most_symmetric_cells_are_canonicalised_quickly(wiring: list[int]) -> None:
    rng = random.Random(0)
    cell = CellGenotype(tuple((SEP, state) for state in wiring), (2, 3, 4, 5, 6))
    keys = {str(canonical_darts_cell(renumbered(cell, rng), reduction=False)) for _ in range(4)}
    assert len(keys) == 1


@given(cells())
def test_additions_sum_up_to_their_values(cell: CellGenotype) -> None:
    canonical = canonical_darts_cell(cell, reduction=False)
    made: set[Any] = set()
    for value, (base, rest) in additions(canonical).items():
        total = dict(base)
        for term, n in rest:
            total[term] = total.get(term, 0) + n
        assert total == dict(value)
        assert not base or base in made
        assert rest
        made.add(value)


# The space.


def test_the_space_is_installed_and_follows_the_protocols() -> None:
    space = search_spaces["darts"]
    assert isinstance(space, SearchSpace)
    assert isinstance(space, Spelled)
    assert (space.name, space.size, space.channels, space.cells) == ("darts", None, 16, 5)
    assert space_of("DARTS_V1") is space
    assert space_of(V2) is space


def test_the_space_cannot_be_enumerated() -> None:
    with pytest.raises(UsageError, match="cannot be enumerated"):
        SPACE.enumerate()


def test_samples_are_distinct_and_reproducible() -> None:
    sample = SPACE.sample(300, seed=3)
    assert len({SPACE.canonical(arch) for arch in sample}) == 300
    assert sample == SPACE.sample(300, seed=3)
    assert sample[:50] == SPACE.sample(50, seed=3)
    assert not set(sample) & set(SPACE.sample(300, seed=4))
    for arch in sample:
        assert SPACE.key(arch) == arch
        for cell in (parse_genotype(arch).normal, parse_genotype(arch).reduce):
            assert cell.concat == (2, 3, 4, 5)
            assert all(a[1] < b[1] for a, b in cell.nodes)


def test_a_sample_is_uniform_over_inputs_and_operations() -> None:
    sample = [parse_genotype(arch).reduce for arch in SPACE.sample(1000, seed=0)]
    for node in range(4):
        pairs = list(itertools.combinations(range(node + 2), 2))
        counts = dict.fromkeys(pairs, 0)
        names = dict.fromkeys(OPERATIONS[1:], 0)
        for cell in sample:
            counts[tuple(state for _, state in cell.nodes[node])] += 1  # type: ignore[index]
            names[cell.nodes[node][1][0]] += 1
        for observed in (counts, names):
            expected = 1000 / len(observed)
            assert sum((n - expected) ** 2 / expected for n in observed.values()) < 30


@pytest.mark.parametrize("n", [0, -1])
def test_an_empty_sample_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match="ask for 1 or more"):
        SPACE.sample(n, seed=0)


def test_spaces_load_no_torch_until_a_network_is_built() -> None:
    script = """
import sys
from hnas import search_spaces
space = search_spaces["darts"]
for arch in [*space.sample(3, seed=0), "ENAS"]:
    space.canonical(arch), space.key(arch), space.describe(arch)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# Published cells.

#: Table 2 of HNAS: width, nodes, depth.
TABLE_2 = {
    "NASNet": (5.0, 5, 2), "AmoebaNet": (4.0, 5, 4), "ENAS": (5.0, 5, 2), "DARTS_V2": (3.5, 4, 3), "SNAS": (4.0, 4, 2),
    "WIDE": (4.0, 4, 2), "DEEP": (1.5, 4, 5),
}  # fmt: skip


@pytest.mark.parametrize(("name", "row"), TABLE_2.items())
def test_width_and_depth_match_table_2(name: str, row: tuple[float, int, int]) -> None:
    cell = genotype(name).normal
    assert (width(cell), len(cell.nodes), depth(cell)) == row
    described = SPACE.describe(name)
    assert described["name"] == name
    assert (described["width"], described["depth"]) == (row[0], row[2])


def test_named_cells_are_found_in_any_case() -> None:
    named = SPACE.named()
    assert set(named) == {*TABLE_2, "DARTS_V1"}
    assert len({SPACE.canonical(arch) for arch in named.values()}) == len(named)
    for name, arch in named.items():
        assert SPACE.key(arch) == arch
        for spelling in (name, name.lower(), f" {name.upper()} ", name.replace("_", "-")):
            assert SPACE.key(spelling) == arch
    assert SPACE.key("NASNet-A") == named["NASNet"]


# Static columns.

#: Parameters of DARTS' own evaluation model without auxiliary head, 36 channels and 20 cells. DARTS publishes 3.3M for
#: its second-order cell; AmoebaNet-A has 3.2M and NASNet-A 3.3M in networks of their own papers.
PARAMS = {"DARTS_V2": 3_349_342, "DARTS_V1": 3_169_414, "NASNet": 3_830_950, "AmoebaNet": 3_145_078}


@pytest.mark.parametrize(("name", "params"), PARAMS.items())
def test_parameters_of_the_evaluation_network_match_darts(name: str, params: int) -> None:
    reference = ReferenceNetwork(genotype(name), classes=10, channels=36, cells=20)
    assert sum(p.numel() for p in reference.parameters()) == SPACE.describe(name)["params"] == params


@pytest.mark.parametrize("arch", [*NAMED, *SPACE.sample(2, seed=1)])
@pytest.mark.parametrize(("channels", "layers"), [(4, 7), (2, 2), (3, 1)])
def test_describe_matches_torchs_counts(arch: str, channels: int, layers: int) -> None:
    network = SPACE.evaluation_network(arch, channels=channels, layers=layers, auxiliary=False).eval()
    described = SPACE.describe(arch, channels=channels, cells=layers, image_size=16)
    assert described["params"] == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 16, 16))
    assert described["flops"] == counter.get_total_flops() / 2


def test_describe_matches_torchs_counts_at_full_size() -> None:
    network = SPACE.evaluation_network("DARTS_V2").eval()
    assert sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary")) == 3_349_342
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert SPACE.describe("DARTS_V2")["flops"] == counter.get_total_flops() / 2


@given(genotypes)
@settings(max_examples=25)
def test_columns_of_any_genotype_match_its_network(g: Genotype) -> None:
    network = SPACE.network(str(g), **SMALL)
    described = SPACE.describe(str(g), image_size=8, **SMALL)
    assert described["params"] == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(2, 3, 8, 8))
    assert described["flops"] == counter.get_total_flops() / 4


def test_parameters_and_flops_explain_those_of_suite_zero(suite_zero: Any) -> None:
    """Its networks have 32 channels, 8 cells, and no scale and shift in the batch norms of operations.

    Its flops are multiply-adds and, for each element, 1 of a ReLU or such a batch norm, 2 of a batch norm with scale
    and shift, 9 of a pooling and 1 of the batch norm after it; 81 for each output of the global pooling.
    """
    stem = 2 * 96 * 32**2
    for code, row in suite_zero.items():
        arch = from_suite_zero(code)
        normal, reduction = canonical_cells(arch)
        without, more = 0, stem
        for place in places(normal, reduction, 32, 8):
            c, pixels = place.channels, (32 >> place.halvings) ** 2
            read = 4 * pixels if place.cell.reduction else pixels
            more += sum(
                inputs * read * (4 if halves else 1) + 2 * c * read
                for inputs, halves in zip(place.inputs, (place.halves_first, False), strict=True)
            )
            cell = parse_genotype(arch).reduce if place.cell.reduction else parse_genotype(arch).normal
            for name, state in cell.edges:
                strided = place.cell.reduction and state < 2
                if "pool" in name:
                    more += 10 * c * pixels
                elif name != "skip_connect" or strided:
                    norms = 2 if name.startswith("sep") else 1
                    without += norms * 2 * c
                    more += norms * c * pixels + (norms - 1) * c * pixels + c * (read if strided else pixels)
        more += place.outputs * 81
        described = SPACE.describe(arch, channels=32, cells=8)
        assert round(row["params"] * 1e6) == described["params"] - without
        assert round(row["flops"] * 1e6) == described["flops"] + more


# The networks.


@pytest.mark.parametrize("side", [4, 12, 32])
def test_images_of_any_side_that_can_be_halved_twice_are_accepted(side: int) -> None:
    network = SPACE.network("AmoebaNet", **SMALL)
    assert network(torch.randn(2, 3, side, side)).shape == (2, 5)


@pytest.mark.parametrize("side", [0, 2, 7, 30, 33])
def test_images_of_other_sides_are_refused(side: int) -> None:
    with pytest.raises(UsageError, match=f"multiple of 4, got {side}"):
        SPACE.network("DARTS", **SMALL)(torch.randn(2, 3, side, side))
    with pytest.raises(UsageError, match="multiple of 4"):
        SPACE.describe("DARTS", image_size=side)


@pytest.mark.parametrize("size", [{"classes": 0}, {"channels": 0}, {"cells": 0}, {"channels": 5000}])
def test_impossible_network_sizes_are_refused(size: dict[str, int]) -> None:
    for use in (SPACE.network, SPACE.describe):
        with pytest.raises(UsageError, match="must be between 1 and 4096, got"):
            use("DARTS", **size)


def test_reduction_cells_are_at_one_third_and_two_thirds() -> None:
    network = SPACE.network("DARTS", channels=4, cells=5)
    assert [cell.cell.reduction for cell in network.cells] == [False, True, False, True, False]
    assert [cell.channels for cell in network.cells] == [4, 8, 8, 16, 16]


def test_networks_are_bit_identical_per_seed() -> None:
    first, again, other = (logits("SNAS", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dead_cells_give_constant_logits() -> None:
    nothing = str(genotype_of([(NONE, 0), (NONE, 1)] * 2, [(NONE, 0), (NONE, 1)] * 2))
    out = logits(nothing)
    assert torch.equal(out, out[:1].expand_as(out))
    images, labels = batch((3, 8, 8))
    assert compute_metrics(SPACE.network(nothing, **SMALL).double(), images, labels).status == "constant"


def test_gradients_reach_every_weight_of_the_network() -> None:
    for arch in [*NAMED, *SPACE.sample(3, seed=9)]:
        network = SPACE.evaluation_network(arch, classes=5, channels=2, layers=4, auxiliary=False, drop_path=0)
        network(torch.randn(4, 3, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize("arch", ["AmoebaNet", "DEEP", SPACE.sample(1, seed=8)[0]])
def test_columns_match_autograd(arch: str) -> None:
    network = SPACE.network(arch, classes=5, channels=2, cells=3).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shake(network)
    images, labels = batch((3, 8, 8), size=7)
    m = compute_metrics(network, images, labels)
    check_invariants(m)
    agrees(m, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


def test_the_memory_layout_of_images_does_not_matter_inside() -> None:
    network = SPACE.network("DARTS", **SMALL)
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.append(out))
    network(torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


# The evaluation network.


def test_the_evaluation_network_has_a_second_classifier_in_training_only() -> None:
    network = SPACE.evaluation_network("DARTS", classes=7, channels=2, layers=6)
    images = torch.randn(2, 3, 32, 32)
    first, second = network.train()(images)
    assert first.shape == second.shape == (2, 7)
    assert network.eval()(images).shape == (2, 7)
    assert network.drop_path == 0.2
    (first.sum() + second.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_auxiliary_head_matches_darts() -> None:
    network = SPACE.evaluation_network("DARTS", channels=2, layers=6).train()
    ours = network.auxiliary
    theirs = nn.Sequential(
        nn.ReLU(), nn.AvgPool2d(5, 3, count_include_pad=False), nn.Conv2d(32, 128, 1, bias=False), nn.BatchNorm2d(128),
        nn.ReLU(), nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(), nn.Flatten(), nn.Linear(768, 10),
    )  # fmt: skip
    copy(ours, theirs)
    x = torch.randn(4, 32, 8, 8)
    assert torch.allclose(ours(torch.relu(x)), theirs(x), atol=1e-5)


def test_images_too_small_for_the_auxiliary_head_are_refused() -> None:
    network = SPACE.evaluation_network("DARTS", channels=2, layers=6)
    with pytest.raises(UsageError, match=r"at least 32 pixels, got 8; .*auxiliary=False"):
        network(torch.randn(2, 3, 8, 8))
    assert network.eval()(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_without_drop_path_the_evaluation_network_equals_the_network() -> None:
    for arch in ("DARTS", "NASNet", *SPACE.sample(3, seed=4)):
        a = SPACE.network(arch, classes=5, channels=2, cells=4).double()
        b = SPACE.evaluation_network(arch, classes=5, channels=2, layers=4, auxiliary=False).double()
        b.drop_path = 0.0
        if [len(c.layers) for c in a.cells] == [len(c.layers) for c in b.cells]:
            copy(a, b)
            images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
            assert torch.allclose(a(images), b(images), rtol=1e-9)
        assert sum(p.numel() for p in a.parameters()) == sum(p.numel() for p in b.parameters())


def test_drop_path_drops_edges_per_sample_and_keeps_the_mean() -> None:
    x = torch.ones(4000, 2, 1, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = dropped(x, 0.3)
    assert torch.equal(out[:, 0], out[:, 1])
    assert sorted(set(out.flatten().tolist())) == pytest.approx([0, 1 / 0.7])
    assert float(out.mean()) == pytest.approx(1, abs=0.05)


def test_drop_path_acts_in_training_on_all_edges_but_skips() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SPACE.evaluation_network("SNAS", channels=2, layers=3, auxiliary=False, drop_path=0.5)
        images = torch.randn(2, 3, 8, 8)
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))
        network.train().drop_path = 0.0
        assert torch.equal(network(images), network(images))
        skips = str(genotype_of([(SKIP, 0), (SKIP, 1)] * 2, [(SKIP, 0), (SKIP, 1)] * 2))
        cell = SPACE.evaluation_network(skips, channels=2, layers=4).cells[0]
        first, second = (cell(torch.ones(2, 6, 8, 8), torch.ones(2, 6, 8, 8), 0.9) for _ in range(2))
        assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("drop_path", [-0.1, 1.0, float("nan")])
def test_an_impossible_drop_path_is_refused(drop_path: float) -> None:
    with pytest.raises(UsageError, match=r"drop_path must be .* below 1"):
        SPACE.evaluation_network("DARTS", drop_path=drop_path)
