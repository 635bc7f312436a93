"""Small stores for tests, written by the project's own code. Canonical forms and static columns are real, and metrics
follow a formula, so that no network is computed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa

from hnas.pipeline.images import open_dataset
from hnas.pipeline.precompute.plan import make_plan, record_request
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces


def make_store(folder: Path, *, architectures: int = 60, accuracies: bool = True, seed: int = 0) -> Store:
    """A store with one run of `architectures` NAS-Bench-201 cells on digits, one of them dead, and their accuracies.

    `test_accuracy` rises with log(trace) plus noise; `valid_accuracy` peaks in the middle of log(trace).
    """
    store = Store(str(folder))
    space = search_spaces["nasbench201"]
    dead = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    listed = folder / "list.txt"
    sampled = [arch for arch in space.sample(architectures, seed) if space.canonical(arch) != "y=0"]
    listed.write_text("\n".join([dead, *sampled][:architectures]))
    plan = make_plan(store, space, open_dataset("digits"), architectures=listed, batch_size=8, channels=4, cells=1)
    while len(plan.requested) < architectures:  # the sample had dead cells
        more = [arch for arch in space.sample(2 * architectures, seed + 1) if space.canonical(arch) != "y=0"]
        listed.write_text("\n".join([dead, *dict.fromkeys(sampled + more)][:architectures]))
        plan = make_plan(store, space, open_dataset("digits"), architectures=listed, batch_size=8, channels=4, cells=1)
    store.prepare()
    run = plan.settings.id
    Run(store, run).create(plan.settings, plan.batch)
    record_request(store, space, plan)
    classes = [canonical for canonical, _ in plan.todo]
    rng = np.random.default_rng(seed)
    trace = np.exp(rng.normal(2, 1, len(classes)))
    kappa = np.exp(rng.normal(5, 1, len(classes)) - 0.5 * np.log(trace))
    kappa[classes.index("y=0")] = np.inf
    store.write_table(
        pa.table(
            {
                "canonical": classes,
                "grad_norm": trace * np.exp(rng.normal(0, 0.1, len(classes))),
                "grad_norm_l2": trace / 3,
                "snip": 2 * trace * np.exp(rng.normal(0, 0.2, len(classes))),
                "snip_inner": rng.random(len(classes)),
                "grasp": rng.normal(0, 1, len(classes)) * trace**2,
                "grasp_abs": trace**2,
                "trace": trace,
                "kappa": kappa,
                "status": ["constant" if c == "y=0" else "ok" for c in classes],
                "seconds": pa.array(np.full(len(classes), 0.1), pa.float32()),
                "ntk_row": pa.array(range(len(classes)), pa.int32()),
            }
        ),
        "runs", run, "metrics", "made-up.parquet",
    )  # fmt: skip
    if accuracies:
        by_class = dict(zip(classes, trace, strict=True))
        noise = Random(seed)
        rows = []
        for arch, canonical in plan.requested:
            level = float(np.log(by_class[canonical]))
            rows.append(
                {
                    "space": "nasbench201", "arch": arch, "dataset": "digits", "epochs": 10, "seed": 0,
                    "test_accuracy": 70 + 5 * level + noise.gauss(0, 1),
                    "seconds": 100.0,
                    "valid_accuracy": 90 - 5 * abs(level - 2) + noise.gauss(0, 0.2),
                }
            )  # fmt: skip
        store.write_table(
            pa.Table.from_pylist(rows, schema=SCHEMAS["accuracies"]), "accuracies", "csv", "made-up.parquet"
        )
    return store
