"""NAS-Bench-101: hashes, the table of all cells and networks, against the published algorithms written plainly."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b, md5
from itertools import combinations, pairwise, permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hnas import UsageError, compute_metrics, search_spaces
from hnas.pipeline.images import open_dataset, training_batch
from hnas.spaces import Cached, SearchSpace, SearchSpaces, Spelled
from hnas.spaces.nasbench101 import enumeration as nasbench101_enumerate
from hnas.spaces.nasbench101 import md5 as vector_md5
from hnas.spaces.nasbench101.cell import OPERATIONS, parse_definition
from hnas.spaces.nasbench101.enumeration import CACHED, Table, digest_of, load_table, module_hashes
from hnas.spaces.nasbench101.network import NASBench101Network
from hnas.spaces.nasbench101.space import NASBench101, module_hash
from tests.support.networks import shake
from tests.support.references import agrees, reference_scalars, reference_summed

pytestmark = pytest.mark.slow

SPACE = NASBench101()  # has no cache and never looks up a hash; tests that need the table use the fixture `space`
EXAMPLE = "00005c142e6f48ac74fdcf73e3439874"
EXAMPLE_EDGES = ((0, 1), (1, 2), (2, 3), (0, 4), (0, 5), (3, 5), (4, 5), (2, 6), (5, 6))
EXAMPLE_LABELS = (0, 2, 0, 0, 1)
SMALL = "input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000"
# Three vertices feed the output, so 128 channels are split into 43, 43 and 42.
UNEVEN = "input,conv3x3-bn-relu,conv1x1-bn-relu,maxpool3x3,output:0111100111000010000100000"


class Memory(dict[str, bytes]):
    """A cache in memory."""

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, content: bytes) -> None:
        self[name] = content


@pytest.fixture(scope="session")
def space() -> NASBench101:
    """A space with its table, which takes seconds to compute and is shared with this process's built-in space."""
    found = NASBench101()
    found.cache = Memory()
    found.sample(1, seed=0)
    builtin = search_spaces["nasbench101"]
    assert isinstance(builtin, NASBench101)
    builtin._known = found._known
    return found


@pytest.fixture(scope="session")
def everything(space: NASBench101) -> list[str]:
    return list(space.enumerate())


@pytest.fixture(scope="session")
def suite_zero() -> dict[str, dict[str, float]]:
    """The 250 rows of NAS-Bench-Suite-Zero by their encoding."""
    folder = os.environ.get("HNAS_TEST_DATA")
    if not folder:
        pytest.skip("HNAS_TEST_DATA is unset; it names the folder with nasbench101/zc_nasbench101.json")
    rows = json.loads((Path(folder) / "nasbench101" / "zc_nasbench101.json").read_text())["nasbench101"]["cifar10"]
    assert len(rows) == 250
    return rows


@pytest.fixture
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Table:
        raise AssertionError("the table of all cells was read")

    monkeypatch.setattr(nasbench101_enumerate, "load_table", refuse)


# Labelled graphs, as lists of edges with labels of the interior.

Graph = tuple[tuple[tuple[int, int], ...], tuple[int, ...]]


def text_of(edges: tuple[tuple[int, int], ...], labels: tuple[int, ...]) -> str:
    n = len(labels) + 2
    names = ["input", *(OPERATIONS[label] for label in labels), "output"]
    return f"{','.join(names)}:{''.join('01'[(u, v) in edges] for u in range(n) for v in range(n))}"


