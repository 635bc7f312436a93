"""`hnas report`: its contents, its behaviour in a real browser, and its handling of hostile names."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from hnas.optim.objective import SearchRange
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.comparison.saved import stored_comparison
from hnas.pipeline.images.dataset import Batch
from hnas.pipeline.report.gather import gather
from hnas.pipeline.report.page import page
from hnas.pipeline.store.run import Run, runs_of
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from tests.support.browser import browser, visit
from tests.support.command_line import hnas, store_by_commands
from tests.support.places import ROOT, SHIPPED
from tests.support.stores import make_store

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>'&amp;\u2028"
HOSTILE_DATASET = "<b onmouseover='document.title=1'>images</b>"
METHODS = "hnas:trace,random,top:params"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run of 24 architectures, accuracies, trainings with curves, a search and a comparison."""
    folder = tmp_path_factory.mktemp("report")
    store, _ = store_by_commands(folder)
    arguments = ("nasbench201", "--methods", METHODS, "--queries", 4, "--seeds", 2, "--workers", 1)
    for command in (
        ("compare", *arguments, "--store", store, "--quiet"),
        (
            *("search", "nasbench201", "--oracle", "train", "--queries", 6, "--epochs", 2, "--channels", 2),
            *("--threads", 1, "--dataset", "digits", "--store", store, "--quiet"),
        ),
    ):
        done = hnas(*command)
        assert done.status == 0, done.err
    return store


def report(store: Path | Store, *options: str, output: Path) -> Path:
    done = hnas("report", "--store", store.root if isinstance(store, Store) else store, "--output", output, *options)
    assert done.status == 0, done.err
    assert done.out == f"written: {output}\n"
    return output


@pytest.fixture(scope="module")
def written(place: Path) -> Path:
    return report(place, output=place.parent / "report.html")


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


def data_of(text: str) -> dict[str, Any]:
    """The JSON in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return dict(json.loads(found))


class Tags(HTMLParser):
    """The elements of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def headings(text: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


# Contents


def test_the_report_of_a_store_has_a_section_for_each_of_its_contents(written, place):
    connection = connect(Store(str(place)))
    searches = [
        name for (name,) in connection.execute("SELECT search FROM searches WHERE comparison IS NULL").fetchall()
    ]
    (comparison,) = connection.execute("SELECT comparison FROM comparisons").fetchone()
    found = headings(written.read_text())
    (newest,) = [name for name in searches if f"Search {name}" in found]
    (run,) = connection.execute("SELECT run FROM runs").fetchone()
    assert found == [
        "What the store holds", f"Search {newest}", "The plane of μ and ν", "Front of the search", f"Run {run}",
        "Correlations", "Metrics against accuracy", "κ against M", "Pareto front", "Spectra of the NTK",
        "Learning curves", f"Comparison {comparison}", "Provenance",
    ]  # fmt: skip
    assert newest == connection.execute("SELECT search FROM searches ORDER BY created DESC, search").fetchone()[0]


def test_sections_without_data_are_absent(tmp_path):
    (tmp_path / "store").mkdir()
    store = make_store(tmp_path / "store", architectures=20, accuracies=False)
    text = report(store, output=tmp_path / "report.html").read_text()
    (run,) = (run.name for run in runs_of(store))
    assert headings(text) == [
        "What the store holds", f"Run {run}", "Correlations", "κ against M", "Pareto front", "Provenance",
    ]  # fmt: skip
    assert "The store has no accuracies of these architectures" in text


def test_a_run_a_search_and_a_comparison_each_have_a_report(place, tmp_path):
    connection = connect(Store(str(place)))
    (run,), (comparison,) = (
        connection.execute(f"SELECT {name} FROM {name}s").fetchone() for name in ("run", "comparison")
    )
    (search,) = connection.execute(
        "SELECT search FROM searches WHERE comparison IS NULL AND oracle = 'table'"
    ).fetchone()
    found = {
        option: headings(report(place, f"--{option}", name, output=tmp_path / "one.html").read_text())
        for option, name in (("run", run), ("search", search), ("comparison", comparison))
    }
    assert all("What the store holds" not in titles and f"Run {run}" in titles for titles in found.values())
    assert [title for title in found["run"] if title.startswith(("Search", "Comparison"))] == []
    assert [title for title in found["search"] if title.startswith(("Search", "Comparison"))] == [f"Search {search}"]
    assert [title for title in found["comparison"] if title.startswith("Comparison")] == [f"Comparison {comparison}"]


def test_points_have_the_numbers_and_cells_of_their_architectures(place):
    document = gather(Store(str(place)), connect(Store(str(place))))
    (name,) = (name for name in document.sets if name.startswith("run-"))
    points = document.sets[name]
    rows = (
        connect(Store(str(place)))
        .execute("SELECT arch, trace, kappa, test_accuracy FROM pool ORDER BY arch")
        .fetchall()
    )
    assert list(points.archs) == [arch for arch, *_ in rows]
    for column, values in zip(("trace", "kappa", "test_accuracy"), list(zip(*rows, strict=True))[1:], strict=True):
        assert points.columns[column].tolist() == list(values)
    space = search_spaces["nasbench201"]
    packed = points.as_json()
    for arch, (structure, *row) in zip(packed["names"], packed["cells"], strict=True):
        words = [packed["words"][word] for word in row]
        ((cell, size, pairs),) = packed["structures"][structure]
        graph = space.graphs(arch)[cell]
        edges = [(*pair, word) for pair, word in zip(pairs, words[size:], strict=True)]
        assert tuple(words[:size]) == graph.nodes
        assert edges == [edge for edge in graph.edges if edge[2] != "none"]


def test_the_plane_shows_the_queried_points_and_the_mean_of_the_process(place):
    store = Store(str(place))
    connection = connect(store)
    (search,) = connection.execute("SELECT search FROM searches WHERE oracle = 'train'").fetchone()
    document = gather(store, connection, search=search)
    (section,) = (section for section in document.sections if section.title == "The plane of μ and ν")
    ((chart,),) = ([*block.charts] for block in section.blocks)
    points = document.sets[f"search-{search}"].columns
    rows = connection.execute(
        "SELECT mu, nu, performance FROM queries WHERE search = ? ORDER BY query", [search]
    ).fetchall()
    metric, kappa = connection.execute("SELECT trace, kappa FROM pool ORDER BY arch").fetchnumpy().values()
    reach = SearchRange.of(np.asarray(metric), np.asarray(kappa))
    asked = np.array([reach.place(mu, nu) for mu, nu, _ in rows])
    assert np.allclose(np.column_stack([points["log10_mu"], points["nu_quantile"]]), asked)
    unit = (asked - [-1.5, 0]) / [3, 1]
    performances = np.array([row[2] for row in rows])
    kernel = Matern(nu=2.5, length_scale=0.1, length_scale_bounds="fixed")
    process = GaussianProcessRegressor(kernel, alpha=1.0, normalize_y=True).fit(unit, performances)
    side = np.linspace(0, 1, 48)
    expected = process.predict(np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2))
    found = chart.spec["surface"]["values"]
    assert found["type"] == "f4"
    assert np.frombuffer(b64decode(found["data"]), "<f4") == pytest.approx(expected, rel=1e-5)


