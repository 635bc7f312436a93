"""Properties of all methods that draw from the pool or the space: candidates only, reproducible, resumable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnas import ArrayPool, Search, UsageError, search_spaces
from tests.support.cells_bench import CELLS, accuracy, pool_of, run_method

OPTIONS: dict[str, dict[str, int]] = {
    "random": {},
    "rea": {},
    "local-search": {},
    "reinforce": {},
    "bohb": {"epochs": 12},
}
EDITING = [name for name in OPTIONS if name != "random"]


class Plain:
    """A third-party space without optional methods."""

    name = "plain"


@pytest.mark.parametrize("method", OPTIONS)
@given(seed=st.integers(0, 2**40), size=st.integers(1, 200), stop=st.integers(0, 39))
@settings(max_examples=6)
def test_replayed_searches_resume_exactly_and_query_candidates_only(
    method: str, seed: int, size: int, stop: int
) -> None:
    pool = pool_of(CELLS[:size])
    queries = run_method(method, pool, 40, seed=seed, **OPTIONS[method])
    assert {query.arch for query in queries} <= set(pool.archs)
    resumed = Search(pool_of(CELLS[:size]), method, seed=seed, **OPTIONS[method])
    for query in queries[:stop]:
        resumed.replay(query)
    for query in queries[stop:]:
        proposal = resumed.ask()
        assert proposal is not None
        assert (proposal.arch, proposal.epochs) == (query.arch, query.epochs)
        resumed.tell(proposal, accuracy(proposal.arch))


@pytest.mark.parametrize("method", OPTIONS)
def test_seeds_differ(method: str) -> None:
    first, second = (
        [q.arch for q in run_method(method, pool_of(CELLS), 30, seed=s, **OPTIONS[method])] for s in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize("method", OPTIONS)
def test_an_argument_is_refused(method: str) -> None:
    with pytest.raises(UsageError, match=f"{method} takes no argument"):
        Search(pool_of(CELLS), f"{method}:trace", **OPTIONS[method])


@pytest.mark.parametrize("method", EDITING)
def test_pools_without_a_space_or_its_optional_methods_are_refused(method: str) -> None:
    with pytest.raises(UsageError, match=rf"{method} cannot search the space plain, which lacks `\w+`"):
        Search(ArrayPool(CELLS, {}, space=Plain()), method, **OPTIONS[method])
    with pytest.raises(UsageError, match=rf"{method} needs a pool that names its space, one with `\w+`"):
        Search(ArrayPool(CELLS, {}), method, **OPTIONS[method])


class Bits:
    """A third-party space of the 256 words of eight bits, with only the optional methods that searches need."""

    name = "bits"
    choices = (2,) * 8

    def decode(self, decisions: Sequence[int]) -> str | None:
        return "".join(map(str, decisions)) if any(decisions) else None

    def mutate(self, arch: str, random: np.random.Generator) -> str:
        return self.neighbours(arch)[int(random.integers(8))]

    def neighbours(self, arch: str) -> list[str]:
        return sorted(arch[:i] + "01"[arch[i] == "0"] + arch[i + 1 :] for i in range(8))


@pytest.mark.parametrize("method", EDITING)
@pytest.mark.parametrize("part", [1, 50])
def test_third_party_spaces_with_the_optional_methods_are_searched(method: str, part: int) -> None:
    words = [format(k, "08b") for k in range(part, 256, part)]  # all but the word that no decisions encode, or a few
    search = Search(ArrayPool(words, {}, space=Bits()), method, seed=0, **OPTIONS[method])
    for _ in range(60):
        proposal = search.ask()
        if proposal is None:
            break
        assert proposal.arch in words
        search.tell(proposal, 10.0 * proposal.arch.count("1"))
    assert search.best.arch.count("1") >= (7 if part == 1 else 4)


@pytest.mark.parametrize("method", EDITING)
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_small_samples_of_large_spaces_are_searched(method: str, name: str) -> None:
    """There, mutants and decisions are rarely candidates."""
    space = search_spaces[name]
    sample = space.sample(30, seed=1)
    search = Search(ArrayPool(sample, {}, space=space), method, seed=0, **OPTIONS[method])
    for k in range(25):
        proposal = search.ask()
        assert proposal is not None
        assert proposal.arch in sample
        search.tell(proposal, float(k % 7))
