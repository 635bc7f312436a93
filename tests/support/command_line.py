"""The command line in tests: run in this process or in another one, and a store made by commands."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from hnas import cli
from hnas.spaces import search_spaces
from tests.support.places import ROOT

HEAVY = ("torch", "dask", "distributed", "duckdb", "zarr", "sklearn", "bayes_opt", "pandas", "scipy")
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
CONVOLUTION = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
#: 24 distinct architectures: a dead one, whose κ is infinite, and others.
ARCHS = tuple(dict.fromkeys([DEAD, *search_spaces["nasbench201"].sample(24, seed=0)]))[:24]
#: The settings of the run that `store_by_commands` computes, for commands that repeat it.
SETTINGS = ("nasbench201", "--dataset", "digits", "--channels", "4", "--cells", "1", "--batch-size", "16")


@dataclass(frozen=True)
class Outcome:
    """The exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return self.err.rstrip("\n").rpartition("\n")[2]


def hnas(*arguments: object, merged: bool = False, terminal: io.TextIOBase | None = None) -> Outcome:
    """Run the command in this process.

    `merged` combines both output streams in the order of writing; `terminal` receives the standard output.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(sys, "argv", ["hnas", *map(str, arguments)]),
            mock.patch.object(sys, "unraisablehook", sys.unraisablehook),
            redirect_stdout(terminal or out),
            redirect_stderr(out if merged else err),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Outcome(ended.value.code if isinstance(ended.value.code, int) else 0, *texts)


def hnas_process(*arguments: object, **options: object) -> Outcome:
    """Run the command in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "hnas.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def imported_by(*arguments: object) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The heavy packages that the command, run in a separate process, has imported when it ends."""
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: sys.stderr.write('\\n' + ' '.join(m for m in {HEAVY!r} if m in sys.modules)))\n"
        "sys.argv[0] = 'hnas'\n"
        "import hnas.cli\n"
        "hnas.cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return set(done.stderr.rpartition("\n")[2].split()), done


def accuracies(archs: tuple[str, ...] = ARCHS) -> str:
    """The text of a CSV file with synthetic accuracies on digits."""
    lines = [f"{arch},digits,12,{60 + 37 * i % 35}.{i:02},{61 + 23 * i % 36}.5" for i, arch in enumerate(archs)]
    return "\n".join(["arch,dataset,epochs,valid_accuracy,test_accuracy", *lines]) + "\n"


def store_by_commands(folder: Path) -> tuple[Path, Outcome]:
    """A store with a run of 24 architectures, accuracies and a search, and the outcome of `precompute --quiet`."""
    place = folder / "store"
    (folder / "archs.txt").write_text("\n".join(ARCHS))
    with socket.socket() as taken:
        # Occupy the port of Dask's dashboard, which must not matter.
        try:
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        except OSError:
            pass  # already occupied
        computed = hnas_process(
            *("precompute", *SETTINGS, "--architectures", folder / "archs.txt"),
            *("--workers", 1, "--quiet", "--store", place),
        )
    assert computed.status == 0, computed.err
    add_accuracies_and_a_search(place)
    return place, computed


def add_accuracies_and_a_search(place: Path) -> None:
    """Import accuracies into a store with a run, and search it."""
    (place.parent / "made-up.csv").write_text(accuracies())
    for arguments in (
        ("import", "csv", place.parent / "made-up.csv"),
        ("search", "nasbench201", "--queries", 3, "--quiet"),
    ):
        done = hnas(*arguments, "--store", place)
        assert done.status == 0, done.err
