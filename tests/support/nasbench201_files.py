"""NAS-Bench-201's file, made with the benchmark's own package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nas_201_api
import numpy as np
import torch

from tests.support.peer_results import ARCHS, results


def entry(index: int) -> dict[str, Any]:
    made = results(nas_201_api, index)
    for states in made.values():
        for result in states["all_results"].values():
            result["params"] = np.float64(result["params"])  # the original has numpy's type
    return {"full": made["200"], "less": made["12"]}


RESULTS = {index: entry(index) for index in range(len(ARCHS))}


def content(**change: object) -> dict[str, object]:
    whole = {"meta_archs": list(ARCHS), "total_archs": 4, "arch2infos": RESULTS, "evaluated_indexes": list(range(4))}
    return {**whole, **change}


def save(path: Path, whole: object, *, archive: bool = False) -> Path:
    torch.save(whole, path, _use_new_zipfile_serialization=archive)
    return path
