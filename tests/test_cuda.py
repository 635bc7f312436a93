"""What runs on a CUDA device: numbers against those of the CPU, no waits, repeatability, commands, trainings.

Skipped where torch finds no CUDA device. With `DEVICE = "cpu"` and without the skip, all of it runs on the CPU too.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import Metrics, Recipe, compute_metrics, search_spaces, train
from hnas.devices import full_float32, numerics, use_float32
from hnas.metrics import queue_metrics
from hnas.metrics.compute import queue_statistics
from hnas.metrics.signs import _powers
from hnas.metrics.statistics import STATISTICS
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from hnas.scores.registry import scores
from hnas.training import TrainingResult
from tests.hnas.metrics.test_device import ARCHITECTURES
from tests.hnas.supernets.test_searches import SEARCHES, everything
from tests.support import networks
from tests.support.command_line import ARCHS, SETTINGS, Outcome, hnas, hnas_process
from tests.support.contents import snapshot
from tests.support.runs import metrics_of
from tests.support.stores import make_store
from tests.support.written_out import tiny_images

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

NTK = ("summed", "exact")
#: Scores that count, which are integers and must be equal.
COUNTS = {"gradsign", "linear_regions", "swap", "te_nas_regions"}
#: Cells without pooling, whose backward pass may add in any order. NAS-Bench-101's network itself has poolings of
#: windows that do not overlap, where nothing is added.
WITHOUT_POOLING = {
    "nasbench101": "input,conv3x3-bn-relu,conv1x1-bn-relu,conv3x3-bn-relu,output:0111000110000010000100000",
    "nasbench201": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
    "darts": (
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1), ('dil_conv_5x5', 2), "
        "('skip_connect', 1), ('sep_conv_5x5', 2), ('skip_connect', 1), ('dil_conv_3x3', 4)], "
        "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), "
        "('sep_conv_3x3', 2), ('skip_connect', 0), ('dil_conv_5x5', 2), ('skip_connect', 0), ('sep_conv_3x3', 4)], "
        "reduce_concat=range(2, 6))"
    ),
}
FAMILIES = (*ARCHITECTURES, "foreign")


@pytest.fixture
def as_workers() -> Iterator[None]:
    """The settings of workers."""
    with full_float32():
        yield


# Networks.


@dataclass(frozen=True)
class Case:
    """A network on the CPU, made anew by each `network()`, its batch, and what scores need besides."""

    network: Callable[[], nn.Module]
    batch: tuple[Tensor, Tensor]
    further: tuple[Tensor, Tensor]
    build: Callable[..., nn.Module] | None = None

    def metrics(self, device: str, dtype: torch.dtype, ntk: str = "summed", score: str = "") -> Metrics:
        """The metrics and scores on `device`."""
        network = self.network().to(device, dtype)
        batch, further = ((images.to(device, dtype), y.to(device)) for images, y in (self.batch, self.further))
        more: dict[str, Any] = {"further": further, "build": self.build, "seed": 3} if score else {}
        return compute_metrics(network, *batch, ntk, score, **more)


def built(name: str, arch: str, channels: int = 4, cells: int = 0, classes: int = networks.CLASSES) -> nn.Module:
    """A small network of a space; the parameters of its batch norms are drawn too."""
    cells = cells or (3 if name == "darts" else 1)
    network = search_spaces[name].network(arch, classes=classes, channels=channels, cells=cells, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks.shake(network)
    return network


def cases(family: str) -> dict[str, Case]:
    """The networks of a family by name, in a fixed order."""
    if family == "foreign":
        return {name: foreign(name) for name in networks.NETWORKS}
    return {f"{family} {i}": of_space(family, arch) for i, arch in enumerate(ARCHITECTURES[family])}


def of_space(name: str, arch: str) -> Case:
    batch, further = (networks.batch((3, 16, 16), size=8, seed=seed) for seed in (1, 2))
    return Case(partial(built, name, arch), batch, further, partial(built, name, arch))


def foreign(name: str) -> Case:
    _, shape = networks.build(name)
    batch, further = networks.batch(shape), networks.batch(shape, size=8, seed=2)
    return Case(lambda: networks.build(name)[0], batch, further)


@cache
def on_cpu(family: str, ntk: str, dtype: torch.dtype) -> dict[str, Metrics]:
    """The metrics of a family on the CPU."""
    return {name: case.metrics("cpu", dtype, ntk) for name, case in cases(family).items()}


def numbers(metrics: Metrics) -> dict[str, float]:
    """The columns and the eigenvalues, by name."""
    return {**metrics.columns(), **{f"eigenvalue {i}": v for i, v in enumerate(metrics.eigenvalues.tolist())}}


def apart(found: Mapping[str, float], expected: Mapping[str, float], tolerance: Callable[[str], float]) -> list[str]:
    """Describe the numbers that differ by more than the absolute `tolerance(name)`; NaN equals only NaN."""
    assert list(found) == list(expected)
    return [
        f"{name}: {found[name]!r} on {DEVICE}, {value!r} on the CPU"
        for name, value in expected.items()
        if math.isnan(found[name]) != math.isnan(value)
        or (not math.isnan(value) and found[name] != value and not abs(found[name] - value) <= tolerance(name))
    ]


def attempted(compute: Callable[[], list[str]]) -> list[str]:
    """The differences that `compute` finds, or its error, so that one run names all networks that fail."""
    try:
        return compute()
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


# Numbers.


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("ntk", NTK)
@pytest.mark.parametrize("family", FAMILIES)
def test_float64_metrics_equal_those_of_the_cpu(family: str, ntk: str) -> None:
    expected, wrong = on_cpu(family, ntk, torch.float64), {}
    for name, case in cases(family).items():

        def differences(name: str = name, case: Case = case) -> list[str]:
            on_device, known = case.metrics(DEVICE, torch.float64, ntk), expected[name]
            cpu, largest = numbers(known), float(known.eigenvalues[-1])

            def tolerance(column: str) -> float:
                # The smallest eigenvalues, and κ with them, are no more exact than the largest.
                if column.startswith("eigenvalue"):
                    return max(1e-8 * abs(cpu[column]), 1e-13 * largest)
                return abs(cpu[column]) * (max(1e-8, 1e-13 * cpu["kappa"]) if column == "kappa" else 1e-8)

            assert on_device.status == known.status
            torch.testing.assert_close(on_device.ntk, known.ntk, rtol=1e-8, atol=1e-12 * largest)
            return apart(numbers(on_device), cpu, tolerance)

        wrong[name] = attempted(differences)
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("ntk", NTK)
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_metrics_are_as_exact_as_on_the_cpu(family: str, ntk: str) -> None:
    exact, expected, wrong = on_cpu(family, ntk, torch.float64), on_cpu(family, ntk, torch.float32), {}
    for name, case in cases(family).items():

        def differences(name: str = name, case: Case = case) -> list[str]:
            on_device, cpu, true = case.metrics(DEVICE, torch.float32, ntk), numbers(expected[name]), exact[name]
            largest, curvature = float(true.eigenvalues[-1]), max(true.grasp_abs, true.grad_norm**2)

            def tolerance(column: str) -> float:
                size = abs(cpu[column])
                if column.startswith("eigenvalue"):
                    size = largest
                elif column == "kappa":
                    size *= max(10, 1e-2 * size)
                elif column == "snip_inner":
                    size = true.snip
                elif column.startswith("grasp"):
                    size = curvature
                # One ReLU whose input is a rounding error away from zero changes some columns by 3e-4.
                return 2e-3 * size + 10 * abs(cpu[column] - numbers(true)[column])

            assert on_device.status == expected[name].status
            return apart(numbers(on_device), cpu, tolerance)

        wrong[name] = attempted(differences)
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("score", list(scores))
def test_float64_scores_equal_those_of_the_cpu(score: str, family: str) -> None:
    wrong = {}
    for name, case in cases(family).items():

        def differences(case: Case = case) -> list[str]:
            cpu, on_device = (case.metrics(device, torch.float64, score=score) for device in ("cpu", DEVICE))
            assert sorted(cpu.scores) == sorted(scores[score].columns)
            return apart(
                on_device.scores, cpu.scores, lambda column: 0 if column in COUNTS else 1e-8 * abs(cpu.scores[column])
            )

        wrong[name] = attempted(differences)
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.parametrize("samples", [1, 22, 64, 130])
def test_words_of_patterns_are_exact_powers_of_two(samples: int) -> None:
    assert torch.equal(_powers(samples, torch.device(DEVICE)).cpu(), _powers(samples, torch.device("cpu")))


# Waits.


@contextmanager
def no_waits() -> Iterator[None]:
    """Raise `RuntimeError` where the host waits for the device inside."""
    if DEVICE == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("statistics", [(), STATISTICS], ids=["columns", "statistics of scores"])
@pytest.mark.parametrize("ntk", NTK)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_of_the_spaces_are_queued_without_a_wait(name: str, ntk: str, statistics: tuple[str, ...]) -> None:
    images, labels = (t.to(DEVICE) for t in networks.batch((3, 16, 16), size=8, dtype=torch.float32))
    first = [built(name, arch) for arch in ARCHITECTURES[name]]
    queue_metrics(built(name, ARCHITECTURES[name][0]).to(DEVICE), images, labels)  # reads the range of the labels
    pending = []
    with no_waits():
        for network in first:
            network = network.to(device=DEVICE, dtype=torch.float32, non_blocking=True)  # as workers do
            pending.append(queue_metrics(network, images, labels, ntk, statistics))
            if statistics:
                queue_statistics(network, images, labels, statistics, ntk)
    for arch, queued in zip(ARCHITECTURES[name], pending, strict=True):
        alone = compute_metrics(built(name, arch).to(DEVICE), images, labels, ntk)
        assert queued.result().trace == pytest.approx(alone.trace, rel=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="nothing waits on the CPU")
def test_the_counter_of_waits_sees_one() -> None:
    value = torch.ones(3, device=DEVICE)
    with no_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        float(value.sum())


# Repeatability and precision.


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("ntk", NTK)
@pytest.mark.parametrize("name", WITHOUT_POOLING)
def test_a_network_without_pooling_has_the_same_bits_each_time(name: str, ntk: str) -> None:
    images, labels = (t.to(DEVICE) for t in networks.batch((3, 16, 16), size=8, dtype=torch.float32))
    found = []
    for _ in range(3):
        metrics = compute_metrics(built(name, WITHOUT_POOLING[name]).to(DEVICE), images, labels, ntk)
        found.append({column: value.hex() for column, value in numbers(metrics).items()})
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("what", ["product", "convolution"])
def test_workers_compute_without_tf32(what: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(512, 512), (512, 512)] if what == "product" else [(8, 64, 16, 16), (64, 64, 3, 3)]
    a, b = (torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes)
    compute: Callable[[Tensor, Tensor], Tensor] = torch.matmul if what == "product" else F.conv2d
    exact = compute(a.double(), b.double())

    def error() -> float:
        return float(torch.linalg.vector_norm(compute(a, b) - exact) / torch.linalg.vector_norm(exact))

    with full_float32():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        rounded = error()
        use_float32(DEVICE)
        assert error() <= 1e-6
        assert not numerics(DEVICE).tf32
    if DEVICE == "cuda" and torch.cuda.get_device_capability() >= (8, 0):
        assert rounded > 1e-5, "this test sees TF32"


# The command.

COLUMNS = ("grad_norm", "grad_norm_l2", "snip", "trace")


def precompute(folder: Path, device: str, archs: tuple[str, ...], *options: object, workers: int = 2) -> Outcome:
    """Run `hnas precompute` in a process, with the store in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "archs.txt").write_text("\n".join(archs))
    done = hnas_process(
        *("precompute", *SETTINGS, "--architectures", folder / "archs.txt", "--device", device),
        *("--workers", workers, "--quiet", "--store", folder / "store", *options),
    )
    assert done.status == 0, done.err
    return done


