"""The next command removes temporary files of killed commands, but not those of live ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.store.partial_writes import sweep_parts
from hnas.pipeline.store.store import Store
from tests.support.import_files import table
from tests.support.places import ROOT

#: Writes part of a file into the store, prints a message, and waits.
WRITER = """
import sys
from hnas.pipeline.store.store import Store
store = Store(sys.argv[1])
store.prepare()
with store.aside("accuracies", "x", "y.parquet") as aside:
    aside.file.write(b"some rows")
    if sys.argv[2] == "sealed":
        aside.seal()
    print("ready", flush=True)
    sys.stdin.read()
    if sys.argv[2] == "sealed":
        aside.keep()
"""


def writer(store: Store, state: str) -> subprocess.Popen[bytes]:
    """A process in the middle of writing a file."""
    command = [sys.executable, "-c", WRITER, store.root, state]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def parts(store: Store) -> list[Path]:
    return sorted(Path(store.root).glob(".*.part"))


def test_a_killed_commands_leftovers_are_removed_by_the_next(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for state in ("written", "sealed"):
        process = writer(store, state)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(parts(store)) == 1
        import_accuracies(store, "csv", table(tmp_path / f"{state}.csv", 90.0))
        assert parts(store) == []


def test_files_of_live_commands_are_spared(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    process = writer(store, "sealed")
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    assert len(parts(store)) == 1
    process.communicate()
    assert process.returncode == 0
    assert Path(store.path("accuracies", "x", "y.parquet")).read_bytes() == b"some rows"


def test_files_of_other_machines_and_links_are_spared(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "store").mkdir()
    old, new, link = (
        tmp_path / "store" / f".{name}.part" for name in ("ffffffff.old", "ffffffff.new", "ffffffff.link")
    )
    old.write_text("of another machine, a week ago")
    os.utime(old, (1e9, 1e9))
    new.write_text("of another machine, now")
    link.symlink_to(tmp_path / "outside")
    sweep_parts(tmp_path / "store")
    assert sorted((tmp_path / "store").iterdir()) == [link, new]
    assert (tmp_path / "outside").read_text() == "kept"