def test_a_stored_comparison_is_read_back_and_shown_like_compare(place):
    store = Store(str(place))
    (name,) = store.folders("comparisons")
    found = stored_comparison(store, name)
    assert found.name == name
    assert found.labels == ("hnas:trace", "random", "top:params")
    assert (found.seeds, found.reference) == (2, "hnas:trace")
    arguments = ("nasbench201", "--methods", METHODS, "--queries", 4, "--seeds", 2, "--workers", 1)
    printed = hnas("compare", *arguments, "--store", place, "--quiet", "--format", "markdown").out
    text = page(gather(store, connect(store), comparison=name))
    for line in printed.splitlines()[2:5]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert f">{cells[0]}</th><td" in text
        assert all(f">{cell}</td>" in text for cell in cells[1:])


def test_the_docs_page_lists_the_sections_and_its_commands_run(written, place, tmp_path, monkeypatch):
    text = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (?!section|---)([^|]+?) \|", text, re.M)
    titles = [re.sub(r" [0-9a-f]{10}$", "", title) for title in headings(written.read_text())]
    assert [name.lower() for name in listed] == [title.lower() for title in titles]
    monkeypatch.chdir(tmp_path)
    (run,) = (run.name for run in runs_of(Store(str(place))))
    commands = re.findall(r"^\$ hnas (.*)\n(.*)$", text, re.M)
    assert len(commands) == 2
    for command, output in commands:
        done = hnas(*command.replace("194444ec57", run).split(), "--store", place)
        assert (done.status, done.out) == (0, f"{output}\n")


def test_the_same_store_gives_the_same_bytes(written, place):
    assert report(place, output=place.parent / "again.html").read_bytes() == written.read_bytes()


def test_provenance_shows_settings_and_versions(written, place):
    foot = written.read_text().partition("<footer>")[2]
    record = json.loads(next((place / "runs").glob("*/run.json")).read_text())
    for name, value in record["settings"].items():
        assert re.search(rf">settings\.{name}</th><td[^>]*>[^<]", foot), name
        if isinstance(value, str):
            assert f">{value}</td>" in foot
    assert f">{record['versions']['torch']}</td>" in foot


