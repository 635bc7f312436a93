"""Importing NATS-Bench's topology space: every value equals the benchmark's own API."""

from __future__ import annotations

import bz2
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats_bench
import pytest
import torch
from nats_bench.api_utils import PICKLE_EXT

from hnas.errors import UsageError
from hnas.pipeline.importers.nats_bench import read_nats_bench
from tests.support.nats_bench_files import RESULTS, make_file, make_folder, meta, save
from tests.support.peer_results import ARCHS, by_key, collect, expected, ignore_progress, quiet, results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("nats") / "NATS-tss-v1_0-3ffb9-simple")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_file(tmp_path_factory.mktemp("nats") / "NATS-tss-v1_0-3ffb9.pickle.pbz2")


@pytest.fixture(scope="module")
def api(file: Path) -> Any:
    return nats_bench.create(str(file), "tss", fast_mode=False, verbose=False)


@pytest.fixture(scope="module")
def tables(file: Path) -> dict[str, list[dict[str, Any]]]:
    return collect(read_nats_bench(file, ignore_progress))


def test_every_value_equals_the_benchmarks_own_api(api: Any, tables: dict[str, Any]) -> None:
    finals, curves = expected(api, range(4))
    assert by_key(tables["accuracies"]) == finals
    assert by_key(tables["curves"]) == curves
    assert len(finals) == 74
    assert len(curves) > 8_000


def test_rows_of_a_seed_equal_get_more_info(api: Any, tables: dict[str, Any]) -> None:
    rows = by_key(tables["curves"])
    asked = 0
    for index, arch in enumerate(ARCHS):
        for dataset in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
            for hp, epochs, seed in (("12", 12, 777), ("200", 200, 777)):
                for epoch in (0, 5, 10, epochs - 1):
                    info = api.get_more_info(index, dataset, epoch, hp, seed)
                    train, valid, test, seconds = rows[arch, dataset.lower(), epochs, seed, epoch + 1]
                    assert (train, seconds) == (info["train-accuracy"], info["train-all-time"])
                    # For a seed it returns only what exists for all seeds, and no validation on cifar10.
                    assert test == info.get("test-accuracy", test)
                    assert dataset == "cifar10" or valid == info.get("valid-accuracy", valid)
                    if "valtest-accuracy" in info:
                        whole = rows[arch, f"{dataset.lower()}-ori-test", epochs, seed, epoch + 1]
                        assert whole == (None, None, info["valtest-accuracy"], None)
                        asked += 1
    assert asked > 20


def test_means_over_seeds_equal_the_benchmarks_means(api: Any, tables: dict[str, Any]) -> None:
    def mean(arch: str, dataset: str, epochs: int, column: str) -> float:
        values = [
            row[column]
            for row in tables["accuracies"]
            if (row["arch"], row["dataset"], row["epochs"]) == (arch, dataset, epochs) and row[column] is not None
        ]
        return sum(values) / len(values)

    for index, arch in enumerate(ARCHS):
        for hp, epochs in (("12", 12), ("200", 200)):
            half, whole, hundred = (
                api.get_more_info(index, dataset, None, hp, is_random=False)
                for dataset in ("cifar10-valid", "cifar10", "cifar100")
            )
            assert mean(arch, "cifar10", epochs, "valid_accuracy") == pytest.approx(half["valid-accuracy"], rel=1e-14)
            assert mean(arch, "cifar10", epochs, "test_accuracy") == pytest.approx(whole["test-accuracy"], rel=1e-14)
            assert mean(arch, "cifar100", epochs, "valid_accuracy") == pytest.approx(hundred["valid-accuracy"])
            assert mean(arch, "cifar100", epochs, "test_accuracy") == pytest.approx(hundred["test-accuracy"])


def test_the_folder_and_the_file_give_the_same_rows(folder: Path, tables: dict[str, Any]) -> None:
    updates: list[tuple[int, int]] = []
    assert collect(read_nats_bench(folder, lambda *progress: updates.append(progress))) == tables
    assert updates == [(1, 4), (2, 4), (3, 4), (4, 4)]
    fast = nats_bench.create(str(folder), "tss", fast_mode=True, verbose=False)
    with quiet():
        finals, _ = expected(fast, range(4))
    assert by_key(tables["accuracies"]) == finals


def test_weights_of_the_full_folder_are_skipped(tmp_path: Path, folder: Path) -> None:
    weights = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.BatchNorm2d(40)).state_dict()
    full = [OrderedDict(results(nats_bench, index, weights=weights)) for index in range(2)]
    simple = [OrderedDict(results(nats_bench, index)) for index in range(2)]
    tables = [
        collect(read_nats_bench(make_folder(tmp_path / name, made), ignore_progress))
        for name, made in (("full", full), ("simple", simple))
    ]
    assert tables[0] == tables[1]
    assert tables[0]["accuracies"]


def test_part_of_the_folder_can_be_imported(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "part")
    (path / f"000001.{PICKLE_EXT}").unlink()
    (path / f"000003.{PICKLE_EXT}").rename(path / f"3.{PICKLE_EXT}")
    (path / "README.txt").write_text("copied by hand")
    assert {row["arch"] for row in collect(read_nats_bench(path, ignore_progress))["accuracies"]} == set(ARCHS) - {
        ARCHS[1]
    }


def test_progress_counts_bytes_of_the_file(file: Path) -> None:
    updates: list[tuple[int, int]] = []
    collect(read_nats_bench(file, lambda *progress: updates.append(progress)))
    assert updates == sorted(updates)
    assert updates[-1] == (file.stat().st_size, file.stat().st_size)


def changed(change: Callable[[Any], object]) -> Any:
    states = pickle.loads(pickle.dumps(RESULTS[0]))
    change(states)
    return states


