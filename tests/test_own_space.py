"""The package of docs/spaces.md, installed with pip and used by precompute, correlate and search."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

PAGE = (ROOT / "docs/spaces.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package. It is installed offline, so that its dependency hnas is this checkout."""
    folder = tmp_path_factory.mktemp("own")
    source, target = folder / "hnas-plain", folder / "site"
    source.mkdir()
    (project,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    module, _ = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    (source / "pyproject.toml").write_text(project)
    (source / "hnas_plain.py").write_text(module)
    assert len(f"{project}{module}".splitlines()) < 60
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=300)
    return target


def hnas(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}
    arguments = [sys.executable, "-m", "hnas.cli", *command]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run(installed: Path, store: Path, *command: str) -> str:
    done = hnas(installed, *command, "--store", str(store))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_accepts_the_space_of_an_installed_package(installed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shown = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S))
    commands = [line.split()[1:] for line in re.findall(r"^hnas .*$", shown, re.M)]
    assert [command[0] for command in commands] == ["precompute", "correlate", "search"]
    precompute, correlate, search = commands
    assert "8 canonical architectures stand for the 8" in run(
        installed, store, *precompute, "--sample", "8", "--workers", "1"
    )
    assert "grad_norm" in run(installed, store, *correlate)
    assert re.search(r"validation accuracy, query \d of 3", run(installed, store, *search, "--queries", "3"))
    rows = run(installed, store, "sql", "SELECT arch, params, status FROM pool ORDER BY arch", "--format", "csv")
    assert len(rows.splitlines()) == 9
    assert re.fullmatch(r"(\dx\d-\dx\d-\dx\d,\d+,ok\n?)+", rows.partition("\n")[2])

    # The space draws torch's weights itself; other initialisations replace them.
    assert "2 computed now" in run(installed, store, *precompute, "--sample", "2", "--workers", "1", "--init", "he")
    query = "SELECT init, count(DISTINCT snip) FROM runs JOIN metrics USING (run) GROUP BY init ORDER BY init"
    assert run(installed, store, "sql", query, "--format", "csv").splitlines()[1:] == ["he,2", "torch,8"]
    twice = "SELECT arch FROM pool GROUP BY arch HAVING count(DISTINCT snip) = 2"
    query = f"SELECT count(*) FROM ({twice})"
    assert run(installed, store, "sql", query, "--format", "csv").splitlines()[1:] == ["2"]


def test_a_malformed_architecture_gives_the_error_of_the_package(installed: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("1x3-2x3-4x1\n1x3-2x2-4x1\n")
    command = ["precompute", "plain", "--dataset", "digits", "--architectures", str(listed)]
    done = hnas(installed, *command, "--store", str(tmp_path / "s"))
    assert done.returncode == 2
    assert "line 2: '1x3-2x2-4x1' is no plain network; one is 1x3-2x3-4x1" in done.stderr
    assert not (tmp_path / "s").exists()
