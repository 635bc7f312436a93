"""How workers use GPUs, tested without one: the kind of cluster, the visible GPUs, the precision."""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hnas import compute_metrics
from hnas.devices import Numerics, full_float32, numerics, use_float32, visible_gpus
from hnas.errors import HnasError
from hnas.pipeline.cluster import connection as clusters
from hnas.pipeline.cluster.local_cluster import SharedGPUCluster, default_workers, local_cluster, physical_cores
from hnas.pipeline.precompute import driver as precompute
from hnas.pipeline.precompute import worker
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from tests.support.places import SHIPPED as TABLES
from tests.support.runs import SPACE, fill, job_of, metrics_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def flags() -> Iterator[None]:
    """Restores the settings that `use_float32` changes."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    products = torch.get_float32_matmul_precision()
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.set_float32_matmul_precision(products)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


# Numbers.


def test_a_gpu_computes_in_full_float32_and_reproducibly(flags, monkeypatch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert numerics("cuda") == Numerics("cuda", "a GPU", tf32=True, deterministic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a deprecated setting would warn
        use_float32("cuda")
        assert numerics("cuda") == Numerics("cuda", "a GPU", tf32=False, deterministic=True)
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has one way to set TF32")
def test_tf32_is_turned_off_however_it_was_enabled(flags, monkeypatch) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    use_float32("cuda")
    assert not numerics("cuda").tf32
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"


def precision() -> tuple[object, ...]:
    """The settings of CUDA's precision and repeatability."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


@pytest.mark.parametrize("tf32", [False, True])
def test_full_float32_lasts_for_one_computation(flags, tf32) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32, True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
    before, seen = precision(), []
    assert before == (tf32, True, True, False)

    class Looking(torch.nn.Linear):
        def forward(self, x):
            seen.append(precision())
            return super().forward(x.flatten(1))

    images, labels = torch.randn(4, 3, 2, 2), torch.arange(4) % 2
    compute_metrics(Looking(12, 2), images, labels, scores="zico", further=(images + 1, labels))
    assert len(seen) > 2
    assert set(seen) == {(False, False, False, True)}
    assert precision() == before
    with pytest.raises(HnasError):
        compute_metrics(Looking(13, 2), images, labels)
    assert precision() == before


@pytest.mark.parametrize("wanted", ["highest", "high", "medium"])
def test_full_float32_keeps_the_precision_of_products(flags, wanted) -> None:
    torch.set_float32_matmul_precision(wanted)
    settings, of_cpu = precision(), getattr(torch.backends.mkldnn, "matmul", None)
    with full_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert getattr(of_cpu, "fp32_precision", "ieee") == "ieee"
    assert torch.get_float32_matmul_precision() == wanted
    assert precision() == settings


def test_full_float32_of_overlapping_threads_is_restored_by_the_last(flags) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, True
    before = precision()
    first, second = full_float32(), full_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert precision() == (False, False, False, True)
    second.__exit__(None, None, None)
    assert precision() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has one way to set TF32")
def test_full_float32_keeps_settings_of_the_newer_kind(flags) -> None:
    kinds = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
    kinds[1].fp32_precision = "ieee"
    before = [kind.fp32_precision for kind in kinds]
    with full_float32():
        assert precision() == (False, False, False, True)
    assert [kind.fp32_precision for kind in kinds] == before
    kinds[1].fp32_precision = "tf32"


def test_cpu_settings_are_unchanged(flags) -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    use_float32("cpu")
    assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.allow_tf32
    assert numerics("cpu").device == "cpu"
    assert not numerics("cpu").tf32


def test_a_chunk_equals_its_architectures_computed_singly(filled) -> None:
    whole, plan = filled
    job = job_of(whole, plan)
    batch = worker.resident_batch(job)
    architectures = [arch for _, arch in plan.todo[:5]]
    results, seconds, _ = worker.measure_all(job, architectures, batch)
    for arch, metrics in zip(architectures, results, strict=True):
        alone = worker.measure(job, arch, batch)
        assert metrics.columns() == alone.columns()
        assert torch.equal(metrics.eigenvalues, alone.eigenvalues)
    assert len(seconds) == 5
    assert all(0 < one < 10 for one in seconds)


def test_an_architecture_that_fails_in_a_chunk_is_named(filled, monkeypatch) -> None:
    whole, plan = filled
    job = job_of(whole, plan)
    batch = worker.resident_batch(job)
    architectures = [arch for _, arch in plan.todo[:2]]

    class Lost:
        def result(self) -> None:
            raise RuntimeError("the device is gone\nand more")

    queued = iter([worker.queue_metrics(worker._network(job, architectures[0], batch.images), *batch[:2]), Lost()])
    monkeypatch.setattr(worker, "queue_metrics", lambda *_, **__: next(queued))
    with pytest.raises(HnasError) as error:
        worker.measure_all(job, architectures, batch)
    assert str(error.value) == f"the metrics of {architectures[1]} could not be computed: the device is gone"


def test_a_worker_reads_and_moves_a_batch_once(filled, monkeypatch) -> None:
    whole, plan = filled
    job = job_of(whole, plan)
    first = worker.resident_batch(job)
    monkeypatch.setattr(Run, "batch", lambda *_: pytest.fail("the batch was read again"))
    for other in (job, worker.replace(job, token="another precompute"), worker.replace(job, device="auto")):
        again = worker.resident_batch(other)
        assert again[0] is first[0]
        assert again[1] is first[1]


