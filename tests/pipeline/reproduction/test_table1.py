"""Table 1 and Figure 1 from a store with several initialisations, some of them of few architectures."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hnas.pipeline.analysis.ranks import spearman
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.images import open_dataset
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.precompute.plan import make_plan
from hnas.pipeline.reproduction import figure1, measured, table1
from hnas.pipeline.reproduction.bootstrap import resample
from hnas.pipeline.store.store import Store
from tests.support.runs import SIZE, SPACE, fill

DATA = Path(os.environ.get("HNAS_TEST_DATA", ""))


@pytest.mark.skipif(
    "HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: the real accuracies are needed"
)
def test_initialisations_are_averaged_and_their_spread_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table1, "resample", partial(resample, resamples=100))
    store, listed = Store(str(tmp_path / "store")), tmp_path / "list.txt"
    listed.write_text("\n".join(SPACE.sample(40, seed=0)))
    images = open_dataset(str(DATA / "cifar10"))
    runs = [fill(store, make_plan(store, SPACE, images, architectures=listed, seed=s, **SIZE)) for s in (0, 1, 2)]
    import_accuracies(store, "csv", DATA / "nasbench201/cifar10-test-accuracy.csv")
    connection = connect(store)
    found = table1.compute(connection)
    assert [one.what for one in found.missing] == ["metrics of nasbench101 on cifar10"]
    single, mean = found.sections
    assert "3 initialisations" in single.heading
    each = []
    for run in runs:
        rows = connection.execute("SELECT snip, test_accuracy FROM pool WHERE run = ?", [run]).fetchnumpy()
        each.append(spearman(rows["snip"], rows["test_accuracy"]))
    (value,) = [row.values[0] for row in single.rows if row.name == "snip"]
    assert value is not None
    assert value.of == 3
    assert value.ours == pytest.approx(np.mean(each))
    assert value.spread == pytest.approx(np.std(each, ddof=1))
    averaged = connection.execute("SELECT kappa, test_accuracy FROM mean_pool").fetchnumpy()
    (value,) = [row.values[0] for row in mean.rows if row.name == "kappa"]
    assert value is not None
    assert value.ours == pytest.approx(spearman(averaged["kappa"], averaged["test_accuracy"]))
    assert value.spread is None


def test_a_run_of_other_or_fewer_architectures_does_not_shrink_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measured, "DATASET", "digits")
    monkeypatch.setattr(figure1, "_RESAMPLES", 10)
    store, images = Store(str(tmp_path / "store")), open_dataset("digits")
    archs = SPACE.sample(12, seed=0)

    def add(listed: list[str], seed: int) -> str:
        (path := tmp_path / "list.txt").write_text("\n".join(listed))
        return fill(store, make_plan(store, SPACE, images, architectures=path, seed=seed, **SIZE))

    two = add(archs[:2], 0)
    of_two = figure1.compute(connect(store))
    assert "metrics of nasbench201 on digits for more than 2 classes" in [one.what for one in of_two.missing]
    first, again = add(archs[:8], 1), add(archs[:8], 2)
    other = add(archs[8:], 3)
    connection = connect(store)
    found = measured.measured(connection, "nasbench201", ["snip", "kappa"])
    assert isinstance(found, measured.Measured)
    assert sorted(found.runs) == sorted([first, again])
    assert sorted(found.left_out) == sorted([two, other])
    assert all(len(columns["snip"]) == 8 for columns in found.columns)
    (section,) = figure1.compute(connection).sections
    finite = np.isfinite(found.columns[0]["kappa"]).sum()
    assert section.heading.startswith(f"nasbench201 on digits, {finite} architectures")
