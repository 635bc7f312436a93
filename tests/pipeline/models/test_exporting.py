"""Exported programs give the module's logits without hnas."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hnas
from hnas import HnasError, UsageError
from hnas.pipeline.models.exporting import export
from tests.support.models import ARCHS, CLASSES, trained

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="onnx, onnxscript and onnxruntime are not all installed")
KINDS = [*((space, False) for space in ARCHS), ("darts", True)]

RUN = """
import builtins, sys
real = builtins.__import__
def refusing(name, *rest):
    assert not name.startswith("hnas"), name
    return real(name, *rest)
builtins.__import__ = refusing
import numpy as np, torch
torch.set_num_threads(1)
images = torch.from_numpy(np.load("images.npy"))
for path in sys.argv[1:]:
    extra = {"model.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    np.savez(path + ".npz", **{str(n): program(images[:n]).detach().numpy() for n in (1, 2, 7)})
    print(extra["model.json"].replace("\\n", " "))
"""


def test_torch_runs_exported_programs_without_hnas(tmp_path: Path) -> None:
    images = trained("darts").images[:7]
    np.save(tmp_path / "images.npy", images.numpy())
    for i, (space, evaluation) in enumerate(KINDS):
        trained(space, evaluation=evaluation).save(tmp_path / str(i))
        assert export(tmp_path / str(i), "pt2") == tmp_path / f"{i}.pt2"
    paths = [f"{i}.pt2" for i in range(len(KINDS))]
    arguments = [sys.executable, "-I", "-c", RUN, *paths]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(KINDS)
    for i, line in enumerate(lines):
        assert json.loads(json.loads(line)["classes"]) == list(CLASSES)
        expected = hnas.load(tmp_path / str(i))(images).detach().numpy()
        found = np.load(tmp_path / f"{i}.pt2.npz")
        for n in (1, 2, 7):
            np.testing.assert_allclose(found[str(n)], expected[:n], rtol=0, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize(("space", "evaluation"), KINDS)
def test_onnxruntime_gives_the_logits_of_the_module(space: str, evaluation: bool, tmp_path: Path) -> None:
    import onnxruntime

    made = trained(space, evaluation=evaluation)
    made.save(tmp_path / "model")
    path = export(tmp_path / "model", output=tmp_path / "winner.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert "uint8" in metadata["input"]
    model = hnas.load(tmp_path / "model")
    for n in (1, 2, 50):
        images = made.images[:n]
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, model(images).detach().numpy(), rtol=0, atol=1e-5)


def test_onnx_without_its_packages_says_how_to_install_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained("nasbench201").save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(HnasError, match=r"pip install 'hnas\[onnx\]'"):
        export(tmp_path / "model", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_contradictory_and_impossible_outputs_are_rejected(tmp_path: Path) -> None:
    trained("nasbench201").save(tmp_path / "model")
    for form, output in (("onnx", tmp_path / "x.pt2"), ("pt2", tmp_path), ("pt2", tmp_path / "gone/x")):
        with pytest.raises(UsageError, match=r"--output|cannot be a file"):
            export(tmp_path / "model", form, output)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is part of the model"):
        export(tmp_path / "model", "pt2", tmp_path / "model/weights.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