def run_of(folder: Path) -> tuple[Store, str]:
    """The store in `folder` and its only run."""
    store = Store(str(folder / "store"))
    (name,) = store.names("runs")
    return store, name


def sessions(folder: Path) -> list[dict[str, Any]]:
    store, run = run_of(folder)
    record: dict[str, Any] = store.read_json("runs", run, "run.json")
    found: list[dict[str, Any]] = record["sessions"]
    return found


def test_a_run_on_the_device_agrees_with_one_of_the_cpu_and_continues_on_it(tmp_path: Path) -> None:
    archs, here, there = ARCHS[:7], tmp_path / "device", tmp_path / "cpu"
    precompute(here, DEVICE, archs[:6])
    (session,) = sessions(here)
    with full_float32():
        expected = vars(numerics(DEVICE))
    assert (session["device"], session["workers"], session["devices"]) == (DEVICE, 2, [expected])
    if DEVICE == "cuda":
        assert (expected["tf32"], expected["deterministic"]) == (False, True)
        assert expected["name"] == torch.cuda.get_device_name()

    precompute(there, "cpu", archs[:6])
    assert run_of(here)[1] == run_of(there)[1]
    rows, others = ({row["canonical"]: row for row in metrics_of(*run_of(folder))} for folder in (here, there))
    assert sorted(rows) == sorted(others)
    spectra, other_spectra = (NTKArrays(*run_of(folder)).read() for folder in (here, there))
    for canonical, other in others.items():
        row = rows[canonical]
        assert row["status"] == other["status"]
        for column in COLUMNS:
            assert row[column] == pytest.approx(other[column], rel=2e-3), (canonical, column)
        eigenvalues, others_eigenvalues = spectra[row["ntk_row"]], other_spectra[other["ntk_row"]]
        assert abs(eigenvalues - others_eigenvalues).max() <= 2e-3 * abs(others_eigenvalues).max()

    before = snapshot(str(here / "store" / "runs"))
    precompute(here, "cpu", archs[:6])
    assert snapshot(str(here / "store" / "runs")) == before, "the same command elsewhere computes nothing"
    precompute(here, "cpu", archs, workers=1)
    assert [(each["device"], each["rows"]) for each in sessions(here)] == [(DEVICE, len(rows)), ("cpu", 1)]


