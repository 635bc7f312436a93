"""What a run holds already: its parts, their canonical architectures, and their rows in `ntk.zarr`."""

from __future__ import annotations

from dataclasses import dataclass

from hnas.pipeline.store.claim_log import logged
from hnas.pipeline.store.store import Store


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
        new = set(store.files("runs", run, "metrics")) - self.parts
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

    def lost(self, store: Store, run: str) -> list[tuple[int, tuple[str, ...]]]:
        """The rows of `ntk.zarr` whose eigenvalues are gone, as a copy that was cut short may leave them.

        For each block of them its first row and the classes in it, in their order. Costs a look into one folder where
        nothing is lost. Raises `HnasError` where a part or the array's metadata is damaged.
        """
        from hnas.pipeline.store.ntk_arrays import NTKArrays

        blocks = NTKArrays(store, run).lost(self.rows) if self.rows else []
        if not blocks:
            return []
        rows: dict[int, str] = {}
        for name in sorted(self.parts):
            table = store.read_table(["canonical", "ntk_row"], "runs", run, "metrics", name)
            rows |= dict(zip(table["ntk_row"].to_pylist(), table["canonical"].to_pylist(), strict=True))
        return [(block.start, tuple(rows[row] for row in block if row in rows)) for block in blocks]
