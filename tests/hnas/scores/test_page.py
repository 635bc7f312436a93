"""The examples of docs/scores.md run, and the page lists every shared score."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import nn

from hnas import compute_metrics
from hnas.scores import registry
from tests.support.places import ROOT

PAGE = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_the_example_prints_the_requested_scores(capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS[0], {})
    assert re.findall(r"'(\w+)': -?\d", capsys.readouterr().out) == ["fisher", "jacov", "naswot"]


def test_the_example_of_a_foreign_score_works(monkeypatch: pytest.MonkeyPatch) -> None:
    page: dict[str, Any] = {}
    exec(BLOCKS[1], page)
    monkeypatch.setattr(EntryPoint, "load", lambda point: page["Units"])
    monkeypatch.setattr("hnas.registry.entry_points", lambda group: [EntryPoint("units", "my_package:Units", group)])
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    assert compute_metrics(network, torch.randn(4, 6), torch.arange(4) % 3, scores="units").scores == {"units": 5.0}


def test_the_page_lists_every_shared_score() -> None:
    listed = re.findall(r"^\| `(\w+)` \| .*\|$", PAGE.split("## Scores of other packages")[0], re.M)
    assert {name for name in registry.scores if registry.scores[name].shared} <= set(listed)