def test_a_run_on_the_device_has_all_scores(tmp_path: Path) -> None:
    archs = ARCHS[1:3]
    found = []
    for device in (DEVICE, "cpu"):
        precompute(tmp_path / device, device, archs, "--scores", "all")
        store, name = run_of(tmp_path / device)
        run, rows = Run(store, name), dict[str, dict[str, float]]()
        for part in store.files(*run.place("scores")):
            for row in store.read_table(None, *run.place("scores", part)).to_pylist():
                rows.setdefault(row.pop("canonical"), {}).update(row)
        found.append(rows)
    on_device, on_cpu = found
    assert len(on_cpu) == 2
    assert sorted(on_device) == sorted(on_cpu)
    for canonical, row in on_cpu.items():
        assert sorted(on_device[canonical]) == sorted(row)
        kept = {name: value for name, value in row.items() if "_seconds" not in name}
        assert len(kept) == sum(len(scores[name].columns) for name in scores)
        for name, value in kept.items():
            # The others depend on single signs, or on gradients that cancel, of which float32 has no digits.
            if name.partition("@")[0] in ("l2_norm", "synflow", "linear_regions", "nasi", "knas", "meco", "zen"):
                assert on_device[canonical][name] == pytest.approx(value, rel=5e-3), (canonical, name)
            assert math.isnan(on_device[canonical][name]) == math.isnan(value), (canonical, name)


