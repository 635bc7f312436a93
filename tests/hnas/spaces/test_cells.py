"""Canonical cells against an independent evaluation over a finite field, and under rewritings that change nothing."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnas.spaces.dag.edge_cell import EdgeCell, EdgeOperations, canonical_edge_cell
from hnas.spaces.dag.expression_graph import layers_in

Edges = dict[tuple[int, int], str]

NONE, SKIP, POOL, CONV1, CONV3 = NAMES = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
CONVOLUTIONS = (CONV1, CONV3)
MEANING = EdgeOperations(SKIP, {POOL: "avg3x3"}, {CONV1: "conv1x1", CONV3: "conv3x3"})
# In this file, a cell of four nodes is written as its operations on these edges, in this order.
EDGES = tuple((i, j) for j in range(1, 4) for i in range(j))
SHORT = {"-": NONE, "s": SKIP, "p": POOL, "1": CONV1, "3": CONV3}


def cell_edges(text: str) -> Edges:
    """Parse `cell_edges("s --p31")`: the operations on the edges of `EDGES`, one letter each."""
    return dict(zip(EDGES, (SHORT[letter] for letter in text.replace(" ", "")), strict=True))


def every_cell() -> Iterator[Edges]:
    for names in product(NAMES, repeat=len(EDGES)):
        yield dict(zip(EDGES, names, strict=True))


def key(edges: Edges, nodes: int = 4) -> str:
    return str(canonical_edge_cell(nodes, edges, MEANING))


# An independent oracle: cells as functions over a finite field.
#
# A layer is a random cubic without constant term (it maps zero to zero), a pooling another one. The values of a cell at
# a random point, over all assignments of distinct layers to its live convolutions, are a fingerprint of its class:
# equal for cells that are the same function up to renaming layers, and different for others (except with probability
# 1e-15). As in the canonical form, a pooling is opaque: its linearity is not used.

PRIME = 2**61 - 1
_DRAWS = random.Random(20)


def _cubic() -> tuple[int, int, int]:
    return _DRAWS.randrange(1, PRIME), _DRAWS.randrange(1, PRIME), _DRAWS.randrange(1, PRIME)


LAYERS = {name: [_cubic() for _ in range(6)] for name in CONVOLUTIONS}
POOLING = _cubic()
POINT = _DRAWS.randrange(1, PRIME)


def apply(cubic: tuple[int, int, int], x: int) -> int:
    return x * (cubic[0] + x * (cubic[1] + x * cubic[2])) % PRIME


def reached_nodes(edges: Edges) -> set[int]:
    """Return the nodes reachable from node 0 by operations other than `none`: the values that are not zero."""
    reached = {0}
    for i, j in EDGES:
        if i in reached and edges[i, j] != NONE:
            reached.add(j)
    return reached


def useful_nodes(edges: Edges) -> set[int]:
    """Return the nodes from which node 3 is reachable by operations other than `none`."""
    useful = {3}
    for i, j in sorted(EDGES, reverse=True):
        if j in useful and edges[i, j] != NONE:
            useful.add(i)
    return useful


def live_edges(edges: Edges) -> list[tuple[int, int]]:
    """Return the edges on a path from node 0 to node 3 by operations other than `none`."""
    reached, useful = reached_nodes(edges), useful_nodes(edges)
    return [(i, j) for i, j in EDGES if i in reached and j in useful and edges[i, j] != NONE]


def evaluate(edges: Edges, layers: dict[tuple[int, int], tuple[int, int, int]]) -> int:
    values = [POINT, 0, 0, 0]
    for i, j in EDGES:
        if edges[i, j] == SKIP:
            values[j] += values[i]
        elif edges[i, j] == POOL:
            values[j] += apply(POOLING, values[i])
        elif (i, j) in layers:
            values[j] += apply(layers[i, j], values[i])
        values[j] %= PRIME
    return values[3]


def fingerprint(edges: Edges) -> tuple[int, int, tuple[int, ...]]:
    live = live_edges(edges)
    ones, threes = ([e for e in live if edges[e] == name] for name in CONVOLUTIONS)
    outputs = [
        evaluate(edges, dict(zip(ones + threes, (*one, *three), strict=True)))
        for one in permutations(LAYERS[CONV1][: len(ones)])
        for three in permutations(LAYERS[CONV3][: len(threes)])
    ]
    return len(ones), len(threes), tuple(sorted(outputs))


@pytest.fixture(scope="module")
def cells() -> list[tuple[Edges, EdgeCell]]:
    return [(edges, canonical_edge_cell(4, edges, MEANING)) for edges in every_cell()]


@pytest.fixture(scope="module")
def classes(cells: list[tuple[Edges, EdgeCell]]) -> dict[str, list[Edges]]:
    members: dict[str, list[Edges]] = defaultdict(list)
    for edges, cell in cells:
        members[str(cell)].append(edges)
    return members


def test_keys_and_functions_define_the_same_classes(classes: dict[str, list[Edges]]) -> None:
    prints = {k: {fingerprint(edges) for edges in members} for k, members in classes.items()}
    merged = [k for k, found in prints.items() if len(found) != 1]
    assert not merged, f"{len(merged)} keys stand for several functions, first {merged[:3]}"
    assert len(set().union(*prints.values())) == len(classes) == 5260


def test_exactly_341_strings_are_dead_and_form_one_class(cells: list[tuple[Edges, EdgeCell]]) -> None:
    assert {str(cell) for _, cell in cells if cell.dead} == {"y=0"}
    assert sum(cell.dead for _, cell in cells) == 341
    assert all(cell.dead == (not live_edges(edges)) for edges, cell in cells)


def test_canonical_cells_own_exactly_the_live_convolutions(cells: list[tuple[Edges, EdgeCell]]) -> None:
    names = {CONV1: "conv1x1", CONV3: "conv3x3"}
    for edges, cell in cells:
        live = sorted(names[edges[e]] for e in live_edges(edges) if edges[e] in names)
        assert sorted(layer.kind for layer in cell.layers) == live, edges


def test_layers_read_only_earlier_layers_and_never_zero(cells: list[tuple[Edges, EdgeCell]]) -> None:
    for _, cell in cells:
        for k, layer in enumerate(cell.layers):
            assert layer.reads
            assert all(i < k for i in layers_in(layer.reads))


def test_keys_do_not_depend_on_the_process_or_its_hash_seed() -> None:
    script = (
        "import hashlib; from hnas.spaces.nasbench201.space import NASBench201 as S; s = S();"
        "print(hashlib.sha256('|'.join(map(s.canonical, list(s.enumerate())[::7])).encode()).hexdigest())"
    )

    def digest(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    from hnas.spaces.nasbench201.space import NASBench201

    space = NASBench201()
    here = hashlib.sha256("|".join(map(space.canonical, list(space.enumerate())[::7])).encode()).hexdigest()
    assert digest("1") == digest("2") == here


# Keys, one by one.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- -- ---", "y=0"),
        ("3 3- --1", "a=conv3x3(x);b=conv1x1(a);y=b"),
        ("- -- s--", "y=x"),
        ("s ss sss", "y=4x"),
        ("- p- -3s", "y=avg3x3(x)"),
        ("3 -- ss-", "a=conv3x3(x);y=x+a"),
        ("1 -p s-s", "a=conv1x1(x);y=x+avg3x3(a)"),
        ("p p- 1pp", "a=conv1x1(x);y=a+2avg3x3(avg3x3(x))"),
        ("s 3s -p3", "a=conv3x3(x);b=conv3x3(x+a);y=b+avg3x3(x)"),
    ],
)
def test_keys_spell_out_the_cell(text: str, expected: str) -> None:
    assert key(cell_edges(text)) == expected


def test_two_layers_of_one_input_are_not_one_layer_used_twice() -> None:
    two_inputs = cell_edges("3 3- -33")  # conv(a) + conv(b), a = conv(x), b = conv(x)
    one_input = cell_edges("3 -s -33")  # conv(a) + conv(a), a = conv(x)
    assert len(canonical_edge_cell(4, two_inputs, MEANING).layers) == 4
    assert len(canonical_edge_cell(4, one_input, MEANING).layers) == 3
    assert key(two_inputs) != key(one_input)
    used_twice, two_layers = cell_edges("3 -s -ss"), cell_edges("3 3- -ss")
    assert key(used_twice) == "a=conv3x3(x);y=2a"
    assert key(two_layers) == "a=conv3x3(x);b=conv3x3(x);y=a+b"


def test_cells_with_equal_expressions_differ_by_their_weights(classes: dict[str, list[Edges]]) -> None:
    """With a single layer per kind, many classes have the same expression, so keys must not be expressions."""
    same: dict[int, list[list[str]]] = defaultdict(list)
    for members in classes.values():
        edges = members[0]
        value = evaluate(edges, {e: LAYERS[edges[e]][0] for e in live_edges(edges) if edges[e] in CONVOLUTIONS})
        same[value].append(sorted(layer.kind for layer in canonical_edge_cell(4, edges, MEANING).layers))
    ambiguous = [owned for owned in same.values() if len(owned) > 1]
    assert len(ambiguous) > 100
    assert all(one != other for owned in ambiguous for one, other in combinations(owned, 2))


# Rewritings that change no function.


def rewritings(edges: Edges) -> list[Edges]:
    """Cells that are the same function as `edges` up to renaming layers, each one step away."""
    found = []
    reached, useful = reached_nodes(edges), useful_nodes(edges)
    for i, j in EDGES:
        if i not in reached or j not in useful:  # of a zero, or into nothing
            found += [edges | {(i, j): name} for name in NAMES]
    for j in range(1, 4):  # node j is node h under another name: its readers may read h
        inputs = [h for h in range(j) if h in reached and edges[h, j] != NONE]
        if len(inputs) == 1 and edges[inputs[0], j] == SKIP:
            h = inputs[0]
            for k in range(j + 1, 4):
                found.append(edges | {(h, k): edges[j, k], (j, k): edges[h, k]})
    if edges[1, 2] == NONE:  # nodes 1 and 2 trade places
        swap = {(0, 1): (0, 2), (0, 2): (0, 1), (1, 3): (2, 3), (2, 3): (1, 3)}
        found.append({e: edges[swap.get(e, e)] for e in EDGES})
    return found


@settings(max_examples=300)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=6, max_size=6),
    steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
)
def test_rewritings_that_change_no_function_keep_the_key(names: list[str], steps: list[int]) -> None:
    edges = dict(zip(EDGES, names, strict=True))
    before = key(edges)
    for step in steps:
        choices = rewritings(edges)
        if not choices:
            break
        edges = choices[step % len(choices)]
        assert key(edges) == before


def test_rewritings_reach_other_strings_in_most_classes(classes: dict[str, list[Edges]]) -> None:
    """Guards the property above against rewritings that never apply."""
    several = [members for members in classes.values() if len(members) > 1]
    assert sum(any(other != members[0] for other in rewritings(members[0])) for members in several) > len(several) / 2


@settings(max_examples=60)
@given(data=st.data())
def test_keys_of_larger_cells_ignore_the_order_of_independent_nodes(data: st.DataObject) -> None:
    """Nodes 1 … n-2 may be permuted if they read only the input, and only the output reads them."""
    nodes = data.draw(st.integers(4, 6))
    middle = range(1, nodes - 1)
    edges = {(i, j): NONE for j in range(1, nodes) for i in range(j)}
    into = {j: data.draw(st.sampled_from(NAMES)) for j in middle}
    out = {j: data.draw(st.sampled_from(NAMES)) for j in middle}
    order = data.draw(st.permutations(list(middle)))
    one = edges | {(0, j): into[j] for j in middle} | {(j, nodes - 1): out[j] for j in middle}
    other = edges | {(0, order[j - 1]): into[j] for j in middle} | {(order[j - 1], nodes - 1): out[j] for j in middle}
    assert key(one, nodes) == key(other, nodes)


def test_operation_names_of_other_spaces_are_supported() -> None:
    operations = EdgeOperations("id", {"max": "max3x3", "avg": "avg3x3"}, {"sep": "sep5x5"})
    edges = {(0, 1): "max", (0, 2): "avg", (1, 2): "sep"}
    assert str(canonical_edge_cell(3, edges, operations)) == "a=sep5x5(max3x3(x));y=a+avg3x3(x)"
    assert str(canonical_edge_cell(2, {(0, 1): "anything else"}, operations)) == "y=0"
