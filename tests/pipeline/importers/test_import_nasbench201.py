"""Importing NAS-Bench-201's own files: every value equals the benchmark's own API."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nas_201_api
import numpy as np
import pytest
import torch

from hnas.errors import UsageError
from hnas.pipeline.importers.nasbench201 import read_nasbench201
from hnas.pipeline.importers.nasbench201_results import Trials
from hnas.pipeline.importers.pickles.stream import Stream
from hnas.pipeline.importers.pickles.unpickle import unpickle
from tests.support.nasbench201_files import RESULTS, content, save
from tests.support.peer_results import ARCHS, by_key, collect, expected, ignore_progress


@pytest.fixture(scope="module", params=["legacy", "zip"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nb201") / "NAS-Bench-201-v1_1-096897.pth"
    return save(path, content(), archive=request.param == "zip")


@pytest.fixture(scope="module")
def api(file: Path) -> Any:
    # torch 2.6 and later reject the API's own torch.load(file), because the file holds numpy numbers.
    return nas_201_api.NASBench201API(torch.load(file, weights_only=False), verbose=False)


def test_every_value_equals_the_benchmarks_own_api(file: Path, api: Any) -> None:
    updates: list[tuple[int, int]] = []
    found = collect(read_nasbench201(file, lambda *progress: updates.append(progress)))
    finals, curves = expected(api, range(4))
    assert by_key(found["accuracies"]) == finals
    assert by_key(found["curves"]) == curves
    assert len(finals) == 74
    assert updates == sorted(updates)
    assert updates[-1][0] == updates[-1][1] > 800_000


def test_a_seed_has_the_values_of_get_more_info(file: Path, api: Any) -> None:
    rows = by_key(collect(read_nasbench201(file, ignore_progress))["accuracies"])
    for index, arch in enumerate(ARCHS):
        for dataset in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
            for hp, epochs, seed in (("12", 12, 777), ("200", 200, 777)):
                info = api.get_more_info(index, dataset, None, hp, seed)
                train, valid, test, seconds = rows[arch, dataset.lower(), epochs, seed, None]
                assert (train, test) == (info["train-accuracy"], info["test-accuracy"])
                assert seconds == info["train-all-time"]
                assert dataset == "cifar10" or valid == info["valid-accuracy"]


def test_version_1_0_has_only_the_half_of_cifar10_after_12_epochs(tmp_path: Path) -> None:
    def first(states: dict[str, Any]) -> dict[str, Any]:
        half = {key: result for key, result in states["all_results"].items() if key[0] == "cifar10-valid"}
        return {
            **states,
            "all_results": half,
            "dataset_seed": {"cifar10-valid": states["dataset_seed"]["cifar10-valid"]},
        }

    infos = {index: {"full": made["full"], "less": first(made["less"])} for index, made in RESULTS.items()}
    path = save(tmp_path / "NAS-Bench-201-v1_0-e61699.pth", content(arch2infos=infos))
    found = collect(read_nasbench201(path, ignore_progress))["accuracies"]
    assert {row["dataset"] for row in found if row["epochs"] == 12} == {"cifar10", "cifar10-valid"}
    assert all(row["test_accuracy"] is None for row in found if (row["dataset"], row["epochs"]) == ("cifar10", 12))
    whole = by_key(collect(read_nasbench201(save(tmp_path / "v1_1.pth", content()), ignore_progress))["accuracies"])
    assert {key: value for key, value in by_key(found).items() if key[2] == 200}.items() <= whole.items()


# --- memory ---------------------------------------------------------------------------------------------------------


def long_pickle(architectures: int) -> Iterator[bytes]:
    """A pickle of `architectures` equal results, each of which memoises all that it refers to."""
    results = pickle.dumps(RESULTS[0], 2).removeprefix(b"\x80\x02").removesuffix(b".")
    yield b"\x80\x02}X\n\0\0\0arch2infos}("
    for index in range(architectures):
        yield b"J" + index.to_bytes(4, "little") + results
    yield b"us."


def read_by_parts(parts: Iterator[bytes]) -> Any:
    return lambda count: next(parts, b"")


def test_memory_does_not_grow_with_the_file() -> None:
    peaks = []
    for count in (15, 60):
        stream = Stream(Path("long"), read_by_parts(long_pickle(count)))
        tracemalloc.start()
        assert sum(len(made) == 2 for _, made in unpickle(lambda s=stream: s, "NAS-Bench-201", "arch2infos")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert stream.offset > 9_000_000
    assert peaks[1] < 1.1 * peaks[0] < 25_000_000


def test_sharing_a_dropped_object_rereads_the_file_and_yields_entries_once() -> None:
    shared = {f"x-valid@{epoch}": epoch / 2 for epoch in range(300)}
    infos = {index: {"full": {"shared": shared, "own": {**shared, "more": 1.0}}} for index in range(5)}
    infos[7] = {"less": {name: float(len(name)) for name in shared}}
    for protocol in range(6):
        whole = pickle.dumps({"arch2infos": infos, "end": [shared]}, protocol)
        opened = []

        def source(whole: bytes = whole, opened: list[Stream] = opened) -> Stream:
            opened.append(Stream(Path("shared"), io.BytesIO(whole).read))
            return opened[-1]

        given: list[Any] = []

        def read(source: Any = source, given: list[Any] = given) -> Iterator[object]:
            given.append((yield from unpickle(source, "NAS-Bench-201", "arch2infos")))

        assert list(read()) == list(infos.items())
        assert given == [{"arch2infos": {}, "end": [shared]}]
        assert len(opened) == 3


def test_shared_names_are_kept_without_a_second_reading() -> None:
    infos = {
        index: {"full": {"a name": [np.float64(index)], f"own {index}": {"another name": 1}}} for index in range(9)
    }
    whole = pickle.dumps({"arch2infos": infos}, 2)
    once = iter([Stream(Path("names"), io.BytesIO(whole).read)])
    assert dict(unpickle(lambda: next(once), "NAS-Bench-201", "arch2infos")) == infos


def test_rows_come_in_batches_without_repeats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save(tmp_path / "file.pth", content())
    whole = collect(read_nasbench201(path, ignore_progress))
    monkeypatch.setattr("hnas.pipeline.importers.nasbench201_results._BATCH", 1000)
    batches = list(read_nasbench201(path, ignore_progress))
    assert [rows.table for rows in batches] == ["accuracies", "curves"] * 4
    assert collect(batches) == whole
    assert list(Trials(path).rows(last=True)) == []


# --- invalid files --------------------------------------------------------------------------------------------------


def refused(path: Path, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        collect(read_nasbench201(path, ignore_progress))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_files_are_rejected(tmp_path: Path) -> None:
    legacy = save(tmp_path / "legacy.pth", content()).read_bytes()
    archive = save(tmp_path / "zip.pth", content(), archive=True).read_bytes()
    middle = archive.index(b"train_acc1es") + 5
    damaged: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "was not written by torch; give NAS-Bench-201-v1_1-096897.pth"),
        "text": (b"arch,dataset\n", "was not written by torch"),
        "bz2": (b"BZh91AY&SY", "import them as nats-bench"),
        "pickle": (pickle.dumps({"arch2infos": RESULTS}), "that torch did not write"),
        "cut": (legacy[: len(legacy) // 2], "ends in the middle"),
        "cut early": (legacy[:40], "ends in the middle"),
        "almost whole": (legacy[: legacy.rindex(b"evaluated_indexes")], "ends in the middle"),
        "goes on": (legacy + b"more", "goes on after the end"),
        "cut zip": (archive[: len(archive) // 2], "is a damaged zip archive"),
        "wrong sum": (archive[:middle] + b"X" + archive[middle + 1 :], ""),
        "no archive": (b"PK\x03\x04 and nothing more", "is a damaged zip archive"),
        "tensors": (legacy.removesuffix(pickle.dumps([], 2)) + pickle.dumps(["0"], 2), "holds tensors"),
    }
    number = legacy.index(b"K\x0bG") + 4
    at = archive.index(legacy[number : number + 4])
    damaged["wrong number"] = (archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :], "Bad CRC-32")
    for name, (bad, words) in damaged.items():
        path = tmp_path / name
        path.write_bytes(bad)
        refused(path, words)
    refused(tmp_path / "missing", "cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.txt", "text")
    refused(tmp_path / "other.zip", "without torch's data.pkl")


def test_invalid_contents_are_rejected(tmp_path: Path) -> None:
    for archive in (False, True):
        for name, whole, words in (
            ("list", [1], "holds no architectures"),
            ("other", {"a": 1}, "holds no architectures"),
            ("none", content(arch2infos={}), "holds no architectures"),
            ("hps", content(arch2infos={0: {"12": RESULTS[0]["less"]}}), "other than 'less' and 'full'"),
            ("number", content(arch2infos={0: 5}), "architecture 0 has no results"),
            (
                "name",
                content(arch2infos={"a": RESULTS[0]}),
                "architecture 'a': each architecture must have its own number",
            ),
            (
                "negative",
                content(arch2infos={-1: RESULTS[0]}),
                "architecture -1: each architecture must have its own number",
            ),
            ("meta", content(meta_archs=list(ARCHS[::-1])), "but meta_archs lists it as"),
            ("no meta", content(meta_archs=None), "has no list of architectures"),
            ("tensor", content(extra=torch.zeros(3)), "holds a torch.FloatStorage"),
        ):
            refused(save(tmp_path / f"{name} {archive}", whole, archive=archive), words)
