"""Random odd command lines end with a valid status and at most one sentence.

`HNAS_FUZZ=300` tries that many. Each has a number, by which it can be repeated alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer

from hnas import cli
from tests.support.command_line import CONVOLUTION, hnas
from tests.support.stores import make_store

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
ODD = (
    "", " ", "-", "-1", "0", "1", "2", "0.5", "nan", "inf", "-inf", "1e400", "9" * 400, "0x10", "1_000", "None", "null",
    "'", '"', ";", "\\", "%s", "{}", "*", "?", "[", "]", "$HOME", "`id`", "a\nb", "a\tb", "\x1b[2J", "\x7f", "true",
    "é", "数据", "🙂", "a\udcff", ".", "..", "/", "~", "/dev/null", "/proc/self/mem", "x" * 300, "a/" * 50, "--",
    "\u202eabc", "file:///", "http://", "zip://x.zip", "memory://x", "pigeon://x", "::", "digits", "--help",
    "nasbench201", "darts", "trace", "kappa", "test_accuracy", "ei", "csv", "json", "x.csv", "x.parquet", "x.png",
    "x.gz", "tcp://127.0.0.1:1",
)  # fmt: skip
# These options keep computations short and downloads local.
ALWAYS = {
    "precompute": ("--sample", "1", "--channels", "4", "--cells", "1", "--batch-size", "4", "--dry-run"),
    "fetch": ("--from", "http://127.0.0.1:9/x"),
    "search": ("--queries", "2"),
    "compare": ("--queries", "2", "--seeds", "2"),
    "evaluate": ("--epochs", "1", "--channels", "2", "--cells", "1", "--image-size", "8"),
}
USUAL = {
    "precompute": ("nasbench201", "--dataset", "digits"),
    "import": ("csv", "x.csv"),
    "fetch": ("cifar10",),
    "search": ("nasbench201",),
    "compare": ("nasbench201", "--methods", "hnas,random"),
    "evaluate": (CONVOLUTION, "--dataset", "digits"),
    "sql": ("FROM runs",),
    "reproduce": ("figure3",),
}
# These options would take long, or change the user's shell.
NEVER = {"--help", "-h", "--install-completion", "--open", "--oracle", "--scheduler", "--workers"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz") / "store"
    place.mkdir()
    make_store(place, architectures=12)
    return place


def odd_command(random: Random, store: Path) -> list[str]:
    """A command with its usual arguments, some options with odd values, and sometimes an extra word."""
    name = random.choice([*COMMANDS, random.choice(ODD)])
    if name not in COMMANDS:
        return [name, *random.choices(ODD, k=random.randrange(3))]
    words = list(USUAL.get(name, ())) if random.random() < 0.8 else random.choices(ODD, k=random.randrange(3))
    options = [param for param in COMMANDS[name].params if param.opts[0].startswith("-") and param.opts[0] not in NEVER]
    for param in random.sample(options, min(len(options), random.randrange(4))):
        value = [] if getattr(param, "is_flag", False) and random.random() < 0.9 else [random.choice(ODD)]
        words += [f"{param.opts[0]}={value[0]}"] if value and random.random() < 0.3 else [param.opts[0], *value]
    if random.random() < 0.1:
        words.insert(random.randrange(len(words) + 1), random.choice(ODD))
    if "--store" in {param.opts[0] for param in options} and random.random() < 0.9:
        words += ["--store", str(store)]
    return [name, *words, *ALWAYS.get(name, ())]


@pytest.mark.parametrize("number", range(int(os.environ.get("HNAS_FUZZ", "40"))))
def test_an_odd_command_line_ends_with_at_most_one_sentence(
    number: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HNAS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HNAS_STORE", str(tmp_path / "own"))
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123 (pytest forbids reading its own)
    words = odd_command(Random(number), store)
    done = hnas(*words)
    assert done.status in (0, 1, 2), words
    assert "did not foresee" not in done.err, words
    assert "Traceback" not in done.err, words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.err), words
    if done.status and not any(word in ("--help", "-h") for word in words):
        assert done.last.startswith("hnas: "), (words, done)
        assert len(done.last) < 2000, words
