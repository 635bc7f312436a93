"""The columns of the imported tables. Those of `runs` are the fields of `hnas.pipeline.store.run.RunSettings`."""

from __future__ import annotations

import pyarrow as pa

#: The accuracies of a training, in percent.
ACCURACIES = ("train_accuracy", "valid_accuracy", "test_accuracy")

_TRAINING = [
    ("space", pa.string()),
    ("arch", pa.string()),
    ("dataset", pa.string()),
    ("epochs", pa.int32()),
    ("seed", pa.int64()),
]
_RESULT = [
    *((name, pa.float64()) for name in ACCURACIES),
    ("seconds", pa.float64()),
]

#: The tables by name. `accuracies` has one row per finished training (`epochs` long, from `seed`): percent, and seconds
#: of training. `curves` has intermediate evaluations, after `epoch` epochs and `seconds`. `proxies` has training-free
#: scores computed by others.
SCHEMAS = {
    "accuracies": pa.schema(_TRAINING + _RESULT),
    "curves": pa.schema([*_TRAINING, ("epoch", pa.int32()), *_RESULT]),
    "proxies": pa.schema(
        [
            ("space", pa.string()),
            ("arch", pa.string()),
            ("dataset", pa.string()),
            ("proxy", pa.string()),
            ("value", pa.float64()),
            ("seconds", pa.float64()),
        ]
    ),
}

#: `curves` of trainings made by hnas: also the mean cross entropy of an epoch's batches in nats, and the learning rate.
TRAINED_CURVES = pa.schema([*SCHEMAS["curves"], ("loss", pa.float64()), ("lr", pa.float64())])

#: Column names of the views over runs and searches, and of a search's pool, that no other column of a pool may have.
TAKEN = (
    *("run", "run_group", "n_runs", "canonical", "status", "params", "flops", "id", "class", "metric", "performance"),
    *("cost", "source", "query", "objective", "mu", "nu", "own_seconds", "ntk_row", "filename", "epoch", "failure"),
    *("asked", "asks", "elapsed"),
)
