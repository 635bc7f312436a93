"""Small benchmark files made with the benchmarks' own packages, and the values that those packages read from them.

`package` is `nats_bench` or `nas_201_api`, which both have the classes `ArchResults` and `ResultsCount`. The values are
random, but the same ones are missing as in the authors' files: trainings of the old kind have no times, and on some
sets they were evaluated after the last epoch only. Seeds are strings with leading zeros.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from random import Random
from types import ModuleType
from typing import Any

import pyarrow as pa

from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.store.schema import SCHEMAS

ARCHS = (
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
)
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}


def training(package: ModuleType, random: Random, dataset: str, arch: str, seed: int, epochs: int, old: bool) -> Any:
    """A `ResultsCount`, of the old kind if `old`."""

    def percent(_: object) -> float:
        return random.uniform(0, 100)

    def each(make: Any) -> dict[int, float]:
        return {epoch: make(epoch) for epoch in range(epochs)}

    config = {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10}
    accuracies, losses = each(percent), each(percent)
    size = random.random()
    result = package.ResultsCount(
        dataset, None, accuracies, losses, size, 2 * size, config, f"{seed:04d}", epochs, None
    )
    if old:
        first, *others = SETS[dataset]
        result.update_OLD_eval(first, each(percent), each(percent))
        for name in others:
            result.update_OLD_eval(name, {epochs - 1: percent(0)}, {epochs - 1: percent(0)})
        result.update_latency([random.random() for _ in range(60)])
        return result
    result.update_train_info(accuracies, each(percent), losses, each(percent))
    names = [f"{name}@{epoch}" for name in SETS[dataset] for epoch in range(epochs)]
    result.update_eval(*({name: percent(0) for name in names} for _ in range(3)))
    return result


def results(package: ModuleType, index: int, *, weights: Any = None) -> dict[str, Any]:
    """`ArchResults` after 12 and after 200 epochs as dictionaries; seeds and kinds depend on `index`."""
    random = Random(index)
    made = {}
    for epochs, all_seeds in ((12, (111, 777)), (200, (777, 888, 999)[: 1 + index % 3])):
        information = package.ArchResults(index, ARCHS[index])
        for dataset in SETS:
            # The 12-epoch trainings on the half of CIFAR-10 have one more seed than those on other data sets.
            seeds = all_seeds if epochs == 200 or dataset == "cifar10-valid" else all_seeds[-1:]
            for seed in seeds:
                old = epochs == 200 and (index + seed) % 2 == 0
                result = training(package, random, dataset, ARCHS[index], seed, epochs, old)
                if weights is not None:
                    result.net_state_dict = weights
                information.update(dataset, seed, result)
        if weights is None:
            information.clear_params()
        made[str(epochs)] = information.state_dict()
    return made


def collect(rows: Iterable[Rows]) -> dict[str, list[dict[str, Any]]]:
    """Check the schemas of batches, and return the rows of each table."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for table, batch in rows:
        assert isinstance(batch, pa.RecordBatch)
        assert batch.schema.equals(SCHEMAS[table])
        found[table] += batch.to_pylist()
    return found


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Accuracies and seconds by architecture, data set, epochs, seed and epoch; keys must be unique."""
    made = {
        (row["arch"], row["dataset"], row["epochs"], row["seed"], row.get("epoch")): (
            row["train_accuracy"], row["valid_accuracy"], row["test_accuracy"], row["seconds"],
        )
        for row in rows
    }  # fmt: skip
    assert len(made) == len(rows)
    assert {row["space"] for row in rows} <= {"nasbench201"}
    return made


def expected(api: Any, indexes: Iterable[int]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The expected `by_key` of both tables, from the benchmark's own `api`."""
    finals: dict[Any, Any] = {}
    curves: dict[Any, Any] = {}
    for index in indexes:
        for hp in ("12", "200"):
            information = api.query_meta_info_by_index(index, hp)
            validation = {}
            for dataset in information.get_dataset_names():
                for seed, trial in information.query(dataset).items():
                    epochs = trial.get_total_epoch()
                    for epoch in range(epochs):
                        key = (api.arch(index), dataset.lower(), epochs, seed, epoch + 1)
                        train = trial.get_train(epoch)
                        valid, test = _evaluated(trial, "x-valid", epoch), _evaluated(trial, "ori-test", epoch)
                        whole = None
                        if dataset not in ("cifar10", "cifar10-valid"):
                            test, whole = _evaluated(trial, "x-test", epoch), test
                        if dataset == "cifar10-valid":
                            validation[epochs, seed, epoch] = valid
                        elif dataset == "cifar10":
                            valid = validation.pop((epochs, seed, epoch), None)
                        curves[key] = (train["accuracy"], valid, test, train["all_time"])
                        if whole is not None:
                            curves[(key[0], key[1] + "-ori-test", *key[2:])] = (None, None, whole, None)
            for (epochs, seed, epoch), valid in validation.items():
                curves[api.arch(index), "cifar10", epochs, seed, epoch + 1] = (None, valid, None, None)
    for (arch, dataset, epochs, seed, epoch), values in curves.items():
        if epoch == epochs:
            finals[arch, dataset, epochs, seed, None] = values
    return finals, curves


def _evaluated(trial: Any, name: str, epoch: int) -> float | None:
    try:
        return trial.get_eval(name, epoch)["accuracy"]
    except (KeyError, ValueError):
        return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the benchmarks' packages, which print what they do."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def ignore_progress(_: int, __: int) -> None:
    """A progress callback that does nothing."""
