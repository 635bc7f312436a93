"""The registry of scores: names, errors, and scores of other packages."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest

from hnas.errors import HnasError, UsageError
from hnas.metrics.columns import COLUMNS
from hnas.scores import registry
from hnas.scores.registry import scores, scores_named


class Foreign:
    """A score of another package."""

    columns, version, shared = ("ours",), 1, False


@pytest.mark.parametrize("name", list(scores))
def test_every_score_declares_what_the_protocol_requires(name: str) -> None:
    score = scores[name]
    assert all(re.fullmatch("[a-z][a-z0-9_]*", column) for column in score.columns)
    assert score.version >= 1
    assert score.shared == hasattr(score, "needs")


def test_no_two_scores_share_a_column() -> None:
    columns = [column for name in scores for column in scores[name].columns]
    everything = [*columns, *COLUMNS, "params", "flops"]
    assert len(everything) == len(set(everything))


def test_names_are_sorted_unique_and_without_columns_of_every_run() -> None:
    assert scores_named("l2_norm, flops,l2_norm,grad_norm") == ["l2_norm"]
    assert scores_named("all") == sorted(scores)


@pytest.mark.parametrize(("text", "says"), [("l2_nrm", "did you mean 'l2_norm'?"), ("l2_norm,", "an empty name")])
def test_an_unknown_score_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        scores_named(text)


def test_foreign_scores_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("ours", "tests.hnas.scores.test_registry:Foreign", registry.ENTRY_POINT_GROUP),
        EntryPoint("broken", "tests.hnas.scores.nowhere:Foreign", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr("hnas.registry.entry_points", lambda group: points)
    assert scores["ours"].columns == ("ours",)
    assert "ours" in scores_named("all")
    with pytest.raises(HnasError, match=r"score 'broken' .* cannot be loaded"):
        scores["broken"]
