"""The programs of docs/theory.md run, and give its table and figures."""

from __future__ import annotations

import re
from contextlib import chdir
from pathlib import Path

import pytest

from tests.support.command_line import hnas
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
CHECKS, FIGURES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_the_program_prints_the_checks_of_the_table_and_they_hold(capsys: pytest.CaptureFixture[str]):
    exec(compile(CHECKS, "docs/theory.md", "exec"), {})
    printed = re.findall(r"^(.{11})  (.{32}) +(\S+) <= (\S+) +(True|False)$", capsys.readouterr().out, re.M)
    table = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| .* \| (\S+) \| (\S+) \|$", PAGE, re.M)[2:]
    assert [(source.strip(), name.strip()) for source, name, *_ in printed] == [row[:2] for row in table]
    for (_, name, measured, bound, holds), (*_, shown, allowed) in zip(printed, table, strict=True):
        assert holds == "True", name
        assert float(bound) == float(allowed), name
        if float(shown) > 1e-3:
            assert float(measured) == pytest.approx(float(shown), rel=0.1), name


def test_the_program_and_the_command_draw_the_figures_of_the_page(tmp_path: Path):
    with chdir(tmp_path):
        exec(compile(FIGURES, "docs/theory.md", "exec"), {})
        command = re.search(r"`hnas (reproduce figure3 .*?)`", PAGE)
        assert command is not None
        assert hnas(*command[1].split(), "--store", tmp_path / "store").status == 0
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == set(re.findall(r"!\[.*?\]\(theory/(.*?)\)", PAGE))
    for name in drawn:
        now, shown = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, ROOT / "docs/theory"))
        assert labels(now) == labels(shown)


def labels(drawing: str) -> list[str]:
    """The texts in an SVG: text elements, and matplotlib's comments on text drawn as paths."""
    return re.findall(r"<!-- (.*?) -->|<text[^>]*>([^<]+)</text>", drawing)