def test_another_run_has_another_batch(store, filled, small_plan) -> None:
    whole, plan = filled
    other = small_plan(store, sample=2, seed=1)
    fill(store, other)
    images, *_ = worker.resident_batch(job_of(whole, plan))
    assert not torch.equal(worker.resident_batch(job_of(store, other))[0], images)


# Clusters.


def test_gpus_are_named_as_cuda_names_them(monkeypatch) -> None:
    gpus(monkeypatch, 0)
    assert visible_gpus() == []
    gpus(monkeypatch, 3)
    assert visible_gpus() == ["0", "1", "2"]
    gpus(monkeypatch, 2, "3, GPU-8932f937")
    assert visible_gpus() == ["3", "GPU-8932f937"]
    gpus(monkeypatch, 1, "5,-1,7")  # CUDA stops at the first invalid entry
    assert visible_gpus() == ["5"]


@pytest.mark.parametrize(
    ("count", "device", "workers"), [(4, "auto", 4), (1, "cuda", 1), (4, "cpu", None), (0, "auto", None)]
)
def test_the_default_is_one_worker_per_gpu(monkeypatch, count, device, workers) -> None:
    gpus(monkeypatch, count)
    assert default_workers(device) == (workers or physical_cores())


def cluster_options(workers: int, visible: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    assert local_cluster(workers, visible, lambda **options: found.update(options) or "a cluster") == "a cluster"
    return found


@pytest.mark.parametrize(("workers", "used"), [(4, ["0", "1", "2", "3"]), (2, ["0", "1"])])
def test_several_gpus_use_dask_cuda(workers, used) -> None:
    found = cluster_options(workers, ["0", "1", "2", "3"])
    assert found["CUDA_VISIBLE_DEVICES"] == used
    assert found["n_workers"] == workers
    assert found["threads_per_worker"] == 1
    assert found["host"] == "127.0.0.1"
    assert found["dashboard_address"] == "127.0.0.1:0"


def test_dask_cuda_is_used_if_installed(monkeypatch) -> None:
    installed = types.ModuleType("dask_cuda")
    installed.LocalCUDACluster = lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_cuda", installed)
    assert local_cluster(2, ["0", "1"])["CUDA_VISIBLE_DEVICES"] == ["0", "1"]


def refuse(**_: object) -> None:
    pytest.fail("dask-cuda gives each worker a GPU of its own")


@pytest.mark.parametrize(
    ("workers", "visible", "seen"),
    [(3, ["0", "GPU-8932f937"], ["0", "0", "GPU-8932f937"]), (2, ["5"], ["5", "5"])],
)
def test_more_workers_than_gpus_share_them_in_turn(workers, visible, seen) -> None:
    with local_cluster(workers, visible, refuse) as cluster, cluster.get_client() as client:
        client.wait_for_workers(workers, timeout=60)
        found = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(found.values()) == seen
        assert {address.split(":")[1] for address in found} == {"//127.0.0.1"}
        assert set(client.nthreads().values()) == {1}


def test_without_dask_cuda_each_worker_still_gets_its_gpu(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", None)  # makes `import dask_cuda` fail
    with local_cluster(2, ["0", "1"]) as cluster, cluster.get_client() as client:
        assert isinstance(cluster, SharedGPUCluster)
        client.wait_for_workers(2, timeout=60)
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["0", "1"]


@pytest.mark.parametrize(
    ("device", "workers", "expected"), [("auto", 6, (6, ["0", "1"])), ("cuda", None, (2, ["0", "1"]))]
)
def test_precompute_asks_for_workers_on_its_gpus(store, monkeypatch, small_plan, device, workers, expected) -> None:
    gpus(monkeypatch, 2)

    def recorded(*arguments: object) -> None:
        assert arguments == expected
        raise HnasError("asked")

    monkeypatch.setattr(clusters, "local_cluster", recorded)
    with pytest.raises(HnasError, match="asked"):
        precompute.precompute(store, SPACE, small_plan(store, sample=2), device=device, workers=workers)


def test_precompute_on_the_cpu_does_not_touch_gpus(store, monkeypatch, small_plan) -> None:
    gpus(monkeypatch, 2)

    def recorded(*arguments: object) -> None:
        assert arguments == (3, [])
        raise HnasError("asked")

    monkeypatch.setattr(clusters, "local_cluster", recorded)
    with pytest.raises(HnasError, match="asked"):
        precompute.precompute(store, SPACE, small_plan(store, sample=2), device="cpu", workers=3)


# The record.


def test_a_session_records_its_device_and_numerics(store, small_plan) -> None:
    plan = small_plan(store, sample=4)
    run = precompute.precompute(store, SPACE, plan, workers=1, device="cpu").run
    (session,) = store.read_json("runs", run, "run.json")["sessions"]
    assert session["device"] == "cpu"
    assert session["devices"] == [{"device": "cpu", "name": numerics("cpu").name, "tf32": False, "deterministic": True}]
    assert len(metrics_of(store, run)) == session["rows"]


def test_shipped_runs_keep_their_names() -> None:
    tables = TABLES
    records = sorted(tables.glob("*/runs/*/run.json"))
    assert len(records) >= 3
    for record in records:
        run = record.parent.name
        assert Run(Store(str(record.parents[2])), run).read_settings().id == run
