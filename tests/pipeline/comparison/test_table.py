"""Table 3 and Figure 2 from the results of searches, in all output formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from hnas.errors import HnasError
from hnas.pipeline.comparison.curves import Course, average
from hnas.pipeline.comparison.figures import plot_curves
from hnas.pipeline.comparison.report import (
    comparison_csv,
    comparison_json,
    comparison_latex,
    comparison_markdown,
    comparison_records,
    comparison_text,
)
from hnas.pipeline.comparison.statistics import mann_whitney
from hnas.pipeline.comparison.table import ComparisonTable, Outcome, make_rows
from hnas.pipeline.reproduction import figure2

DATASETS = ("cifar10", "imagenet16-120")


def outcome(method: str, reported: list[list[float]], *, varies: bool = True, cost: float = 100.0) -> Outcome:
    seeds = len(reported)
    return Outcome(method, "random", "C+D", varies, np.array(reported), np.full(seeds, cost), np.full(seeds, 20.0))


OURS = outcome("hnas:grad_norm", [[94.1, 46.0], [94.3, 46.4], [94.2, 46.2], [94.3, 46.1]])
RANDOM = outcome("random", [[93.1, 44.0], [93.3, 44.4], [93.2, 45.2], [93.0, 43.0]], cost=float("nan"))
REA = outcome("rea", [[94.2, 45.0], [93.3, 46.3], [94.4, 45.2], [93.9, 46.0]])
TOP = outcome("top:flops", [[94.36, 46.34]] * 4, varies=False)


@pytest.fixture
def comparison() -> ComparisonTable:
    rows = make_rows(
        [OURS, RANDOM, REA, TOP],
        reference="hnas:grad_norm",
        manual={"ResNet": np.array([93.91, np.nan])},
        optimum=np.array([94.37, 47.31]),
    )
    return ComparisonTable("four seeds", DATASETS, rows, "hnas:grad_norm", ("± is the population's",))


def test_rows_come_between_manual_architectures_and_the_optimum(comparison):
    assert [row.method for row in comparison.rows] == [
        "ResNet",
        "hnas:grad_norm",
        "random",
        "rea",
        "top:flops",
        "optimum",
    ]
    assert comparison.rows[0].cells[1] is None, "the table lacks its accuracy on this data set"
    assert comparison.rows[-1].cells[1].mean == 47.31


def test_means_and_deviations_follow_the_published_programs(comparison):
    cell = comparison.rows[1].cells[0]
    assert cell.mean == pytest.approx(np.mean([94.1, 94.3, 94.2, 94.3]))
    assert cell.deviation == pytest.approx(np.std([94.1, 94.3, 94.2, 94.3]))
    assert cell.interval[0] <= cell.mean <= cell.interval[1]


def test_varying_rivals_are_tested_with_holms_correction(comparison):
    p = [row.cells[0].p if row.cells[0] else None for row in comparison.rows]
    first, second = (mann_whitney(OURS.reported[:, 0], rival.reported[:, 0]) for rival in (RANDOM, REA))
    assert first < second
    assert p == [None, None, pytest.approx(2 * first), pytest.approx(max(2 * first, second)), None, None]


def test_a_deterministic_method_has_neither_deviation_nor_test():
    cell = make_rows([OURS, TOP], reference="hnas:grad_norm")[1].cells[0]
    assert (cell.deviation, cell.interval, cell.p) == (None, None, None)
    rows = make_rows([TOP, OURS, REA], reference="top:flops")
    assert all(cell.p is None for row in rows for cell in row.cells)


def test_two_seeds_have_a_deviation_and_no_test():
    rows = make_rows([outcome("a", [[94.0], [94.2]]), outcome("b", [[93.0], [93.2]])], reference="a")
    assert rows[1].cells[0].deviation == pytest.approx(0.1)
    assert (rows[1].cells[0].interval, rows[1].cells[0].p) == (None, None)


def test_a_winner_without_a_test_accuracy_leaves_the_cell_empty():
    rows = make_rows([outcome("a", [[94.0, 45.0], [94.2, np.nan]]), OURS], reference="a")
    assert rows[0].cells[0].mean == pytest.approx(94.1)
    assert rows[0].cells[1] is None
    assert rows[1].cells[1].p is None


def test_the_terminal_shows_table_3_then_intervals_and_tests(comparison):
    lines = comparison_text(comparison).splitlines()
    assert lines[0] == "four seeds"
    assert lines[1].split() == ["method", *DATASETS, "cost", "s", "queries", "kind", "space"]
    assert "94.22 ± 0.08" in lines[3]
    assert lines[4].split()[-3:] == ["20", "random", "C+D"], "the cost of random is unknown"
    assert lines[9] == "95 % interval of the mean; p: Mann-Whitney against hnas:grad_norm, Holm's correction"
    assert [line.split()[0] for line in lines[11:14]] == ["hnas:grad_norm", "random", "rea"]
    assert lines[-1] == "± is the population's"


def test_output_fits_a_narrow_terminal(comparison):
    assert max(map(len, comparison_text(comparison, 60).splitlines())) <= 60
    assert "more columns, `--format csv` has all" in comparison_text(comparison, 60)


def test_markdown_has_a_cell_per_column_for_any_method_name():
    rows = make_rows([outcome("top:a || b", [[94.0]])])
    text = comparison_markdown(ComparisonTable("one seed", ("cifar10",), rows))
    lines = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {7}


def test_latex_special_characters_are_escaped(comparison):
    text = comparison_latex(comparison)
    several = [outcome(name, [[base + k / 100] for k in range(20)]) for name, base in (("a", 94.0), ("b|c", 93.0))]
    clear = comparison_latex(ComparisonTable("20 seeds", ("cifar10",), make_rows(several, reference="a"), "a"))
    assert clear.count("$<$0.0001") == clear.count("b$|$c") == 1
    assert r"hnas:grad\_norm & 94.22 $\pm$ 0.08 [" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count("&") + 1 for line in body} == {len(columns)}


def test_csv_and_json_hold_a_record_per_method_and_data_set(comparison):
    records = comparison_records(comparison)
    assert len(records) == 6 * 2
    assert list(csv.DictReader(io.StringIO(comparison_csv(comparison))))[2]["mean"] == str(records[2]["mean"])
    document = json.loads(comparison_json(comparison, "c1", [{"seed": 4}]))
    assert document["results"] == records
    assert document["comparison"] == "c1"
    assert document["methods"] == [{"seed": 4}]


# --- Figure 2


COURSES = [
    Course(np.array([100.0, 200.0, 300.0]), np.array([[9.0], [7.0], [6.0]])),
    Course(np.array([150.0, 350.0]), np.array([[8.0], [5.0]])),
]


def test_a_curve_averages_incumbents_once_all_searches_have_one():
    curve = average("a", COURSES, by_queries=False)
    assert curve.budget[0] == 150.0
    assert curve.budget[-1] == 350.0
    at = {round(x): mean[0] for x, mean in zip(curve.budget, curve.mean, strict=True)}
    assert at[150] == pytest.approx(8.5)
    assert at[350] == pytest.approx(5.5), "a finished search keeps its incumbent"
    assert curve.error[-1, 0] == pytest.approx(np.std([6.0, 5.0], ddof=1) / np.sqrt(2))


def test_a_curve_has_the_exact_means_at_given_budgets():
    (before, after), ends = (199.9, 200.0), (149.0, 351.0)
    curve = average("a", COURSES, by_queries=False, at=[before, after, *ends])
    assert not {*ends} & {*curve.budget.tolist()}
    assert [curve.mean[curve.budget == point, 0].tolist() for point in (before, after)] == [[8.5], [7.5]]
    assert figure2._value(curve, 0, after, 2).ours == 7.5


def test_a_curve_is_unknown_until_all_searches_have_an_incumbent():
    late = Course(COURSES[0].spent, np.array([[np.nan], [7.0], [6.0]]))
    curve = average("a", [late, COURSES[1]], by_queries=False, at=[199.9, 200.0])
    assert np.isnan(curve.mean[curve.budget < 200.0]).all()
    assert curve.mean[curve.budget == 200.0, 0].tolist() == [7.5]


def test_a_curve_over_queries_has_a_point_per_query():
    courses = [Course(np.arange(1.0, 4.0), c.errors[[0, 1, -1]]) for c in COURSES]
    curve = average("a", courses, by_queries=True)
    assert curve.budget.tolist() == [1.0, 2.0, 3.0]
    assert curve.mean[:, 0].tolist() == [8.5, 6.0, 5.5]


def test_figure_2_has_a_panel_per_data_set_and_names_methods(tmp_path: Path):
    courses = [Course(c.spent, np.hstack([c.errors, c.errors + 20, np.full_like(c.errors, np.nan)])) for c in COURSES]
    curves = [average(f"m_{k}", courses, by_queries=False) for k in range(11)]
    path = tmp_path / "figure.svg"
    plot_curves(curves, ["one", "two", "three"], np.array([4.0, 24.0, np.nan]), path, by_queries=False)
    words = [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "two", "three", "optimum", *(f"m_{k}" for k in range(11))} <= set(words)
    for suffix in ("png", "pdf"):
        plot_curves(curves[:1], ["one"], np.array([4.0]), tmp_path / f"f.{suffix}", by_queries=True)
        assert (tmp_path / f"f.{suffix}").stat().st_size > 1000


def test_a_figure_that_cannot_be_written_is_reported(tmp_path: Path):
    with pytest.raises(HnasError, match="cannot be written: No such file"):
        plot_curves(
            [average("a", COURSES, by_queries=False)],
            ["one"],
            np.array([4.0]),
            tmp_path / "no" / "f.png",
            by_queries=False,
        )
