"""The commands `hnas predict` and `hnas export`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

import hnas as library
from tests.support.command_line import hnas
from tests.support.models import CLASSES, trained


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in best, images photos/0.png to 2.png, and a damaged photos/broken.png."""
    folder = tmp_path_factory.mktemp("commands")
    made = trained("nasbench201")
    made.save(folder / "best")
    (folder / "photos").mkdir()
    for i in range(3):
        Image.fromarray(made.images[i].permute(1, 2, 0).numpy()).save(folder / f"photos/{i}.png")
    (folder / "photos/broken.png").write_bytes((folder / "photos/0.png").read_bytes()[:60])
    return folder


def test_files_and_folders_are_labelled_in_three_formats(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    expected = library.load("best").predict([f"photos/{i}.png" for i in range(3)])
    table = hnas("predict", "best", "photos/0.png", "photos/1.png", "photos/2.png")
    assert (table.status, table.err) == (0, "")
    assert table.out.splitlines()[0].split() == ["image", "label", "probability"]
    assert table.out.splitlines()[1].split() == [
        "photos/0.png",
        *expected[0].label.split(),
        f"{expected[0].probability:.4f}",
    ]
    done = hnas("predict", "best", *(f"photos/{i}.png" for i in range(3)), "--format", "csv", "--top", 2)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["label"], row["label_2"]) for row in rows] == [
        tuple(name for name, _ in one.top(2)) for one in expected
    ]
    done = hnas("predict", "best", *(f"photos/{i}.png" for i in range(3)), "--format", "json")
    assert [row["probability"] for row in json.loads(done.out)] == pytest.approx([one.probability for one in expected])


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_unreadable_images_are_reported_at_the_end(form: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = hnas("predict", "best", "gone.png", "photos", "--format", form)
    assert done.status == 1
    assert [f"photos/{i}.png" in done.out for i in range(3)] == [True] * 3
    gone, broken = sorted(done.err.splitlines()[:2])
    assert broken.startswith("photos/broken.png cannot be decoded")
    assert gone.startswith("gone.png cannot be read")
    assert done.last == "hnas: 2 images could not be read; all others are labelled"


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_no_table_is_printed_if_nothing_can_be_read(form: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "empty").mkdir(exist_ok=True)
    for images, said in ((["gone.png"], "gone.png cannot be read"), (["empty"], "empty holds no images")):
        alone = hnas("predict", "best", *images, "--format", form)
        assert (alone.out, alone.err.count("\n")) == ("", 1)
        assert alone.err.startswith(f"hnas: {said}")
    both = hnas("predict", "best", "gone.png", "empty", "--format", form)
    assert (both.status, both.out, both.last) == (1, "", "hnas: none of the 2 images could be read")


def test_a_large_top_shows_all_classes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (row,) = json.loads(hnas("predict", "best", "photos/0.png", "--top", 99, "--format", "json").out)
    assert len(row) == 1 + 2 * len(CLASSES)


def test_a_folder_that_is_not_a_model_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for command in (("predict", "photos", "photos/0.png"), ("export", "photos"), ("export", "gone")):
        done = hnas(*command)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)


def test_export_prints_the_path_of_the_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = hnas("export", "best", "--output", "winner.pt2")
    assert (done.status, done.out, done.err) == (0, "written: winner.pt2\n", "")
    assert (place / "winner.pt2").stat().st_size > 1000
