"""`hnas rm` and `hnas info` for models in the store or in any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.io import aside
from hnas.pipeline.models.held import find_removable, remove_held
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.models import trained


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "best"
    trained("nasbench201").save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "best"))


@pytest.fixture
def store(saved: Path, tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "store"))
    made.prepare()
    shutil.copytree(saved, tmp_path / "store/models/mine")
    return made


def test_rm_lists_confirms_and_removes_only_the_model_folder(folder: Path, tmp_path: Path):
    beside = ("--store", tmp_path / "none")
    listed = hnas("rm", folder, "--dry-run", *beside)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert f"{folder}: 2 files, {size:,} bytes\nnothing was removed" in listed.out
    assert "asks before it removes" in hnas("rm", folder, *beside).err
    (folder / "notes.txt").write_text("mine")
    assert "notes.txt is not part of a model" in hnas("rm", folder, "--yes", *beside).err
    (folder / "notes.txt").unlink()
    (tmp_path / "link").symlink_to(folder)
    assert json.loads(hnas("info", tmp_path / "link", "--json").out)["bytes"] == size
    assert "is a link" in hnas("rm", tmp_path / "link", "--yes", *beside).err
    (tmp_path / "photos").mkdir()
    assert hnas("rm", tmp_path / "photos", "--yes", *beside).status == 2
    assert hnas("rm", folder, "--yes", *beside).out.startswith(f"removed: model folder {folder}, |nor_conv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "photos"]


def test_a_model_in_the_store_can_be_removed_by_name(store: Store):
    listed = json.loads(hnas("info", "--json", "--store", store.root).out)["sizes"]
    assert [(row["kind"], row["name"], row["files"], row["complete"]) for row in listed] == [
        ("model", "mine", 2, "yes")
    ]
    assert check_store(store).damaged == []
    weights = Path(store.root, "models/mine/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert [finding.mend for finding in check_store(store).damaged] == ["save the model again, or `hnas rm` it"]
    remove_held(store, find_removable(store, "model/mine"))
    assert store.names("models") == []


def test_a_model_being_written_is_not_removed(folder: Path, store: Store):
    places = {str(folder): folder, "mine": Path(store.root, "models/mine")}
    for name, place in places.items():
        held = find_removable(store, name)
        handle, part = aside._create(place)  # another process, writing it
        with pytest.raises(HnasError, match="is being written"):
            remove_held(store, held)
        part.rmdir()
        aside.os.close(handle)
        search = aside.Hold(place)  # a process about to write it
        with pytest.raises(HnasError, match="is being written"):
            remove_held(store, held)
        search.close()
        remove_held(store, held)
        assert not place.exists()
    with pytest.raises(UsageError, match="has no run, search, comparison, model, supernet or source"):
        find_removable(store, "mine")


def test_info_describes_a_model(folder: Path):
    shown = hnas("info", folder)
    assert "complete      yes" in shown.out
    assert "10: digit 0, digit 1" in shown.out
    record = json.loads(hnas("info", folder, "--json").out)
    assert (record["space"], record["channels"], record["busy"]) == ("nasbench201", 4, "no")
    (folder / "weights.safetensors").write_bytes(b"")
    damaged = hnas("info", folder)
    assert (damaged.status, damaged.out) == (1, "")
    assert "does not match its digest" in damaged.err
