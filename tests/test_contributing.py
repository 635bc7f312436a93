"""Files for contributors: CONTRIBUTING, the hooks, the citation, and the API reference."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import hnas
from hnas.optim.methods import registry as optim_methods
from hnas.pipeline.io import importers
from hnas.scores import registry as scores
from hnas.spaces import registry as spaces
from tests.support.places import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_files_to_copy_exist() -> None:
    named = re.findall(r"`((?:hnas|pipeline|tests|build)/[\w./]+|[\w.]+\.(?:py|toml|txt|md))`", PAGE)
    places = [name for name in named if not name.startswith("build/")]
    assert len(places) > 20
    assert [name for name in places if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("page", "built_in"),
    [
        ("search.md", optim_methods._BUILT_IN),
        ("scores.md", scores._BUILT_IN),
        ("store.md", importers._BUILT_IN),
        ("spaces.md", spaces._BUILT_IN),
    ],
)
def test_every_extension_is_on_its_docs_page(page: str, built_in: dict[str, str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in built_in if not re.search(rf"`{name}\b[^`]*`", text)] == []


def test_the_plan_names_every_package() -> None:
    science, pipeline, *_ = PROJECT["tool"]["importlinter"]["contracts"]
    packages = re.findall(r"\w+", " ".join(science["layers"] + pipeline["layers"]))
    plan = PAGE.split("## Plan of the house")[1].split("## ")[0]
    helpers = {"allocator", "devices", "threads", "cli"}
    assert [
        package for package in packages if package not in helpers and not re.search(rf"`{package}`|`{package}/`", plan)
    ] == []


def test_the_make_targets_it_names_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = re.findall(r"(?:^|`)make (\w+)", PAGE, re.M)
    assert set(named) == {"lint", "docs", "test", "coverage"} <= set(targets)


def test_hooks_run_installed_tools_and_download_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy"}


def test_the_citation_has_the_current_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hnas.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["references"][0]["title"].startswith("Unifying and Boosting Gradient-Based")


def test_issue_forms_are_well_formed() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(form)


def test_the_reference_has_every_public_name() -> None:
    pages = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))
    assert [name for name in hnas.__all__ if not re.search(rf"\b{name}\b", pages)] == []
