"""docs/models.md, run as a reader would run it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.pipeline.models.test_exporting import ONNX
from tests.support.command_line import hnas
from tests.support.places import ROOT
from tests.test_help import COMMANDS

PAGE = (ROOT / "docs/models.md").read_text(encoding="utf-8")


def masked(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r"\d[\d.]*", "#", text))


def test_the_page_on_models_shows_true_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saving, loading, program = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    namespace: dict[str, object] = {}
    exec(saving, namespace)
    exec(loading, namespace)
    assert namespace["done"].test_accuracy > 95  # type: ignore[attr-defined]
    console = "".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S))
    for part in re.split(r"^\$ hnas ", console, flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        if "onnx" in command and not ONNX:
            continue
        done = hnas(*shlex.split(command))
        assert done.status == int(command == "predict best photos"), done.err
        assert masked(done.out) == masked(expected)
    exec(program, namespace)
    assert namespace["classes"] == list("0123456789")
    assert all((tmp_path / name).exists() for name in ("best", "best.pt2", "cell.svg"))


def test_the_long_searches_on_the_page_are_valid_commands() -> None:
    lines = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)).splitlines()
    assert len(lines) == 3
    for line in lines:
        _, name, *arguments = shlex.split(line)
        with COMMANDS[name].make_context(name, arguments) as context:
            assert context.params["dataset"] == "cifar10"