TRIAL = ("cifar100", 777)


TIMES = dict.fromkeys(range(12), 1.0)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([1, 2], "architecture 0 has no results"),
        ({}, "architecture 0 has no results"),
        ({"200": {"arch_str": ARCHS[0]}}, "architecture 0, '200' has no all_results"),
        (changed(lambda s: s["200"].update(arch_str=5)), "architecture 0 has no arch_str"),
        (changed(lambda s: s["200"].update(arch_str=ARCHS[1])), "architecture 0 repeats the architecture"),
        (changed(lambda s: [s[hp].update(arch_str="8:8:16:64:8") for hp in s]), "from NATS-Bench's size space"),
        (changed(lambda s: [s[hp].update(arch_str="|none~0|") for hp in s]), "architecture 0: '|none~0|' describes 1"),
        (changed(lambda s: [s[hp].update(arch_str=ARCHS[1]) for hp in s]), "but meta_archs lists it as"),
        (changed(lambda s: s["200"]["all_results"].pop(TRIAL)), "'200' on cifar100 with seed 777 has no results"),
        (changed(lambda s: s["200"]["dataset_seed"].update(mnist=[777])), "has results on 'mnist'"),
        (changed(lambda s: s["12"]["all_results"][TRIAL].update(epochs=2**40)), "was trained for 1099511627776 epochs"),
        (changed(lambda s: s["12"]["all_results"][TRIAL].pop("train_acc1es")), "seed 777 has no train_acc1es"),
        (changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].pop(11)), "no accuracy after its last epoch"),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].update({3: "x"})),
            "result that is not a number",
        ),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].update({3: 101.0})),
            "is 101.0, out of range",
        ),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["eval_acc1es"].update({"x-test@3": -1.0})),
            "is -1.0, out of range",
        ),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].update({3: float("nan")})),
            "is nan, out of range",
        ),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].update({3: True})),
            "result that is not a number",
        ),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL]["train_acc1es"].update({3: 2**60})),
            "result that is not a number",
        ),
        (changed(lambda s: s["12"]["all_results"][TRIAL].update(train_times=[1.0])), "has no training times"),
        (
            changed(lambda s: s["12"]["all_results"][TRIAL].update(train_times=TIMES | {3: float("inf")})),
            "is not a number",
        ),
        (changed(lambda s: s["12"]["all_results"][TRIAL].update(train_times=TIMES | {3: -1.0})), "took -1.0 seconds"),
        (changed(lambda s: s.update({"90": s["12"]})), "has two trainings of 12 epochs on cifar10-valid with seed 111"),
    ],
)
def test_invalid_results_are_rejected(tmp_path: Path, states: object, words: str) -> None:
    for path in (
        make_folder(tmp_path / "folder", [states]),
        make_file(tmp_path / "file.pickle.pbz2", arch2infos={0: states}),
    ):
        with pytest.raises(UsageError) as caught:
            collect(read_nats_bench(path, ignore_progress))
        assert words in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def refused(path: Path, words: str) -> None:
    yielded = []
    with pytest.raises(UsageError) as caught:
        yielded += read_nats_bench(path, ignore_progress)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(collect(yielded)["accuracies"]) <= 4 * 40


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    content = bytearray(make_file(tmp_path / "good.pickle.pbz2").read_bytes())
    damaged = {
        "missing": (None, "No such file"),
        "empty": (b"", "not compressed with bz2"),
        "foreign": (b"arch,dataset,test_accuracy\n", "not compressed with bz2"),
        "cut": (content[: len(content) // 2], "ends in the middle"),
        "almost whole": (content[:-3], "ends in the middle"),
        "changed": (bytes(content[:3000]) + b"\0" + bytes(content[3001:]), ""),
        "wrong sum": (bytes(content[:-2]) + bytes([content[-2] ^ 0x55]) + bytes(content[-1:]), "Invalid data stream"),
        "cut before": (bz2.compress(bz2.decompress(content)[:-100]), "ends in the middle"),
        "goes on": (bz2.compress(bz2.decompress(content) + b"more"), "goes on after the end"),
        "no pickle": (bz2.compress(b"just text"), "is not a complete pickle"),
        "a list": (bz2.compress(pickle.dumps([1, 2])), "has no list of architectures"),
        "other": (bz2.compress(pickle.dumps({"a": 1})), "has no list of architectures"),
    }
    for name, (bad, words) in damaged.items():
        path = tmp_path / name
        if bad is not None:
            path.write_bytes(bad)
        refused(path, words)
    refused(make_file(tmp_path / "none", arch2infos={}), "holds no architectures")
    refused(
        make_file(tmp_path / "twice", arch2infos={0: RESULTS[0], 1: RESULTS[0]}),
        "repeats the architecture |avg_pool_3x3~0|",
    )
    refused(make_file(tmp_path / "size", meta_archs=["8:8:8:8:8"]), "from NATS-Bench's size space")
    refused(make_file(tmp_path / "short", meta_archs=[ARCHS[0]]), "but meta_archs lists only 1")


def test_invalid_folders_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", f"has no meta.{PICKLE_EXT}")
    refused(make_folder(tmp_path / "meta alone", []), "has no architecture files")
    path = make_folder(tmp_path / "twice")
    save(path / f"2.{PICKLE_EXT}", RESULTS[2])
    refused(path, "has architecture 2 twice")
    path = make_folder(tmp_path / "size")
    save(path / f"meta.{PICKLE_EXT}", meta(meta_archs=["8:8:8:8:8"]))
    refused(path, "hnas reads only the topology space")
    path = make_folder(tmp_path / "cut")
    last = path / f"000003.{PICKLE_EXT}"
    last.write_bytes(last.read_bytes()[:-40])
    refused(path, "000003.pickle.pbz2 ends in the middle")
