"""The wheel and modules beside a user's script do not shadow each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.places import ROOT, SHIPPED

NOT_THE_PROJECTS = (".*", "*.egg-info", "build", "dist", "__pycache__", "demo", "downloads", "store")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
SCRIPT = """
import cli, pipeline
from hnas.cli import app
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
print(cli.mine, pipeline.mine, len(connect(Store("nothing")).sql("SELECT 1").fetchall()))
"""
TABLES = """
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store
connection = connect(Store("nothing"), shipped_tables())
query = "SELECT place, count(*) FROM pool JOIN runs USING (run) GROUP BY place ORDER BY place"
for place, rows in connection.sql(query).fetchall():
    print(place, rows)
"""
#: The rows of the shipped tables of DARTS, NAS-Bench-101 and NAS-Bench-201, which has three initialisations.
ROWS = (2000, 5000, 4 * 15625)


def copied(folder: Path) -> Path:
    """Copy the project to `folder`, with its links as links."""
    top = [ROOT / name for name in ("hnas", "pipeline", "cli.py", "data", "pyproject.toml", "README.md", "LICENSE")]
    folder.mkdir(parents=True)
    for path in top:
        if path.is_dir():
            ignored = shutil.ignore_patterns(*NOT_THE_PROJECTS) if path.name in ("data", "hnas") else None
            shutil.copytree(path, folder / path.name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(path, folder)
    # The patterns above also match packages called `store`.
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", dirs_exist_ok=True)
    return folder


def built(project: Path, hook: str, folder: Path) -> Path:
    """Build the wheel of a project."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, hook, str(folder)], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def unpacked(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel into a folder of installed packages."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("above") / "hnas")


@pytest.fixture(scope="module")
def installed(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return unpacked(built(project, "build_wheel", folder / "wheel"), folder / "packages")


def run_script(script: Path, text: str, *options: str, **environment: str) -> str:
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, *options, str(script)], cwd=script.parent, env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_checkout_links_to_the_modules_beside_hnas():
    links = {name: str((ROOT / "hnas" / name).readlink()) for name in ("pipeline", "cli.py", "tables")}
    assert links == {"pipeline": "../pipeline", "cli.py": "../cli.py", "tables": "../data/tables"}


def test_the_wheel_contains_only_the_package_hnas(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"hnas"}
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "hnas = hnas.cli:main" in entry.read_text()


def test_the_wheel_contains_every_module_query_and_asset(installed):
    patterns = ("hnas/**/*.py", "pipeline/**/*.py", "pipeline/**/*.sql", "pipeline/report/assets/*")
    paths = [path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)]
    expected = {path if path.parts[0] == "hnas" else Path("hnas", path) for path in paths} | {Path("hnas/cli.py")}
    found = {
        path.relative_to(installed)
        for pattern in ("hnas/**/*.py", "hnas/**/*.sql", "hnas/pipeline/report/assets/*")
        for path in installed.glob(pattern)
    }
    assert found == expected
    assert not any(path.is_symlink() for path in installed.rglob("*"))


def test_the_wheel_contains_the_shipped_tables(installed, tmp_path):
    shipped = {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*") if path.is_file()}
    tables = installed / "hnas" / "tables"
    assert {path.relative_to(tables) for path in tables.rglob("*") if path.is_file()} == shipped
    lines = run_script(tmp_path / "script.py", TABLES, PYTHONPATH=str(installed)).splitlines()
    assert lines == [f"{place} {rows}" for place, rows in zip(sorted(map(str, tables.iterdir())), ROWS, strict=True)]


def test_a_users_modules_called_cli_and_pipeline_are_not_shadowed(installed, tmp_path):
    (tmp_path / "cli.py").write_text("mine = 'my cli'")
    (tmp_path / "pipeline.py").write_text("mine = 'my pipeline'")
    assert run_script(tmp_path / "script.py", SCRIPT, PYTHONPATH=str(installed)) == "my cli my pipeline 1\n"


def test_a_package_called_pipeline_of_another_distribution_is_unaffected(installed, tmp_path):
    other = tmp_path / "site" / "pipeline"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("mine = 'theirs'")
    (tmp_path / "cli.py").write_text("mine = 'my cli'")
    shutil.copytree(installed, tmp_path / "site", dirs_exist_ok=True)
    assert run_script(tmp_path / "script.py", SCRIPT, PYTHONPATH=str(tmp_path / "site")) == "my cli theirs 1\n"


def test_a_script_beside_an_installed_clone_imports_the_clone(project, tmp_path):
    site = unpacked(built(project, "build_editable", tmp_path / "wheel"), tmp_path / "site")
    # Without `site`, because the environment of the tests links to their own checkout.
    text = f"""
import site, sys
site.addsitedir({str(site)!r})
sys.path.append({sysconfig.get_path("purelib")!r})
import hnas, hnas.cli
print(hnas.__file__)
"""
    assert run_script(project.parent / "script.py", text, "-S") == f"{project / 'hnas' / '__init__.py'}\n"


def test_the_cli_of_a_checkout_runs_without_installation(project):
    command = [sys.executable, "cli.py", "--version"]
    done = subprocess.run(command, cwd=project, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    assert done.stdout.startswith(b"hnas ")