# Trainings.

RECIPE = Recipe(epochs=3, batch_size=32, lr=0.05)
MEAN, STD = (0.5, 0.4, 0.45), (0.25, 0.2, 0.3)


class Kept:
    """A checkpoint in memory, read as that of a command is; interrupts at save number `stop`."""

    def __init__(self, stop: int = 0) -> None:
        self.files: list[bytes] = []
        self.stop = stop

    def load(self) -> dict[str, Any] | None:
        if not self.files:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(self.files[-1]), map_location="cpu", weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.files.append(file.getvalue())
        if len(self.files) == self.stop:
            raise KeyboardInterrupt


def trained(network: nn.Module, recipe: Recipe, checkpoint: Kept | None = None) -> TrainingResult:
    """Train on a hundred images, without the times in the result."""
    data = tiny_images(100, classes=networks.CLASSES)
    valid = tiny_images(30, classes=networks.CLASSES, seed=1)
    result = train(
        network, data.images, data.labels, mean=MEAN, std=STD, recipe=recipe, seed=3,
        valid=(valid.images, valid.labels), checkpoint=checkpoint,
    )  # fmt: skip
    return replace(result, seconds=0.0, curve=tuple(replace(epoch, seconds=0.0) for epoch in result.curve))


def to_train(kind: str) -> tuple[nn.Module, Recipe]:
    """A network on the device, and a recipe: that of DARTS draws random numbers on the device."""
    if kind == "darts":
        network = search_spaces["darts"].evaluation_network(  # type: ignore[attr-defined]
            WITHOUT_POOLING["darts"], classes=networks.CLASSES, channels=4, layers=3, auxiliary=False, drop_path=0.0,
            seed=0,
        )  # fmt: skip
        return network.to(DEVICE), replace(RECIPE, drop_path=0.3, cutout=4, clip=5.0)
    recipe = replace(RECIPE, optimizer="rmsprop", nesterov=False) if kind == "nasbench101" else RECIPE
    return built(kind, WITHOUT_POOLING[kind]).to(DEVICE), recipe


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("kind", ["nasbench101", "nasbench201", "darts"])
def test_a_resumed_training_equals_an_uninterrupted_one(kind: str) -> None:
    (undisturbed, recipe), (stopped, _), (resumed, _) = (to_train(kind) for _ in range(3))
    before = torch.get_rng_state()
    expected, kept = trained(undisturbed, recipe), Kept(stop=2)
    with pytest.raises(KeyboardInterrupt):
        trained(stopped, recipe, kept)
    assert trained(resumed, recipe, kept) == expected
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("name", WITHOUT_POOLING)
def test_a_training_in_float64_equals_one_on_the_cpu(name: str) -> None:
    recipe = replace(RECIPE, epochs=1)
    cpu, found = (
        trained(built(name, WITHOUT_POOLING[name]).to(device, torch.float64), recipe) for device in ("cpu", DEVICE)
    )
    assert found.train_loss == pytest.approx(cpu.train_loss, rel=1e-8)
    assert found.train_accuracy == cpu.train_accuracy


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("kind", ["nasbench101", "nasbench201", "darts"])
def test_a_mixed_training_learns_in_float32_weights(kind: str) -> None:
    (plain, recipe), (mixed, _) = (to_train(kind) for _ in range(2))
    expected, found = trained(plain, recipe), trained(mixed, replace(recipe, mixed=True))
    assert found.train_loss == pytest.approx(expected.train_loss, rel=0.1)
    if DEVICE == "cuda":
        assert found.train_loss != expected.train_loss
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}


