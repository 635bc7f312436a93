"""Mutation, neighbours and decisions: the guarantees of every built-in space, and those of NAS-Bench-201 and DARTS."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnas import UsageError, search_spaces
from hnas.spaces import Categorical, Encoded, Mutable
from hnas.spaces.darts.genotype import parse_genotype
from hnas.spaces.darts.published import NAMED
from hnas.spaces.darts.space import DARTS
from hnas.spaces.nasbench101.space import NASBench101
from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS, parse_arch
from hnas.spaces.nasbench201.space import NASBench201

TOPOLOGY, GENOTYPES = NASBench201(), DARTS()
seeds = st.integers(0, 2**32)


def decisions_of(space: Categorical) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*(st.integers(0, n - 1) for n in space.choices))


@pytest.mark.parametrize("name", ["darts", "nasbench101", "nasbench201"])
def test_the_built_in_spaces_are_mutable_and_categorical(name: str) -> None:
    assert isinstance(search_spaces[name], Mutable)
    assert isinstance(search_spaces[name], Categorical)
    assert isinstance(search_spaces[name], Encoded)


@pytest.mark.parametrize("space", [TOPOLOGY, GENOTYPES], ids=["nasbench201", "darts"])
def test_malformed_architectures_are_refused_before_editing(space: NASBench201 | DARTS) -> None:
    random = np.random.default_rng(0)
    for edit in (space.neighbours, space.encode, lambda arch: space.mutate(arch, random)):
        with pytest.raises(UsageError):
            edit("nonsense")


@given(decisions=decisions_of(TOPOLOGY), seed=seeds)
def test_mutants_of_nasbench201_are_neighbours_symmetrically(decisions: tuple[int, ...], seed: int) -> None:
    arch = TOPOLOGY.decode(decisions)
    around = TOPOLOGY.neighbours(arch)
    assert len(set(around)) == 24
    assert around == sorted(around)
    assert arch not in around
    assert all(arch in TOPOLOGY.neighbours(other) for other in around)
    assert TOPOLOGY.mutate(arch, np.random.default_rng(seed)) in around


def test_decisions_cover_nasbench201_once_in_the_order_of_its_edges() -> None:
    made = [TOPOLOGY.decode(decisions) for decisions in product(*map(range, TOPOLOGY.choices))]
    assert made == list(TOPOLOGY.enumerate())
    assert len(set(made)) == 15_625
    assert all(TOPOLOGY.decode(TOPOLOGY.encode(arch)) == arch for arch in made)
    names = list(parse_arch(TOPOLOGY.decode((0, 1, 2, 3, 4, 0))).values())
    assert names == [OPERATIONS[k] for k in (0, 1, 2, 3, 4, 0)]


def test_mutation_of_nasbench201_draws_node_edge_and_operation() -> None:
    random = np.random.default_rng(3)
    arch = TOPOLOGY.decode((0, 1, 2, 3, 4, 0))
    before = parse_arch(arch)
    changed: Counter[tuple[int, int]] = Counter()
    given_instead: Counter[str] = Counter()
    for _ in range(6000):
        after = parse_arch(TOPOLOGY.mutate(arch, random))
        (edge,) = (edge for edge in EDGES if after[edge] != before[edge])
        changed[edge] += 1
        if edge == (0, 1):
            given_instead[after[edge]] += 1
    for (_, node), n in changed.items():
        assert abs(n / 6000 - 1 / (3 * node)) < 0.03
    assert set(given_instead) == set(OPERATIONS[1:])
    assert max(given_instead.values()) < 1.3 * min(given_instead.values())


@given(decisions=decisions_of(GENOTYPES), seed=seeds)
@settings(max_examples=30)
def test_mutants_of_genotypes_are_neighbours_symmetrically(decisions: tuple[int, ...], seed: int) -> None:
    arch = GENOTYPES.decode(decisions)
    assert GENOTYPES.key(arch) == arch
    assert GENOTYPES.encode(arch) == decisions
    around = GENOTYPES.neighbours(arch)
    assert len(set(around)) == len(around) == 16 * 6 + 2 * 2 * (1 + 2 + 3)
    assert arch not in around
    assert all(GENOTYPES.key(other) == other for other in around)
    assert all(
        len({state for _, state in node}) == 2 for other in around for node in parse_genotype(other).reduce.nodes
    )
    random = np.random.default_rng(seed)
    assert all(GENOTYPES.mutate(arch, random) in around for _ in range(5))
    assert arch in GENOTYPES.neighbours(around[seed % len(around)])


def test_decisions_cover_sampled_genotypes() -> None:
    for arch in GENOTYPES.sample(50, seed=0):
        decisions = GENOTYPES.encode(arch)
        assert decisions is not None
        assert GENOTYPES.decode(decisions) == arch
    assert len(GENOTYPES.choices) == 22
    assert math.prod(GENOTYPES.choices) == 180**2 * 7**16


@pytest.mark.parametrize("name", NAMED)
def test_published_cells_outside_the_space_can_be_mutated(name: str) -> None:
    around = GENOTYPES.neighbours(name)
    random = np.random.default_rng(0)
    for _ in range(20):
        mutant = GENOTYPES.mutate(name, random)
        assert mutant in around
        assert GENOTYPES.canonical(mutant)
    inside = name in ("DARTS_V1", "DARTS_V2", "SNAS", "WIDE", "DEEP")
    decisions = GENOTYPES.encode(name)
    assert (decisions is not None) is inside
    if decisions is not None:
        assert GENOTYPES.canonical(GENOTYPES.decode(decisions)) == GENOTYPES.canonical(name)


def test_mutation_of_genotypes_draws_cells_and_kinds_of_edits_evenly() -> None:
    random = np.random.default_rng(1)
    arch = GENOTYPES.sample(1, seed=4)[0]
    before = parse_genotype(arch)
    kinds: Counter[str] = Counter()
    for _ in range(4000):
        after = parse_genotype(GENOTYPES.mutate(arch, random))
        kinds["normal" if after.normal != before.normal else "reduce"] += 1
        same_states = all(
            {state for _, state in new} == {state for _, state in old}
            for mine, theirs in ((after.normal, before.normal), (after.reduce, before.reduce))
            for new, old in zip(mine.nodes, theirs.nodes, strict=True)
        )
        kinds["operation" if same_states else "state"] += 1
    assert abs(kinds["normal"] - 2000) < 150
    # The two states of a first node cannot change, so a quarter of the draws of a state are repeated.
    assert abs(kinds["operation"] / 4000 - 4 / 7) < 0.03


def test_recalled_cells_are_edited_without_the_table(monkeypatch):
    known = search_spaces["nasbench101"]
    assert isinstance(known, NASBench101)
    cells = known.sample(3, seed=4)
    definitions = {arch: known.definition(arch) for arch in cells}
    space = NASBench101()
    monkeypatch.setattr(
        "hnas.spaces.nasbench101.enumeration.load_table", lambda cache: pytest.fail("the cell was looked up")
    )
    space.recall = definitions.get
    random, same = np.random.default_rng(1), np.random.default_rng(1)
    assert [space.mutate(arch, random) for arch in cells] == [known.mutate(arch, same) for arch in cells]
    assert space.neighbours(cells[0]) == known.neighbours(cells[0])
    # Wrong definitions are ignored.
    space.recall = lambda arch: definitions[cells[1]] if arch == cells[0] else "no definition"
    monkeypatch.setattr("hnas.spaces.nasbench101.enumeration.load_table", lambda cache: known._table)
    assert space.definition(cells[0]) == definitions[cells[0]]
    assert NASBench101().definition(cells[2]) == definitions[cells[2]]