# Markup


def test_the_page_is_navigable_by_landmarks_headings_and_names(written):
    text = written.read_text()
    tags = Tags(text.partition('<div id="card"')[0])
    assert [len(tags.of(name)) for name in ("header", "nav", "main", "footer", "h1")] == [1, 1, 1, 1, 1]
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(str(link["href"])[1:] in ids for link in tags.of("a"))
    assert all(attributes["aria-labelledby"] in ids for attributes in (*tags.of("section"), *tags.of("figure")))
    assert all(attributes.get("aria-label") for attributes in tags.of("div") if "role" in attributes)
    assert len(tags.of("caption")) == len(tags.of("table"))
    assert tags.of("html")[0]["lang"] == "en"


def test_a_policy_forbids_everything_but_the_scripts_of_the_page(written):
    (policy,) = (meta["content"] for meta in Tags(written.read_text()).of("meta") if meta.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"('sha256-[A-Za-z0-9+/=]{44}' ?){2}", rules["script-src"])
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data:"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "report needs --output FILE.html"),
        (("--output", "report.pdf"), "--output report.pdf is not an HTML file; end it with .html or .htm"),
        (("--output", "gone/report.html"), "the folder of --output gone/report.html does not exist; create gone first"),
        (("--output", "r.html", "--search", "nope"), "there is no search 'nope'"),
        (("--output", "r.html", "--comparison", "nope"), "there is no comparison 'nope'"),
        (("--output", "r.html", "--run", "nope"), "the store has no run with run nope"),
    ],
)
def test_invalid_requests_give_one_sentence_and_write_nothing(arguments, sentence, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = hnas("report", *arguments, "--store", place)
    assert done.status == 2
    assert sentence in done.last
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_gives_no_report(tmp_path):
    (tmp_path / "store").mkdir()
    done = hnas("report", "--output", tmp_path / "r.html", "--store", tmp_path / "store")
    assert (done.status, (tmp_path / "r.html").exists()) == (2, False)
    assert "holds nothing to report" in done.last


def test_open_opens_the_file_in_the_browser_or_reports_that_there_is_none(place, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)) or len(opened) == 1)
    output = tmp_path / "a report.html"
    report(place, "--open", output=output)
    assert opened == [output.as_uri()]
    done = hnas("report", "--store", place, "--output", output, "--open")
    assert (done.status, done.last) == (1, f"hnas: found no browser to open {output}; open the file yourself")


# In a browser


def test_the_page_loads_and_draws_without_warnings_or_requests(written, running):
    with visit(running, written) as seen:
        assert seen.draw_all() == len(data_of(written.read_text())["charts"]) > 10
        assert seen.warnings == []
        assert seen.requests == [written.resolve().as_uri()]


def test_the_page_fits_the_width_of_a_phone(written, running):
    with visit(running, written, width=400, scheme="dark") as seen:
        seen.draw_all()
        widths = seen.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1]
        assert seen.warnings == []


def test_the_shipped_tables_load_and_draw_without_warnings(running, tmp_path, monkeypatch):
    monkeypatch.setenv("HNAS_TABLES", str(SHIPPED))
    (tmp_path / "store").mkdir()
    found = report(tmp_path / "store", output=tmp_path / "report.html")
    with visit(running, found) as seen:
        assert seen.draw_all() == 6
        assert seen.warnings == []
        assert seen.requests == [found.resolve().as_uri()]


def hovered(seen: Any, chart: int) -> Any:
    """Move the cursor over a chart until it meets a point, and return the point's card."""
    box = seen.draw(chart).bounding_box()
    card = seen.page.locator("#card")
    for y in range(40, int(box["height"]) - 50, 14):
        for x in range(60, int(box["width"]) - 60, 14):
            seen.page.mouse.move(box["x"] + x, box["y"] + y)
            if card.is_visible():
                return card
    raise AssertionError("no point was found under the cursor")


def test_hovering_a_point_shows_its_architecture_its_cell_and_its_numbers(written, place, running):
    data = data_of(written.read_text())
    chart = next(
        k for k, spec in enumerate(data["charts"]) if spec["x"]["column"] == "|trace|" and spec["set"][:3] == "run"
    )
    with visit(running, written) as seen:
        card = hovered(seen, chart)
        name = card.locator(".name").inner_text()
        query = "SELECT test_accuracy, params FROM pool WHERE arch = ?"
        ((accuracy, params),) = connect(Store(str(place))).execute(query, [name]).fetchall()
        numbers = dict(row.split("\t") for row in card.locator("table").inner_text().splitlines())
        assert float(numbers["test accuracy"]) == pytest.approx(accuracy, rel=1e-4)
        assert numbers["params"] == f"{params:,}"
        graph = search_spaces["nasbench201"].graphs(name)["cell"]
        drawn = [edge for edge in graph.edges if edge[2] != "none"]
        assert card.locator("svg path").count() == len(drawn)
        assert set(card.locator(".legend li").all_inner_texts()) == {operation for *_, operation in drawn}
        seen.page.mouse.move(2, 2)
        card.wait_for(state="hidden")


