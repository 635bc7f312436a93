"""NATS-Bench's files, made with the benchmark's own package."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import nats_bench
from nats_bench.api_utils import PICKLE_EXT, pickle_save

from tests.support.peer_results import ARCHS, SETS, results

RESULTS = [OrderedDict(results(nats_bench, index)) for index in range(len(ARCHS))]
for states in RESULTS:
    # In the authors' files, the training times of all epochs are equal: an OrderedDict of the mean.
    for hp in states:
        information = nats_bench.ArchResults.create_from_state_dict(states[hp])
        for dataset in information.get_dataset_names():
            information.reset_pseudo_train_times(dataset, None, 2.5)
            for name in SETS[dataset]:
                information.reset_pseudo_eval_times(dataset, None, name, 0.5)
            information.reset_latency(dataset, None, 0.01)
        states[hp] = information.state_dict()


def save(path: Path, content: object) -> Path:
    pickle_save(content, str(path), ext="")
    return path


def meta(**change: object) -> dict[str, object]:
    return {"meta_archs": list(ARCHS), "total_archs": 4, "arch2infos": None, "evaluated_indexes": set(), **change}


def make_folder(path: Path, made: list[Any] = RESULTS) -> Path:
    path.mkdir(parents=True)
    save(path / f"meta.{PICKLE_EXT}", meta())
    for index, states in enumerate(made):
        save(path / f"{index:06d}.{PICKLE_EXT}", states)
    return path


def make_file(path: Path, **change: object) -> Path:
    whole = meta(arch2infos=dict(enumerate(RESULTS)), evaluated_indexes=set(range(4)))
    return save(path, {**whole, **change})