@pytest.mark.usefixtures("as_workers")
@pytest.mark.parametrize("name", SEARCHES)
def test_a_resumed_supernet_equals_an_uninterrupted_one(name: str) -> None:
    kind, options = SEARCHES[name]

    def search() -> Any:
        made = kind(tiny_images(), kind.recipe_class(**options), seed=0, device=torch.device(DEVICE))
        if name == "te-nas":
            made.left = [[1, 2, 3], [2], [1], [3, 4], [1], [2]]  # the end of a search
        return made

    whole, stopped = Kept(), Kept(stop=1)
    undisturbed = search().run(whole)
    with pytest.raises(KeyboardInterrupt):
        search().run(stopped)
    resumed = search().run(stopped)
    assert (resumed.decisions, everything(resumed.course)) == (undisturbed.decisions, everything(undisturbed.course))
    assert len(whole.files) == len(stopped.files) > 1


def test_a_supernet_s_time_is_estimated() -> None:
    for name, (kind, options) in SEARCHES.items():
        search = kind(tiny_images(), kind.recipe_class(**options), seed=0, device=torch.device(DEVICE))
        assert 0 < search.estimate() < 600, name


# Commands that train or time.


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "made").mkdir()
    return make_store(tmp_path / "made", architectures=12)


def answer(done: Outcome) -> dict[str, Any]:
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_evaluate_trains_once(store: Store) -> None:
    small = ("--dataset", "digits", "--epochs", 1, "--channels", 4, "--cells", 1, "--device", DEVICE)
    command = ("evaluate", WITHOUT_POOLING["nasbench201"], *small, "--store", store.root)
    first = answer(hnas(*command, "--json"))
    assert answer(hnas(*command, "--json")) == first
    mixed = answer(hnas(*command, "--recipe-option", "mixed=true", "--json"))
    assert (mixed != first) == (DEVICE == "cuda")


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_search_trains_on_the_device(store: Store, parallel: int) -> None:
    command = (
        *("search", "nasbench201", "--oracle", "train", "--dataset", "digits", "--epochs", 1, "--queries", 3),
        *("--device", DEVICE, "--parallel", parallel, "--json", "--store", store.root),
    )
    dry = hnas_process(*command[:-3], "--dry-run", "--store", store.root)
    assert dry.status == 0, dry.err
    found = answer(hnas_process(*command))
    assert len(found["queries"]) == 3
    if parallel == 1:  # otherwise the order of arrival decides what is proposed next
        assert answer(hnas_process(*command))["best"] == found["best"]


