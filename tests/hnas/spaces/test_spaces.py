"""The registry of search spaces: built-in and third-party spaces, and the cost of importing them."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch

import hnas
from hnas import UsageError, search_spaces
from hnas.pipeline.store.space_cache import StoreCache
from hnas.pipeline.store.store import Store
from hnas.spaces import ENTRY_POINT_GROUP, SearchSpace, SearchSpaces, definition_of, key_of, registry, space_of
from hnas.spaces.nasbench101.space import NASBench101
from hnas.spaces.nasbench201.space import NASBench201

CELL = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"

TOY = """
from hnas import UsageError

class Toy:
    name = "toy"
    size = 3
    channels = 1
    cells = 1

    def enumerate(self):
        return iter(("t0", "t1", "t2"))

    def sample(self, n, seed):
        return ["t0", "t1", "t2"][:n]

    def canonical(self, arch):
        if arch not in ("t0", "t1", "t2"):
            raise UsageError(f"{arch!r} is no toy")
        return arch

    def network(self, arch, *, classes, channels, cells, seed):
        raise AssertionError("no test builds a toy network")

    def describe(self, arch):
        return {"params": 0}
"""

BUILT_IN = sorted(registry._BUILT_IN)

Install = Callable[..., SearchSpaces]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Pretend that packages with these entry points (name=target) are installed; `hnas_toy` has the class `Toy`."""
    (tmp_path / "hnas_toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hnas_toy", raising=False)

    def pretend(**targets: str) -> SearchSpaces:
        points = EntryPoints(EntryPoint(name, target, ENTRY_POINT_GROUP) for name, target in targets.items())
        others = EntryPoints([EntryPoint("stranger", "nowhere:Nothing", "another.group")])
        installed = EntryPoints([*points, *others])
        monkeypatch.setattr("hnas.registry.entry_points", lambda **criteria: installed.select(**criteria))
        spaces = SearchSpaces()
        monkeypatch.setattr(registry, "search_spaces", spaces)
        return spaces

    return pretend


def test_built_in_spaces_need_no_entry_point(install: Install) -> None:
    spaces = install()
    assert list(spaces) == BUILT_IN
    assert len(spaces) == len(BUILT_IN)
    assert "nasbench201" in spaces
    assert isinstance(spaces["nasbench201"], NASBench201)
    assert isinstance(spaces["nasbench101"], NASBench101)


def test_built_in_spaces_follow_the_protocol() -> None:
    space = search_spaces["nasbench201"]
    assert isinstance(space, SearchSpace)
    assert (space.name, space.size, space.channels, space.cells) == ("nasbench201", 15625, 16, 5)
    assert hnas.search_spaces is search_spaces


def test_a_space_is_created_once() -> None:
    spaces = SearchSpaces()
    assert spaces["nasbench201"] is spaces["nasbench201"]


def test_an_unknown_name_error_lists_the_known_names(install: Install) -> None:
    spaces = install(toy="hnas_toy:Toy")
    with pytest.raises(UsageError, match=r"'nasbench2'.*nasbench201, toy"):
        spaces["nasbench2"]
    assert "nasbench2" not in spaces


def test_get_returns_none_for_an_unknown_name(install: Install) -> None:
    spaces = install()
    assert spaces.get("nasbench201") is spaces["nasbench201"]
    assert spaces.get("nasbench2") is None


def test_a_third_party_space_is_found_by_its_entry_point(install: Install) -> None:
    spaces = install(toy="hnas_toy:Toy")
    assert list(spaces) == sorted([*BUILT_IN, "toy"])
    assert len(spaces) == len(BUILT_IN) + 1
    assert "toy" in spaces
    assert isinstance(spaces["toy"], SearchSpace)
    assert [space.name for space in spaces.values()] == list(spaces)


def test_entry_points_of_other_groups_are_ignored(install: Install) -> None:
    assert "stranger" not in install(toy="hnas_toy:Toy")


@pytest.mark.parametrize("name", BUILT_IN)
def test_samples_are_drawn_by_whole_numbers_of_any_kind(name: str) -> None:
    space = search_spaces[name]
    assert space.sample(2, np.int64(1)) == space.sample(2, 1)  # type: ignore[arg-type]
    for seed in (-1, None, 1.0, np.array(1.5)):
        with pytest.raises(UsageError, match="seed must be a whole number between 0"):
            space.sample(2, seed)  # type: ignore[arg-type]


def test_a_space_is_imported_only_on_access(install: Install) -> None:
    spaces = install(toy="hnas_toy:Toy")
    assert "toy" in spaces
    assert list(spaces)
    assert spaces["nasbench201"]
    assert "hnas_toy" not in sys.modules
    assert spaces["toy"]
    assert "hnas_toy" in sys.modules


def test_an_entry_point_may_name_an_extra_as_packaging_allows(install: Install) -> None:
    assert install(toy="hnas_toy:Toy [gpu]")["toy"].name == "toy"


def test_a_third_party_package_cannot_replace_a_built_in_space(install: Install) -> None:
    spaces = install(nasbench201="hnas_toy:Toy")
    assert isinstance(spaces["nasbench201"], NASBench201)
    assert list(spaces) == BUILT_IN


def test_a_broken_package_leaves_the_other_spaces_usable(install: Install) -> None:
    spaces = install(broken="hnas_no_such_module:Space")
    assert isinstance(spaces["nasbench201"], NASBench201)
    assert "broken" in spaces
    with pytest.raises(Exception, match=r"hnas_no_such_module"):
        spaces["broken"]


