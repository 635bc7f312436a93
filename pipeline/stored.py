"""What a run holds already: its parts, their canonical architectures, and their rows in `ntk.zarr`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.drivers import logged
from pipeline.store import Store


@dataclass(frozen=True)
class Stored:
    """The finished parts of a run. `rows` are the values of `ntk_row`, `classes` those of `canonical`."""

    parts: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    rows: frozenset[int] = frozenset()

    def updated(self, store: Store, run: str) -> Stored:
        """The same with the parts that have come since.

        What the commands that computed them wrote down tells what they hold where it is still there; the others are
        opened, which takes about 0.3 ms each. Raises `HnasError` where one of them is damaged.
        """
        names = set(store.names("runs", run, "metrics")) - self.parts
        new = {name for name in names if name.endswith(".parquet") and not name.startswith(".")}
        if not new:
            return self
        known = logged(store, run)
        classes: set[str] = set()
        rows: set[int] = set()
        for name in sorted(new):
            if (claim := known.get(name)) is not None:
                classes |= set(claim.classes)
                rows |= set(range(claim.row, claim.row + len(claim.classes)))
            else:
                table = store.read_table(["canonical", "ntk_row"], "runs", run, "metrics", name)
                classes |= set(table["canonical"].to_pylist())
                rows |= set(table["ntk_row"].to_pylist())
        return Stored(self.parts | new, self.classes | classes, self.rows | rows)
