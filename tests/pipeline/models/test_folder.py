"""Model folders: saved networks load unchanged, and invalid folders are reported."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import hnas
from hnas import HnasError, UsageError
from hnas.pipeline.io import aside
from hnas.pipeline.io.checksums import sealed_json
from hnas.pipeline.models import check_model_folder
from hnas.training import accuracy
from tests.support.models import ARCHS, CLASSES, trained
from tests.support.places import ROOT

KINDS = [(space, False) for space in ARCHS] + [("darts", True)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained("nasbench201").save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize(("space", "evaluation"), KINDS)
def test_a_saved_network_loads_bit_identical(space: str, evaluation: bool, tmp_path: Path) -> None:
    made = trained(space, evaluation=evaluation)
    info = made.save(tmp_path / "model")
    model = hnas.load(tmp_path / "model")
    assert not model.training
    assert model.info == info
    assert model.classes == CLASSES
    state = made.network.state_dict()
    assert set(state) == set(model.network.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.network.state_dict().items())
    found = model(made.images).argmax(1)
    right = accuracy(made.network, made.images, made.labels, info.mean, info.std)
    assert 100 * (found == made.labels).float().mean().item() == pytest.approx(right, abs=0.5)


def test_the_record_has_the_provenance_of_the_weights(saved: Path) -> None:
    info = hnas.load(saved).info
    assert (info.space, info.arch) == ("nasbench201", ARCHS["nasbench201"])
    assert info.recipe["epochs"] == 5
    assert info.curve[0]["epoch"] == 5
    assert info.provenance.keys() == {"hnas", "torch", "date", "seed", "search"}
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]


def test_an_architecture_saved_by_hash_loads_without_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained("nasbench101")
    info = made.save(tmp_path / "model")
    assert len(info.arch) == 32
    monkeypatch.setattr("hnas.spaces.nasbench101.enumeration.load_table", None)
    assert hnas.load(tmp_path / "model").info.arch == info.arch


def test_saving_the_weights_of_another_network_is_rejected(tmp_path: Path) -> None:
    for change in ({"channels": 8}, {"classes": CLASSES[:3]}, {"arch": ARCHS["nasbench201"].replace("1x1", "3x3")}):
        with pytest.raises(UsageError, match=r"is not .* with \d+ channels"):
            trained("nasbench201").save(tmp_path / "model", **change)
    assert not list(tmp_path.iterdir())


def test_a_network_with_the_same_shapes_is_not_mistaken_for_it(tmp_path: Path) -> None:
    arch = ARCHS["nasbench201"].replace("avg_pool_3x3~0", "skip_connect~0")
    with pytest.raises(UsageError, match="the network to save is not"):
        trained("nasbench201").save(tmp_path / "model", arch=arch)


def test_a_model_replaces_only_another_model(copy: Path, tmp_path: Path) -> None:
    made = trained("nasbench201")
    made.save(copy, provenance={"seed": 7})
    assert hnas.load(copy).info.provenance["seed"] == 7
    assert list(tmp_path.iterdir()) == [copy]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"")
    (tmp_path / "file").write_text("")
    for place in ("photos", "file", "gone/model"):
        for refused in (check_model_folder, made.save):
            with pytest.raises(UsageError, match=r"name a new folder|create its parent"):
                refused(tmp_path / place)
    assert (tmp_path / "photos/cat.png").exists()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/model.json").write_text('{"format": "layers-model"}')
    (copy / "notes.txt").write_text("mine")
    for place, words in ((tmp_path / "foreign", "not a record of hnas"), (copy, "notes.txt is not part of a model")):
        for refused in (check_model_folder, made.save):
            with pytest.raises(UsageError, match=words):
                refused(place)
    assert (copy / "notes.txt").read_text() == "mine"
    (copy / "notes.txt").unlink()
    (copy / "weights.safetensors").unlink()
    made.save(copy, provenance={"seed": 8})  # replaces a damaged one
    assert hnas.load(copy).info.provenance["seed"] == 8


def test_a_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    trained("nasbench201").save(
        tmp_path / "m", accuracies={"test_accuracy": float("nan")}, curve=[{"loss": float("inf")}]
    )
    json.loads((tmp_path / "m/model.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert hnas.load(tmp_path / "m").info.accuracies == {"test_accuracy": None}


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A changed record with a matching checksum."""

    def rewrite(folder: Path) -> None:
        record = json.loads((folder / "model.json").read_text())
        del record["checksum"]
        change(record)
        (folder / "model.json").write_text(json.dumps(sealed_json(record)))

    return rewrite


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def weights(content: bytes) -> Callable[[Path], object]:
    """Other weights with a matching record."""
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return lambda folder: (
        replaced("weights.safetensors", content)(folder), rewritten(lambda record: record.update(weights=entry))(folder)
    )  # fmt: skip


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "there is no model folder"),
    "no record": (lambda folder: (folder / "model.json").unlink(), "not an hnas model"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "it is missing"),
    "no JSON": (replaced("model.json", b"\x80\x04."), "it is not JSON"),
    "nested JSON": (replaced("model.json", b"[" * 100_000), "it is not JSON"),
    "another JSON": (replaced("model.json", b"{}"), "not a record of hnas"),
    "a pickle": (replaced("weights.safetensors", b"\x80\x04cos\nsystem\n."), "does not match its digest"),
    "newer": (rewritten(lambda record: record.update(version=2)), "newer hnas"),
    "one number": (
        lambda folder: replaced(
            "model.json", (folder / "model.json").read_bytes().replace(b'"channels": 4', b'"channels": 5')
        )(folder),
        "does not match its checksum",
    ),
    "no checksum": (
        lambda folder: replaced("model.json", b'{"format": "hnas model", "version": 1}')(folder), "no checksum"
    ),
    "an unknown space": (rewritten(lambda record: record.update(space="mine")), "the search space 'mine' is unknown"),
    "a huge network": (rewritten(lambda record: record.update(channels=4096)), "does not hold the weights"),
    "an unknown network": (rewritten(lambda record: record.update(network="os.system")), "does not hold the weights"),
    "another class": (rewritten(lambda record: record["classes"].pop()), "does not hold the weights"),
    "weights of one's own": (weights(b"\xff" * 64), "it holds no tensors"),
    "a huge header": (weights((2**40).to_bytes(8, "little") + b"{}"), "it holds no tensors"),
    "tensors of other shapes": (weights(save({"stem": torch.zeros(3, 3)})), "does not hold the weights"),
    "a link to nothing": (
        lambda folder: (
            (folder / "weights.safetensors").unlink(), (folder / "weights.safetensors").symlink_to(folder / "gone")
        ), "it is missing"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_foreign_folder_gives_one_sentence(name: str, copy: Path) -> None:
    damage, said = DAMAGES[name]
    damage(copy)
    with pytest.raises(HnasError, match=said) as error:
        hnas.load(copy)
    assert "\n" not in str(error.value)


def single_line(error: HnasError) -> None:
    assert "\n" not in str(error)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
_MEMBERS = (
    "version", "space", "arch", "definition", "network", "channels", "cells", "classes", "image_size", "mean", "std",
    "recipe", "accuracies", "curve", "provenance", "weights",
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(_MEMBERS), value=_ANYTHING)
def test_a_record_with_any_values_loads_or_is_reported(name: str, value: Any, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "any", dirs_exist_ok=True))
    rewritten(lambda record: record.update({name: value}))(folder)
    try:
        hnas.load(folder).predict(trained("nasbench201").images[:2])
    except HnasError as error:
        single_line(error)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    name=st.sampled_from(["weights.safetensors", "model.json"]),
)
def test_every_flipped_bit_is_detected(place: float, bit: int, name: str, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "flipped", dirs_exist_ok=True))
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / name).write_bytes(content)
    try:
        same = hnas.load(folder).info == hnas.load(saved).info
    except HnasError as error:
        single_line(error)
    else:
        assert same  # one blank between members became another


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_leaves_the_old_model(
    old: bool, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not old:
        shutil.rmtree(copy)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HnasError, match=r"No space left on device.*free some space"):
        trained("nasbench201").save(copy, provenance={"seed": 9})
    assert list(tmp_path.iterdir()) == ([copy] if old else [])
    assert not old or hnas.load(copy).info.provenance["seed"] == 0


def test_the_next_save_removes_a_killed_ones_leftovers(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from hnas.pipeline.io import aside\n"
        "aside._exchange = lambda *folders: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"aside.write_folder(Path({str(tmp_path)!r}) / 'model', {{'a': b'1'}})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    handle, busy = aside._create(tmp_path / "model")  # another process, still writing
    trained("nasbench201").save(tmp_path / "model")
    assert set(tmp_path.iterdir()) == {busy, tmp_path / "model"}
    os.close(handle)
    hnas.load(tmp_path / "model")
