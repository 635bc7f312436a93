"""The result of `hnas import` as text."""

from __future__ import annotations

from pathlib import Path

from hnas.pipeline.importers import Imported
from hnas.pipeline.io.printable import printable


def import_summary(done: Imported, path: Path) -> str:
    """Return what an import did and what the file holds, in one line."""
    state = "imported" if done.changed else "already in the store"
    more = "".join(
        f", {count:,} {what}"
        for count, what in ((done.curves, "curve points"), (done.proxies, "proxy scores"))
        if count
    )
    counts = f"{done.rows:,} rows of {done.architectures:,} architectures{more}"
    if done.columns:
        more = f": {', '.join(done.columns)}" if len(done.columns) <= 12 else ""
        counts = f"{len(done.columns)} columns, {counts}"
    else:
        more = ""
    name = "" if done.source in (done.kind, printable(path.absolute().stem)) else f", as the source {done.source}"
    replaced = ", replacing its earlier rows" if done.replaced else ""
    return f"{state}: {counts} from {printable(str(path))}{name}{replaced}{more}"
