"""docs/theory.md: its programs run as a reader would run them, its table and figures are what they give."""

from __future__ import annotations

import re
from contextlib import chdir
from pathlib import Path

import pytest

from tests.support.places import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
CHECKS, FIGURES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_the_program_prints_the_checks_of_the_table_and_all_hold(capsys: pytest.CaptureFixture[str]):
    exec(compile(CHECKS, "docs/theory.md", "exec"), {})
    printed = re.findall(r"^(.{11})  (.{32}) +(\S+) <= (\S+) +(True|False)$", capsys.readouterr().out, re.M)
    table = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| .* \| (\S+) \| (\S+) \|$", PAGE, re.M)[2:]
    assert [(source.strip(), name.strip()) for source, name, *_ in printed] == [row[:2] for row in table]
    for (_, name, measured, bound, holds), (*_, shown, allowed) in zip(printed, table, strict=True):
        assert holds == "True", name
        assert float(bound) == float(allowed), name
        if float(shown) > 1e-3:
            assert float(measured) == pytest.approx(float(shown), rel=0.1), name


def test_the_program_draws_the_figures_that_the_page_shows(tmp_path: Path):
    with chdir(tmp_path):
        exec(compile(FIGURES, "docs/theory.md", "exec"), {})
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"!\[.*?\]\(theory/(.*?)\)", PAGE))
    for name in drawn:
        assert (tmp_path / name).read_text(encoding="utf-8").startswith("<?xml")
        shown, now = (
            re.findall(r"<!-- (.*?) -->", (folder / name).read_text()) for folder in (ROOT / "docs/theory", tmp_path)
        )
        assert shown == now
