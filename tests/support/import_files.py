"""Tables of accuracies to import, and imports by older versions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store, digest

TABLE = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent")) / "nasbench201" / "cifar10-test-accuracy.csv"
needs_table = pytest.mark.skipif(
    not TABLE.is_file(),
    reason="HNAS_TEST_DATA is unset or has no nasbench201/cifar10-test-accuracy.csv: the real accuracies are needed",
)
A = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
B = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
HEADER = "arch,dataset,test_accuracy\n"


def table(path: Path, *values: float, dataset: str = "cifar10") -> Path:
    """Write a CSV file with test accuracies of `A` and `B`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        HEADER + "".join(f"{arch},{dataset},{value}\n" for arch, value in zip((A, B), values, strict=False))
    )
    return path


def write_older_import(
    store: Store, kind: str, file: str, accuracy: float, content: str = "old", dataset: str = "cifar10"
) -> str:
    """Write an import of `file` by a version without manifests: a Parquet file in each table, with a note."""
    row = {"space": "nasbench201", "arch": A, "dataset": dataset, "test_accuracy": accuracy}
    stem = Path(file).stem
    name = f"{stem}-{digest(file, size=4)}.parquet"
    note = {"content": content, "rows": {"accuracies": 1, "curves": 1}, "architectures": 1}
    store.prepare()
    for kind_of_table in ("accuracies", "curves"):
        rows = pa.Table.from_pylist([row], schema=SCHEMAS[kind_of_table])
        rows = rows.replace_schema_metadata({b"hnas.import": json.dumps(note).encode()})
        path = Path(store.path(kind_of_table, kind, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    return name.removesuffix(".parquet")
