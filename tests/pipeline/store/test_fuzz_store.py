"""Random damage to the files of a store, one case of each kind from `benchmarks/fuzz_store.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz_store import KINDS, Outcome, fuzz, make_store, verdict


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_never_silently_changes_output(template, kind):
    assert fuzz(template, kind, count=1, seed=1) == []


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (Outcome(0, "7\n", ""), "other output without a word"),
        (Outcome(1, "", "Traceback (most recent call last):"), "Traceback"),
        (Outcome(1, "", "hnas: an error that hnas did not foresee: x"), "did not foresee"),
        (Outcome(1, "", "no sentence"), "no sentence"),
        (Outcome(1, "", "hnas: \x1b[2J"), "control characters"),
        (Outcome(139, "", ""), "exit 139"),
    ],
)
def test_the_fuzzer_detects_wrong_output(after, found):
    assert found in (verdict(Outcome(0, "1\n", ""), after) or "")
    assert verdict(Outcome(0, "1\n", ""), Outcome(0, "1\n", "")) is None
    assert verdict(Outcome(0, "1\n", ""), Outcome(1, "", "hnas: x is damaged; restore it\n")) is None