@pytest.mark.parametrize("method", ["darts", "gdas", "nasi"])
def test_a_search_on_a_supernet_runs_on_the_device(store: Store, method: str) -> None:
    size = ["channels=2", "cells=1", "batch_size=20"]
    size += ["samples=2"] if method == "nasi" else ["supernet_epochs=2", "most_images=40"]
    options = [word for option in size for word in ("--option", option)]
    command = (
        *("search", "nasbench201", "--method", method, *options, "--oracle", "train", "--dataset", "digits"),
        *("--epochs", 1, "--device", DEVICE, "--json", "--store", store.root),
    )
    found = answer(hnas(*command))
    (name,) = store.folders("supernets")
    assert store.read_json("supernets", name, "supernet.json")["settings"]["device"] == DEVICE
    assert answer(hnas(*command))["best"] == found["best"]


def test_latencies_on_the_device_are_a_column(store: Store) -> None:
    done = hnas(
        *("latency", "nasbench201", "--channels", 4, "--cells", 1, "--device", DEVICE, "--repeats", 2, "--sample", 3),
        *("-q", "--store", store.root),
    )
    assert done.status == 0, done.err
    column = f"latency_ms_{'cuda' if DEVICE == 'cuda' else 'cpu1'}_b1_c4_n1"
    rows = connect(store).execute(f"SELECT {column} FROM pool WHERE {column} IS NOT NULL").fetchall()
    assert len(rows) == 3
    assert all(ms > 0 for (ms,) in rows)