def graph_of(text: str) -> Graph:
    names, bits = text.split(":")
    operations = names.split(",")
    n = len(operations)
    edges = tuple((k // n, k % n) for k, bit in enumerate(bits) if bit == "1")
    return edges, tuple(OPERATIONS.index(name) for name in operations[1:-1])


def renumbered(graph: Graph, new: tuple[int, ...]) -> Graph:
    """Return the graph with vertex v renamed to `new[v]`; its edges may then go backwards."""
    edges, labels = graph
    named = {new[v]: label for v, label in enumerate(labels, start=1)}
    return tuple(sorted((new[u], new[v]) for u, v in edges)), tuple(named[v] for v in sorted(named))


def relabellings(graph: Graph) -> list[Graph]:
    """Return all numberings of the interior with which edges go forward."""
    n = len(graph[1]) + 2
    found = (renumbered(graph, (0, *order, n - 1)) for order in permutations(range(1, n - 1)))
    return [(edges, labels) for edges, labels in found if all(u < v for u, v in edges)]


def plain_hash(edges: tuple[tuple[int, int], ...], labels: tuple[int, ...]) -> str:
    """The published algorithm (Ying et al., section 2.2; `graph_util.hash_module`), step by step."""

    def digest(text: str) -> str:
        return md5(text.encode("utf-8")).hexdigest()

    names = [-1, *labels, -2]
    vertices = range(len(names))
    degrees = [(sum(u == v for u, _ in edges), sum(w == v for _, w in edges)) for v in vertices]
    hashes = [digest(f"({out}, {into}, {name})") for (out, into), name in zip(degrees, names, strict=True)]
    for _ in vertices:
        before = list(hashes)
        for v in vertices:
            read = "".join(sorted(before[u] for u, w in edges if w == v))
            reading = "".join(sorted(before[w] for u, w in edges if u == v))
            hashes[v] = digest(f"{read}|{reading}|{before[v]}")
    return digest(str(sorted(hashes)))


def all_graphs(n: int, most: int = 9) -> Iterator[Graph]:
    """All labelled graphs of n vertices, all on paths from input to output, in the order of the benchmark's program."""
    places = [(u, v) for v in range(n) for u in range(v)]
    for bits in range(1 << len(places)):
        edges = tuple(place for k, place in enumerate(places) if bits >> k & 1)
        sources, targets = {u for u, _ in edges}, {v for _, v in edges}
        if len(sources) == len(targets) == n - 1 and len(edges) <= most:
            for labels in product(range(3), repeat=n - 2):
                yield edges, labels


@st.composite
def cells(draw: st.DrawFn) -> str:
    """A text of a cell, pruned or not, that the space accepts."""
    n = draw(st.integers(2, 7))
    labels = tuple(draw(st.lists(st.integers(0, 2), min_size=n - 2, max_size=n - 2)))
    places = [(u, v) for v in range(n) for u in range(v)]
    # A path through all vertices keeps most of them after pruning; other edges are random.
    chosen = draw(st.sets(st.sampled_from(places), max_size=8))
    path = sorted({0, n - 1, *draw(st.sets(st.integers(0, n - 1)))})
    edges = list(pairwise(path))
    edges += [place for place in sorted(chosen) if place not in edges][: 9 - len(edges)]
    return text_of(tuple(sorted(edges)), labels)


# Hashes.


def test_the_published_cell_has_the_published_hash_and_size() -> None:
    text = text_of(EXAMPLE_EDGES, EXAMPLE_LABELS)
    assert SPACE.key(text) == SPACE.canonical(text) == EXAMPLE
    assert SPACE.describe(text)["params"] == 8_555_530
    adjacency = [[int((u, v) in EXAMPLE_EDGES) for v in range(7)] for u in range(7)]
    operations = text.partition(":")[0].split(",")
    assert module_hash(adjacency, operations) == EXAMPLE
    assert module_hash(np.array(adjacency, np.int8), operations) == EXAMPLE


def test_an_example_is_looked_up_by_its_hash(space: NASBench101) -> None:
    assert space.definition(EXAMPLE) == text_of(EXAMPLE_EDGES, EXAMPLE_LABELS)
    assert space.canonical(f" {EXAMPLE.upper()}\n") == space.key(EXAMPLE) == EXAMPLE


def test_hashes_of_up_to_five_vertices_match_the_published_algorithm(space: NASBench101, everything: list[str]) -> None:
    """And looking up a hash returns the first of its graphs in the order of the benchmark's program."""
    first: dict[str, Graph] = {}
    number = 0
    for n in range(2, 6):
        for graph in all_graphs(n):
            number += 1
            expected = plain_hash(*graph)
            first.setdefault(expected, graph)
            assert SPACE.key(text_of(*graph)) == expected
    assert number == 1 + 2 * 3 + 10 * 9 + 121 * 27
    assert {h: space.definition(h) for h in first} == {h: text_of(*graph) for h, graph in first.items()}
    assert set(first) <= set(everything)
    assert len(first) == 1 + 6 + 84 + 2441


def test_hashes_of_six_and_seven_vertices_match_the_published_algorithm(
    space: NASBench101, everything: list[str]
) -> None:
    for arch in random.Random(0).sample(everything, 1500):
        assert plain_hash(*graph_of(space.definition(arch))) == arch


def test_the_canonical_labelling_is_the_benchmarks_first(space: NASBench101, everything: list[str]) -> None:
    def place(graph: Graph) -> tuple[int, tuple[int, ...]]:
        return sum(1 << u + v * (v - 1) // 2 for u, v in graph[0]), graph[1]

    for arch in random.Random(1).sample(everything, 200):
        graph = graph_of(space.definition(arch))
        assert min(relabellings(graph), key=place) == graph


@settings(max_examples=200)
@given(text=cells(), data=st.data())
def test_isomorphic_cells_are_the_same_architecture(text: str, data: st.DataObject) -> None:
    other = text_of(*data.draw(st.sampled_from(relabellings(graph_of(str(parse_definition(text)))))))
    assert SPACE.key(other) == SPACE.key(text)
    assert SPACE.definition(other) == SPACE.definition(text)
    assert SPACE.definition(SPACE.definition(text)) == SPACE.definition(text)
    assert SPACE.key(SPACE.definition(text)) == SPACE.key(text)


@settings(max_examples=100)
@given(text=cells())
def test_vertices_on_no_path_are_ignored(text: str) -> None:
    """Removing vertices without inputs or readers one at a time leads to the same cell."""
    edges, labels = graph_of(text)
    last = len(labels) + 1
    live = set(range(last + 1))
    while True:
        kept = {(u, v) for u, v in edges if u in live and v in live}
        idle = {w for w in live - {0, last} if not any(v == w for _, v in kept) or not any(u == w for u, _ in kept)}
        if not idle:
            break
        live -= idle
    order = sorted(live)
    pruned = tuple(sorted((order.index(u), order.index(v)) for u, v in kept))
    assert str(parse_definition(text)) == text_of(pruned, tuple(labels[v - 1] for v in order[1:-1]))
    assert SPACE.key(text) == plain_hash(*graph_of(str(parse_definition(text))))


def test_batched_hashes_match_single_ones() -> None:
    rng = random.Random(4)
    for n in (2, 3, 6):
        graphs = rng.sample(list(all_graphs(n)), min(3 ** (n - 2), 50))
        adjacency = np.zeros((len(graphs), n, n), bool)
        for k, (edges, _) in enumerate(graphs):
            adjacency[(k, *np.transpose(edges))] = True
        labels = np.array([(-1, *names, -2) for _, names in graphs])
        digests = module_hashes(adjacency, labels)
        assert [digest.tobytes().hex() for digest in digests] == [plain_hash(*graph) for graph in graphs]


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 119, 120, 252])
def test_vectorised_md5_matches_hashlib(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_md5, "_WIDTH", 7)
    messages = np.random.default_rng(length).integers(0, 256, (17, length), dtype=np.uint8)
    found = vector_md5.hexadecimal(vector_md5.md5(messages))
    assert [row.tobytes().decode() for row in found] == [md5(row.tobytes()).hexdigest() for row in messages]


# The whole space.


def test_the_space_has_423624_hashes_in_ascending_order(everything: list[str]) -> None:
    assert len(everything) == len(set(everything)) == SPACE.size == 423_624
    assert everything == sorted(everything)
    assert all(len(arch) == 32 for arch in everything)


def test_the_number_of_labelled_graphs_matches_the_benchmark() -> None:
    counts = {n: len(nasbench101_enumerate._graphs(n)) * 3 ** (n - 2) for n in range(2, 8)}
    assert sum(counts.values()) == 1_293_208


def test_cells_are_distinct_and_hash_to_their_keys(space: NASBench101, everything: list[str]) -> None:
    known = space._table
    assert len(np.unique(known.codes)) == 423_624
    assert Counter((known.codes >> 29).tolist()) == {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62010, 7: 359082}
    for arch in random.Random(2).sample(everything, 500):
        assert SPACE.key(space.definition(arch)) == arch


def test_samples_are_distinct_and_reproducible(space: NASBench101, everything: list[str]) -> None:
    sample = space.sample(2000, seed=3)
    assert len(set(sample)) == 2000
    assert set(sample) <= set(everything)
    assert space.sample(2000, seed=3) == sample
    assert space.sample(2000, seed=4) != sample
    assert sorted(space.sample(423_624, seed=0)) == everything


def test_a_sample_is_uniform_over_the_space(space: NASBench101, everything: list[str]) -> None:
    place = {arch: k for k, arch in enumerate(everything)}
    draws = [place[space.sample(1, seed=seed)[0]] / len(everything) for seed in range(200)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("n", [0, -1, 423_625])
def test_an_impossible_sample_is_refused(space: NASBench101, n: int) -> None:
    with pytest.raises(UsageError, match=f"{n} of the 423624"):
        space.sample(n, seed=0)


# Caching the table.


def test_the_table_is_cached(space: NASBench101, everything: list[str], no_computing: None) -> None:
    assert isinstance(space.cache, Memory)
    assert list(space.cache) == [CACHED]
    assert len(space.cache[CACHED]) < 10e6
    other = NASBench101()
    other.cache = space.cache
    assert list(other.enumerate()) == everything
    assert other.definition(EXAMPLE) == space.definition(EXAMPLE)


@pytest.fixture
def no_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Table:
        raise AssertionError("the table of all cells was computed")

    monkeypatch.setattr(nasbench101_enumerate, "compute_table", refuse)


def _archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "no archive": lambda content: b"hashes and codes",
    "another array": lambda content: content[:40] + content[80:],
    "a pickle": lambda content: pickle.dumps({"hashes": 1}),
    "other names": lambda content: _archive(names=np.zeros(3)),
    "other content": lambda content: _archive(hashes=np.zeros((4, 16), np.uint8), codes=np.zeros(4, np.uint32)),
    "strings": lambda content: _archive(hashes=np.array(["a"]), codes=np.array(["b"])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_recomputed(space: NASBench101, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(space.cache, Memory)
    good = space.cache[CACHED]
    monkeypatch.setattr(nasbench101_enumerate, "compute_table", lambda: space._table)
    cache = Memory({CACHED: DAMAGES[damage](good)})
    assert load_table(cache) is space._table
    assert cache[CACHED] == good


def test_an_unusable_cache_costs_only_time(space: NASBench101, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def read(self, name: str) -> bytes | None:
            raise PermissionError(name)

        def write(self, name: str, content: bytes) -> None:
            raise OSError(name)

    monkeypatch.setattr(nasbench101_enumerate, "compute_table", lambda: space._table)
    assert load_table(Broken()) is space._table
    assert load_table(None) is space._table


def test_the_table_matches_its_digest(space: NASBench101) -> None:
    assert digest_of(space._table.hashes, space._table.codes) == nasbench101_enumerate._DIGEST


def test_a_definition_needs_no_table(no_table: None) -> None:
    fresh = pickle.loads(pickle.dumps(NASBench101()))
    for text in (SMALL, UNEVEN, text_of(EXAMPLE_EDGES, EXAMPLE_LABELS)):
        assert fresh.definition(text)
        assert fresh.describe(fresh.definition(text))["params"]
        assert fresh.network(fresh.definition(text), channels=4, cells=1)(torch.zeros(2, 3, 4, 4)).shape == (2, 10)


def test_strings_of_the_space_load_no_torch() -> None:
    script = """
import sys
from hnas import search_spaces
space = search_spaces["nasbench101"]
print(space.key(sys.argv[1]), space.describe(sys.argv[1])["params"], "torch" in sys.modules, "numpy" in sys.modules)
"""
    text = text_of(EXAMPLE_EDGES, EXAMPLE_LABELS)
    done = subprocess.run([sys.executable, "-c", script, text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [EXAMPLE, "8555530", "False", "False"]


def test_the_space_is_built_in_and_follows_the_protocols() -> None:
    space = SearchSpaces()["nasbench101"]
    assert isinstance(space, NASBench101)
    assert isinstance(space, SearchSpace)
    assert isinstance(space, Spelled)
    assert isinstance(space, Cached)
    assert (space.name, space.size, space.channels, space.cells, space.cache) == ("nasbench101", 423_624, 16, 3, None)


# Malformed input.


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a NAS-Bench-101 architecture must .*32 hexadecimal digits.*such as input,"),
        ("resnet18", "a NAS-Bench-101 architecture must .* got 'resnet18'"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "a NAS-Bench-101 architecture must"),
        (EXAMPLE[:-1], "a NAS-Bench-101 architecture must"),
        ("x" * 1000, r"xxx\.\.\.'$"),
        ("input,output", "a NAS-Bench-101 architecture must"),
        ("input,output:01:00", "a NAS-Bench-101 architecture must"),
        ("input,output:0100", ""),
        ("input,output:01a0", "'01a0'.*0 and 1.*holds 'a'"),
        ("input,output:0१00", "holds '१'"),
        ("input,output:010", "2 × 2 = 4 entries for 2 operations, but has 3"),
        ("input,output:", "2 operations, but has 0"),
        ("output:0", "2 to 7 vertices, got 1"),
        (":", "1 operations, but has 0"),
        (f"input{',maxpool3x3' * 6},output:{'0' * 64}", "2 to 7 vertices, got 8"),
        ("conv3x3-bn-relu,output:0100", "begin with 'input'.*got 'conv3x3-bn-relu'"),
        ("input,maxpool3x3:0100", "end with 'output'.*'maxpool3x3'"),
        ("input,avgpool3x3,output:010001000", "'avgpool3x3' is unknown; choose from conv3x3-bn-relu, conv1x1-bn-relu"),
        ("input, maxpool3x3,output:010001000", "' maxpool3x3' is unknown"),
        ("input,maxpool3x3,output:010011000", "upper triangular.*edge from vertex 1 to vertex 1"),
        ("input,maxpool3x3,output:010001010", "edge from vertex 2 to vertex 1"),
        ("input,maxpool3x3,output:010000000", "must have a path"),
        (f"input,output:{'0' * 4}", "must have a path"),
        (f"input{',maxpool3x3' * 3},output:0111100111000110000100000", "at most 9 edges, got 10"),
    ],
)
def test_malformed_architectures_are_refused(text: str, complaint: str, no_table: None) -> None:
    if not complaint:
        assert SPACE.definition(text) == text
        return
    for use in (SPACE.canonical, SPACE.key, SPACE.definition, SPACE.describe, SPACE.network):
        with pytest.raises(UsageError, match=complaint):
            use(text)


def test_unknown_hashes_are_refused(space: NASBench101) -> None:
    for text in ("0" * 32, "f" * 32, EXAMPLE[:-1] + "5", EXAMPLE[:16] + "0" * 16):
        for use in (space.canonical, space.key, space.definition, space.describe, space.network):
            with pytest.raises(UsageError, match=f"the module hash '{text}' must be that of one of the 423624 cells"):
                use(text)


@settings(max_examples=300)
@given(
    text=st.text(max_size=60)
    | st.text("0123456789abcdefABCDEF", min_size=31, max_size=33)
    | st.text("01,:", max_size=20).map(lambda bits: f"input,maxpool3x3,output:{bits}")
    | st.lists(st.sampled_from(["input", "output", "maxpool3x3", "", "x"]), max_size=9)
    .map(",".join)
    .map("{}:0100".format)
)
def test_any_string_is_an_architecture_or_raises_usage_error(space: NASBench101, text: str) -> None:
    try:
        key = space.key(text)
    except UsageError:
        return
    assert space.key(space.definition(text)) == key
    assert space.describe(text)["params"] > 0


@pytest.mark.parametrize(
    ("adjacency", "operations", "complaint"),
    [
        ([[0, 1], [0]], ["input", "output"], "must be 2 × 2"),
        ([[0, 1]], ["input", "output"], "must be 2 × 2"),
        ([[0, 2], [0, 0]], ["input", "output"], "entry 0, 1 .* got 2"),
        ([[0, -1], [0, 0]], ["input", "output"], "entry 0, 1 .* got -1"),
        ([], [], "vertices, got 0"),
    ],
)
def test_a_malformed_matrix_is_refused(adjacency: list[list[int]], operations: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        module_hash(adjacency, operations)


@pytest.mark.parametrize(
    "encoding",
    [
        "",
        None,
        "(0, 1)",
        "(" + "0, " * 49 + "5, 0, 0, 0, 0, 0, 1)",
        "(" + "2, " * 56 + ")",
        [0] * 57,
        "[" * 5000,
        "é" * 56,
    ],
)
def test_a_malformed_suite_zero_encoding_is_refused(encoding: str | list[int]) -> None:
    with pytest.raises(UsageError, match=r"a NAS-Bench-Suite-Zero encoding .*49 entries"):
        NASBench101.from_suite_zero(encoding)


# Size.


def build(text: str, *, classes: int = 10, channels: int = 128, cells: int = 3) -> NASBench101Network:
    """Return the network of a cell with its vertices as written, as the benchmark builds it."""
    return NASBench101Network(parse_definition(text), classes=classes, channels=channels, cells=cells)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_params_equal_the_published_ones_of_all_250_rows(suite_zero: dict[str, dict[str, float]]) -> None:
    texts = {encoding: NASBench101.from_suite_zero(encoding) for encoding in suite_zero}
    published = {encoding: round(row["params"] * 1e6) for encoding, row in suite_zero.items()}
    assert {encoding: SPACE.describe(text)["params"] for encoding, text in texts.items()} == published
    with torch.device("meta"):
        for encoding in random.Random(0).sample(sorted(texts), 40):
            assert count(build(texts[encoding])) == published[encoding]


def test_flops_explain_the_published_ones_of_all_250_rows(suite_zero: dict[str, dict[str, float]]) -> None:
    """The published count adds batch norm and ReLU of every convolution, and 9 or 4 per output of a pooling."""
    wrong = {}
    for encoding, row in suite_zero.items():
        text = NASBench101.from_suite_zero(encoding)
        edges, labels = graph_of(str(parse_definition(text)))
        extra = 3 * 128 * 32**2 + 4 * 128 * 16**2 + 4 * 256 * 8**2
        for stack in range(3):
            wide = reference_channels(edges, labels, 128 << stack)
            units = 3 * sum(wide[v] for u, v in edges if u == 0)
            units += sum(wide[v] * (9 if label == 2 else 3) for v, label in enumerate(labels, start=1))
            extra += 3 * units * (32 >> stack) ** 2
        ours, theirs = SPACE.describe(text)["flops"], round(row["flops"] * 1e6)
        if ours + extra != theirs:
            wrong[encoding] = ours + extra - theirs
    assert not wrong


@pytest.mark.parametrize(
    ("edges", "operations", "params"),
    [
        # Rows of the benchmark printed by its authors and others.
        (EXAMPLE_EDGES, EXAMPLE_LABELS, 8_555_530),
        (((0, 1), (0, 2), (0, 3), (0, 4), (1, 6), (2, 6), (3, 6), (4, 5), (5, 6)), (0, 1, 2, 0, 0), 2_694_282),
        (((0, 1), (0, 3), (1, 2), (1, 4), (1, 5), (2, 6), (3, 4), (4, 5), (5, 6)), (2, 0, 2, 1, 2), 3_468_426),
    ],
)
def test_printed_rows_are_canonical_as_the_benchmark_keeps_them(
    edges: tuple[tuple[int, int], ...], operations: tuple[int, ...], params: int
) -> None:
    text = text_of(edges, operations)
    assert SPACE.definition(text) == text
    assert SPACE.describe(text)["params"] == params


@settings(max_examples=15)
@given(text=cells(), channels=st.integers(4, 40), number=st.integers(1, 3), classes=st.integers(1, 30))
def test_params_and_flops_match_the_network(text: str, channels: int, number: int, classes: int) -> None:
    sizes = {"classes": classes, "channels": channels, "cells": number}
    network = build(text, **sizes).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 8, 8))
    columns = SPACE.describe(text, **sizes, image_size=8)
    assert columns["params"] == count(network)
    assert columns["flops"] == counter.get_total_flops() / 2
    canonical = SPACE.describe(SPACE.definition(text), **sizes, image_size=8)
    assert canonical["params"] == count(SPACE.network(text, **sizes))


def test_the_order_of_vertices_may_shift_channels(space: NASBench101) -> None:
    """128 channels in three parts give one more to each of the first two."""
    sizes = {SPACE.describe(text_of(*graph))["params"] for graph in relabellings(graph_of(UNEVEN))}
    assert len(sizes) > 1
    canonical = space.describe(space.definition(UNEVEN))
    assert space.describe(space.key(UNEVEN)) == canonical
    assert canonical["params"] in sizes


def test_every_architecture_has_the_same_columns(space: NASBench101, everything: list[str]) -> None:
    kinds = {"params": int, "flops": int, "vertices": int, "edges": int, "depth": int, "width": int}
    for arch in everything[::1500]:
        columns = space.describe(arch)
        assert {name: type(value) for name, value in columns.items()} == kinds | {"operations": str, "adjacency": str}
        assert f"{columns['operations']}:{columns['adjacency']}" == space.definition(arch)
        assert columns["vertices"] == len(str(columns["operations"]).split(","))
        assert columns["edges"] == str(columns["adjacency"]).count("1") <= 9


def test_depth_and_width_match_the_graph(space: NASBench101, everything: list[str]) -> None:
    """The largest directed cut has as many edges as the largest set with no two edges on one path."""
    for arch in random.Random(5).sample(everything, 60):
        edges, labels = graph_of(space.definition(arch))
        paths = [(0,)]
        whole = []
        while paths:
            path = paths.pop()
            paths += [(*path, v) for u, v in edges if u == path[-1]]
            whole += [path] if path[-1] == len(labels) + 1 else []
        columns = space.describe(arch)
        assert columns["depth"] == max(map(len, whole)) - 1
        steps = [set(pairwise(path)) for path in whole]
        free = [
            set(some)
            for k in range(columns["width"], columns["width"] + 2)
            for some in combinations(edges, k)
            if all(len(step & set(some)) < 2 for step in steps)
        ]
        assert max(map(len, free)) == columns["width"]


# The network.


def reference_channels(edges: tuple[tuple[int, int], ...], labels: tuple[int, ...], channels: int) -> dict[int, int]:
    """Channels of the interior vertices and of the output, computed vertex by vertex."""
    last = len(labels) + 1
    feeding = sorted(u for u, v in edges if v == last and u)
    wide = {last: channels}
    for place, v in enumerate(feeding):
        shares = [channels // len(feeding)] * len(feeding)
        for k in range(channels % len(feeding)):
            shares[k] += 1
        wide[v] = shares[place]
    for v in reversed(range(1, last)):
        if v not in wide:
            wide[v] = max(wide[w] for u, w in edges if u == v)
    return wide


def reference_logits(network: NASBench101Network, text: str, images: Tensor, cells: int) -> Tensor:
    """The benchmark's network in plain functions, with the weights of `network` by name."""
    edges, labels = graph_of(text)
    last = len(labels) + 1
    state = network.state_dict()

    def conv_bn_relu(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        mean = y.mean((0, 2, 3), keepdim=True)
        y = (y - mean) / torch.sqrt(((y - mean) ** 2).mean((0, 2, 3), keepdim=True) + 1e-5)
        scale, shift = (state[f"{name}.norm.{part}"][:, None, None] for part in ("weight", "bias"))
        return torch.clamp(scale * y + shift, min=0)

    def max_pool(x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        side = x.shape[-1]
        return torch.stack([padded[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3)]).amax(0)

    x = conv_bn_relu(images, "stem")
    channels = x.shape[1]
    for stack in range(3):
        if stack:
            x = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
        wide = reference_channels(edges, labels, channels << stack)
        for cell in range(cells):
            prefix = f"stacks.{stack}.{cell}"
            values = {}
            for v, label in enumerate(labels, start=1):
                total = torch.zeros(())
                for u, target in edges:
                    if target == v:
                        term = values[u] if u else conv_bn_relu(x, f"{prefix}.projections.{v}")
                        total = total + term[:, : wide[v]]
                values[v] = max_pool(total) if label == 2 else conv_bn_relu(total, f"{prefix}.operations.{v}")
                assert values[v].shape[1] == wide[v]
            parts = [values[u] for u, v in sorted(edges) if v == last and u]
            y = torch.cat(parts, 1) if parts else torch.zeros(())
            if (0, last) in edges:
                y = y + conv_bn_relu(x, f"{prefix}.projections.output")
            x = y
    return F.linear(x.mean((2, 3)), state["classifier.weight"], state["classifier.bias"])


REFERENCE_CELLS = [
    "input,output:0100",
    SMALL,
    UNEVEN,
    text_of(EXAMPLE_EDGES, EXAMPLE_LABELS),
    "input,conv1x1-bn-relu,maxpool3x3,conv1x1-bn-relu,conv1x1-bn-relu,conv3x3-bn-relu,output:"
    "0110000000100100001000000010000000100000010000000",
]


@pytest.mark.parametrize(("channels", "number"), [(16, 2), (7, 1)])
def test_the_network_matches_the_benchmarks_program(space: NASBench101, channels: int, number: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    for arch in [*REFERENCE_CELLS, *space.sample(25, seed=channels)]:
        network = space.network(arch, classes=5, channels=channels, cells=number, seed=2).double()
        shake(network)
        expected = reference_logits(network, space.definition(arch), images, number)
        with torch.no_grad():
            found = network(images.contiguous(memory_format=torch.channels_last))
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9), arch


@settings(max_examples=20)
@given(text=cells(), data=st.data(), seed=st.integers(0, 2**40))
def test_all_spellings_of_a_cell_have_the_identical_network(
    space: NASBench101, text: str, data: st.DataObject, seed: int
) -> None:
    other = text_of(*data.draw(st.sampled_from(relabellings(graph_of(str(parse_definition(text)))))))
    images = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    sizes = {"classes": 3, "channels": 5, "cells": 1, "seed": seed}
    with torch.no_grad():
        outputs = [space.network(arch, **sizes)(images) for arch in (text, other, space.key(text))]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_gradients_reach_every_weight(space: NASBench101) -> None:
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    for arch in [*REFERENCE_CELLS, *space.sample(15, seed=1)]:
        network = space.network(arch, classes=4, channels=6, cells=1).double()
        F.cross_entropy(network(images), labels).backward()
        for name, p in network.named_parameters():
            assert p.grad is not None, f"{name} of {arch} has no gradient"
            if "conv" in name:
                assert p.grad.norm() > 1e-9, f"the gradient of {name} of {arch} is zero"


@pytest.mark.parametrize(("classes", "channels", "number", "size"), [(10, 16, 3, 32), (120, 4, 1, 16), (1, 5, 2, 4)])
def test_logits_have_a_row_for_each_image(classes: int, channels: int, number: int, size: int) -> None:
    network = SPACE.network(UNEVEN, classes=classes, channels=channels, cells=number)
    assert network(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize("size", [1, 2, 6, 30, 33])
def test_images_that_cannot_be_halved_twice_are_refused(size: int) -> None:
    network = SPACE.network(SMALL, channels=4, cells=1)
    with pytest.raises(UsageError, match=f"multiple of 4, got {size} pixels"):
        network(torch.zeros(2, 3, size, size))
    with pytest.raises(UsageError, match=f"multiple of 4, got {size} pixels"):
        SPACE.describe(SMALL, image_size=size)
    with pytest.raises(UsageError, match="multiple of 4"):
        network(torch.zeros(2, 3, 30, 32))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("classes", 0),
        ("channels", 3),
        ("channels", 0),
        ("cells", 0),
        *((w, 10**6) for w in ("classes", "channels", "cells")),
    ],
)
def test_impossible_sizes_are_refused_by_name(what: str, value: int) -> None:
    for use in (SPACE.network, SPACE.describe):
        with pytest.raises(UsageError, match=f"^{what}.* and 4096, got {value}$"):
            use(SMALL, **{what: value})


def test_no_two_layers_of_a_network_share_their_weights() -> None:
    network = SPACE.network(text_of(EXAMPLE_EDGES, EXAMPLE_LABELS), cells=2)
    tensors = [m.weight.detach().flatten()[:16] for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len({tuple(tensor.tolist()) for tensor in tensors}) == len(tensors) == 1 + 3 * 2 * (4 + 3) + 1


def test_building_a_network_leaves_global_random_states_alone() -> None:
    torch.manual_seed(17)
    expected = torch.rand(4)
    torch.manual_seed(17)
    SPACE.network(SMALL, channels=4, cells=1)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("layer", "digest"),
    [
        ("stem.conv", "bfc8a1505ba1ef2de0bcfd33e35ef26e"),
        ("stacks.1.2.operations.1.conv", "37034b8492a2ce8ae1b7cdef0dea5bb4"),
        ("stacks.2.0.projections.output.conv", "c2df84e1f1e8f00ad405c9b65cee758f"),
        ("classifier", "1a3e1fc8dde261676c91353bcb73bed4"),
    ],
)
def test_weights_of_seed_0_match_the_stored_runs(layer: str, digest: str) -> None:
    """A change here makes every stored metric irreproducible: it needs a new engine version, not a new digest."""
    network = SPACE.network("input,conv3x3-bn-relu,output:011001000", channels=16, cells=3, seed=0)
    values = network.get_submodule(layer).weight.detach().numpy()
    assert blake2b(values.astype("<f4").tobytes(), digest_size=16).hexdigest() == digest


# Metrics of these networks.


@pytest.mark.parametrize("arch", REFERENCE_CELLS)
def test_columns_of_cells_match_autograd(arch: str) -> None:
    network = SPACE.network(arch, classes=5, channels=5, cells=1).double()
    shake(network)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((7, 3, 8, 8), generator=generator, dtype=torch.float64)
    labels = torch.arange(7) % 5
    metrics = compute_metrics(network, images, labels)
    agrees(metrics, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


def test_metrics_of_real_images_are_finite_and_close_to_float64(space: NASBench101) -> None:
    folder = os.environ.get("HNAS_TEST_DATA")
    if not folder:
        pytest.skip("HNAS_TEST_DATA is unset; it names the folder with cifar10")
    batch = training_batch(open_dataset(str(Path(folder) / "cifar10")), 16, 0)
    images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
    for arch in [EXAMPLE, *space.sample(2, seed=8)]:
        network = space.network(arch, cells=1)
        single = compute_metrics(network, images, labels)
        double = compute_metrics(network.double(), images.double(), labels)
        assert single.status == double.status == "ok"
        for column in ("grad_norm", "snip", "trace"):
            assert getattr(single, column) == pytest.approx(getattr(double, column), rel=2e-3)
        assert single.kappa == pytest.approx(double.kappa, rel=0.05)


EDGES = tuple(combinations(range(7), 2))
decisions = st.tuples(*(st.integers(0, 1) for _ in EDGES), *(st.integers(0, 2) for _ in range(5)))


def hash_of(matrix: np.ndarray, operations: list[str]) -> str | None:
    try:
        return module_hash(matrix, ["input", *operations, "output"])
    except UsageError:
        return None


def on_seven_vertices(space: NASBench101, arch: str) -> tuple[np.ndarray, list[str]]:
    """Return matrix and operations of a cell, with blank rows before the output as naszilla adds them."""
    names, _, bits = space.definition(arch).partition(":")
    operations = names.split(",")[1:-1]
    v = len(operations) + 2
    small = np.array([int(bit) for bit in bits]).reshape(v, v)
    matrix = np.zeros((7, 7), int)
    matrix[: v - 1, : v - 1], matrix[: v - 1, 6] = small[:-1, :-1], small[:-1, -1]
    return matrix, operations + ["conv3x3-bn-relu"] * (7 - v)


@given(drawn=decisions)
@settings(max_examples=300)
def test_decisions_make_cells_of_the_table_or_none(space: NASBench101, drawn: tuple[int, ...]) -> None:
    matrix = np.zeros((7, 7), int)
    for edge, there in zip(EDGES, drawn, strict=False):
        matrix[edge] = there
    arch = space.decode(drawn)
    assert arch == hash_of(matrix, [OPERATIONS[label] for label in drawn[21:]])
    if arch is not None:
        assert space.canonical(arch) == arch
        assert space.decode(space.encode(arch)) == arch


def test_cells_of_every_size_have_decisions(space: NASBench101) -> None:
    assert len(space.choices) == 26
    for arch in [SMALL, "input,output:0100", *space.sample(200, seed=5)]:
        assert space.decode(space.encode(arch)) == space.key(arch)


def test_mutation_matches_the_published_one_from_the_pruned_cell(space: NASBench101) -> None:
    for seed, arch in enumerate([space.key(SMALL), *space.sample(100, seed=6)]):
        matrix, operations = on_seven_vertices(space, arch)
        random = np.random.default_rng(seed)
        while True:
            draws = iter(random.random(26).tolist())
            new_matrix, new_operations = matrix.copy(), list(operations)
            for edge in EDGES:
                if next(draws) < 1 / 7:
                    new_matrix[edge] = 1 - new_matrix[edge]
            for place in range(5):
                draw = next(draws)
                if draw < 1 / 5:
                    others = [OPERATIONS[(OPERATIONS.index(operations[place]) + k) % 3] for k in (1, 2)]
                    new_operations[place] = others[draw >= 1 / 10]
            expected = hash_of(new_matrix, new_operations)
            if expected not in (None, arch):
                break
        assert space.mutate(arch, np.random.default_rng(seed)) == expected


def test_neighbours_are_all_cells_one_edit_away(space: NASBench101) -> None:
    for arch in [SMALL, "input,output:0100", *space.sample(60, seed=7)]:
        names, _, bits = space.definition(arch).partition(":")
        operations = names.split(",")[1:-1]
        v = len(operations) + 2
        matrix = np.array([int(bit) for bit in bits]).reshape(v, v)
        expected: set[str | None] = set()
        for order in permutations(range(1, v - 1)):
            renumbered = matrix[np.ix_((0, *order, v - 1), (0, *order, v - 1))]
            if np.tril(renumbered).any():
                continue
            for edge in combinations(range(v), 2):
                flipped = renumbered.copy()
                flipped[edge] = 1 - flipped[edge]
                expected.add(hash_of(flipped, [operations[u - 1] for u in order]))
        for place, present in enumerate(operations):
            expected |= {
                hash_of(matrix, [*operations[:place], other, *operations[place + 1 :]])
                for other in OPERATIONS
                if other != present
            }
        expected -= {None, space.key(arch)}
        around = space.neighbours(arch)
        assert around == sorted(set(around))
        if v == 7:
            assert set(around) == expected
            continue
        # In addition, cells with one more vertex from which removing an edge leads back to this cell.
        assert set(around) >= expected
        assert arch != SMALL or len(around) > len(expected)
        assert all(
            len(space.describe(other)["operations"].split(",")) == v + 1 and space.key(arch) in space.neighbours(other)
            for other in set(around) - expected
        )


def test_neighbours_are_symmetric_unless_two_vertices_are_pruned(space: NASBench101) -> None:
    pairs = 0
    for arch in space.sample(40, seed=8):
        size = space.describe(arch)["vertices"]
        for other in space.neighbours(arch):
            if size - space.describe(other)["vertices"] <= 1:
                assert arch in space.neighbours(other)
                pairs += 1
    assert pairs > 500