def test_the_space_of_an_architecture_is_the_one_that_accepts_it(install: Install) -> None:
    spaces = install(toy="hnas_toy:Toy")
    assert space_of("t1") is spaces["toy"]
    assert space_of(CELL) is spaces["nasbench201"]
    assert space_of("input,maxpool3x3,output:010001000") is spaces["nasbench101"]


def test_an_architecture_of_no_space_is_refused_listing_the_spaces(install: Install) -> None:
    install(toy="hnas_toy:Toy")
    with pytest.raises(UsageError, match=r"'resnet18' must be an architecture of an installed space.*nasbench201, toy"):
        space_of("resnet18")


def test_a_single_installed_space_reports_its_own_error(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BUILT_IN", {"nasbench201": registry._BUILT_IN["nasbench201"]})
    install()
    with pytest.raises(UsageError, match=r"^operation 'max_pool'"):
        space_of("|max_pool~0|+|none~0|none~1|+|none~0|none~1|none~2|")


def test_if_no_space_accepts_an_architecture_each_says_why(install: Install) -> None:
    install()
    with pytest.raises(UsageError, match=r"an installed space.*nasbench201: operation 'max_pool'.*choose from none"):
        space_of("|max_pool~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    with pytest.raises(UsageError, match=r"nasbench101: operation 'avgpool3x3' is unknown"):
        space_of("input,avgpool3x3,output:010001000")


def test_long_malformed_texts_are_truncated_in_errors(install: Install) -> None:
    install()
    with pytest.raises(UsageError, match=r"xxx\.\.\.' must be an architecture of") as caught:
        space_of("x" * 10_000)
    assert len(str(caught.value)) < 1000


def test_a_broken_package_does_not_hide_the_space_of_an_architecture(install: Install) -> None:
    spaces = install(broken="hnas_no_such_module:Space")
    assert space_of(CELL) is spaces["nasbench201"]


def test_spaces_and_searches_load_neither_torch_nor_the_pipeline() -> None:
    script = """
import json, sys
heavy = {"torch", "dask", "distributed", "duckdb", "zarr", "typer", "hnas.pipeline"}
loaded = {}
def look(step):
    loaded[step] = sorted(heavy & set(sys.modules))
import hnas; look("hnas")
import hnas.spaces; look("hnas.spaces")
import hnas.spaces.nasbench201.space; look("hnas.spaces.nasbench201.space")
space = hnas.search_spaces["nasbench201"]
for arch in space.sample(3, seed=0):
    space.canonical(arch), space.describe(arch)
look("strings")
hnas.objective, hnas.search; look("search")
hnas.initialise; loaded["torch when needed"] = "torch" in sys.modules
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    steps = ["hnas", "hnas.spaces", "hnas.spaces.nasbench201.space", "strings", "search"]
    assert json.loads(done.stdout) == {**{step: [] for step in steps}, "torch when needed": True}


def test_every_public_name_of_hnas_can_be_had_and_others_are_refused() -> None:
    for name in hnas.__all__:
        assert getattr(hnas, name) is not None
    with pytest.raises(AttributeError, match=r"no_such_name"):
        _ = hnas.no_such_name


def test_spaces_use_the_cache_of_the_registry(install: Install, tmp_path: Path) -> None:
    spaces = install(thrifty="hnas_toy:Thrifty")
    with (tmp_path / "hnas_toy.py").open("a") as file:
        file.write("""
class Thrifty(Toy):
    cache = None

    def key(self, arch):
        return arch.strip().lower()

    def definition(self, arch):
        return f"toy {self.key(arch)}"
""")
    cache = StoreCache(Store(str(tmp_path / "store")))
    assert spaces["thrifty"].cache is None
    spaces.keep_in(cache)
    assert spaces["thrifty"].cache is cache
    assert cache.read("table") is None
    cache.write("table", b"content")
    assert cache.read("table") == b"content"
    assert not (tmp_path / "store").exists()
    cache.flush()
    assert StoreCache(Store(str(tmp_path / "store"))).read("table") == b"content"
    assert (tmp_path / "store" / "spaces" / "table").read_bytes() == b"content"
    assert key_of(spaces["thrifty"], " T0 ") == "t0"
    assert definition_of(spaces["thrifty"], " T0 ") == "toy t0"


def test_an_unwritable_cache_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "spaces").write_text("in the way")
    cache = StoreCache(Store(str(tmp_path / "store")))
    cache.write("table", b"content")
    cache.flush()
    assert cache.read("table") is None


def test_spaces_without_spellings_keep_architectures_unchanged() -> None:
    space = search_spaces["nasbench201"]
    assert key_of(space, f" {CELL}\n") == CELL
    assert definition_of(space, CELL) == CELL
    with pytest.raises(UsageError, match="nodes"):
        key_of(space, "nonsense")


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts"])
def test_a_forward_pass_creates_no_reference_cycles(name: str) -> None:
    """Activations in a cycle would stay in memory until Python's cyclic garbage collector runs."""
    space = search_spaces[name]
    images = torch.randn(2, 3, 16, 16)
    gc.collect()
    gc.disable()
    try:
        before = {id(found) for found in gc.get_objects() if type(found) is torch.Tensor}
        for arch in space.sample(8, 2):
            network = space.network(arch, classes=3, channels=4, cells=3 if name == "darts" else 1, seed=0)
            network(images)
            del network
        left = [f for f in gc.get_objects() if type(f) is torch.Tensor and id(f) not in before and f.dim() == 4]
        assert [tuple(found.shape) for found in left] == []
    finally:
        gc.enable()
