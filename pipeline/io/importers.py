"""The registry of importers, by the kind of file that they read."""

from __future__ import annotations

from typing import Any

from hnas.registry import Registry

ENTRY_POINT_GROUP = "hnas.importers"

_BUILT_IN = {
    "columns": "hnas.pipeline.importers.columns:read_columns",
    "csv": "hnas.pipeline.importers.csv:read_csv",
    "nasbench101": "hnas.pipeline.importers.nasbench101:read_nasbench101",
    "nasbench201": "hnas.pipeline.importers.nasbench201:read_nasbench201",
    "nats-bench": "hnas.pipeline.importers.nats_bench:read_nats_bench",
    "parquet": "hnas.pipeline.importers.parquet:read_parquet",
    "suite-zero": "hnas.pipeline.importers.suite_zero:read_suite_zero",
}

#: The importers (`hnas.pipeline.importers.protocol.Importer`) by kind of file. For errors see `hnas.registry.Registry`.
importers: Registry[Any] = Registry(ENTRY_POINT_GROUP, "importer", _BUILT_IN)

#: Kinds whose files have fixed names, so that a source is named after its benchmark; others are named after the file.
BENCHMARKS = ("nasbench101", "nasbench201", "nats-bench", "suite-zero")