def test_the_keyboard_steps_through_the_points_and_names_them(written, running):
    data = data_of(written.read_text())
    with visit(running, written) as seen:
        seen.draw(next(k for k, spec in enumerate(data["charts"]) if spec["x"]["column"] == "|trace|"))
        slider = seen.page.get_by_role("slider", name="Go through the points of |trace|").first
        slider.focus()
        printed = []
        for _ in range(3):
            seen.page.keyboard.press("ArrowRight")
            printed.append(slider.get_attribute("aria-valuetext"))
            name = seen.page.locator("#card .name").inner_text()
            assert printed[-1].startswith(f"{name}, ")
            assert name in next(points["names"] for set_, points in data["sets"].items() if set_.startswith("run-"))
        assert len(set(printed)) == 3
        seen.page.keyboard.press("Escape")
        assert seen.page.locator("#card").is_hidden()


def test_light_and_dark_mode_follow_the_reader(written, running):
    with visit(running, written) as seen:
        chart = seen.draw(0)
        colour = "getComputedStyle(document.body).backgroundColor"
        light = seen.page.evaluate(colour), chart.screenshot()
        seen.page.emulate_media(color_scheme="dark")
        seen.page.wait_for_timeout(200)
        dark = seen.page.evaluate(colour), chart.screenshot()
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        assert seen.warnings == []


def test_the_policy_blocks_loading_from_elsewhere(written, running):
    with visit(running, written) as seen:
        seen.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))")
        seen.page.evaluate("fetch('https://example.org/x').catch(() => {})")
        seen.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: \"document.title='taken'\"}))"
        )
        seen.page.wait_for_timeout(100)
        assert len([text for text in seen.warnings if "Content Security Policy" in text]) >= 3
        assert seen.page.title() != "taken"


def hostile_store(folder: Path) -> Store:
    """A store in which a data set and an architecture have names with markup and scripts."""
    folder.mkdir()
    store = make_store(folder, architectures=12)
    (old,) = runs_of(store)
    settings = replace(old.read_settings(), dataset=HOSTILE_DATASET)
    run = Run(store, settings.id)
    run.create(settings, Batch(*old.batch(), settings.batch))
    victim = next(arch for arch, canonical in old.requests().items() if canonical != "y=0")
    for folder_name in ("requests", "metrics"):
        for name in store.files("runs", old.name, folder_name):
            rows = store.read_table(None, "runs", old.name, folder_name, name)
            store.write_table(renamed(rows, victim), "runs", run.name, folder_name, name)
    for place in (("architectures", "nasbench201"), ("accuracies", "csv")):
        for name in store.files(*place):
            store.write_table(renamed(store.read_table(None, *place, name), victim), *place, name)
    record = run.read_record()
    run.write_record(run.listing_parts(record))
    return store


def renamed(rows: pa.Table, victim: str) -> pa.Table:
    """`rows` with hostile names instead of `victim` and digits."""
    for column, old, new in (("arch", victim, HOSTILE), ("dataset", "digits", HOSTILE_DATASET)):
        if column in rows.column_names:
            values = pc.if_else(pc.equal(rows[column], old), new, rows[column])
            rows = rows.set_column(rows.column_names.index(column), column, values)
    return rows


def test_a_hostile_name_shows_as_text(running, tmp_path):
    store = hostile_store(tmp_path / "store")
    (run,) = connect(store).execute("SELECT run FROM runs WHERE dataset = ?", [HOSTILE_DATASET]).fetchone()
    found = report(store, "--run", run, output=tmp_path / "report.html")
    assert found.read_text().count("</script>") == 3
    with visit(running, found) as seen:
        seen.draw(0)
        title = seen.page.title()
        assert HOSTILE_DATASET in seen.page.locator("main").inner_text()
        names = data_of(found.read_text())["sets"][f"run-{run}"]["names"]
        shown = HOSTILE.replace("\u2028", "\\u2028")
        assert shown in names
        slider = seen.page.get_by_role("slider").first
        slider.focus()
        cards = set()
        for key in (*["ArrowRight"] * len(names), "Home"):
            seen.page.keyboard.press(key)
            cards.add(seen.page.locator("#card .name").inner_text())
        assert shown in cards
        assert seen.page.locator("#card img, #card script, main img, main b").count() == 0
        assert (seen.page.title(), seen.warnings) == (title, [])
