"""The local cluster on a machine with other users, and under a Dask configuration for other clusters."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, Security

from hnas.errors import HnasError
from hnas.pipeline.cluster.connection import connected
from hnas.pipeline.cluster.dask_scratch import scratch_folder
from hnas.pipeline.precompute.driver import precompute
from hnas.pipeline.store.store import Store
from tests.support.contents import matching
from tests.support.processes import WAIT, group_is_gone, precompute_command, run_command, running, wait_until
from tests.support.runs import SPACE, exact_table, fill

pytestmark = pytest.mark.slow


def listening() -> set[tuple[str, int]]:
    """The addresses on which this process and its children listen."""
    me = psutil.Process()
    return {
        tuple(connection.laddr)
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture
def reachable() -> Iterator[set[tuple[str, int]]]:
    """The addresses on which a local cluster listens."""
    before = listening()
    with connected(1, None, "cpu"):
        yield listening() - before


# --- other users


def ask(address: tuple[str, int], *, tls: bool) -> bytes:
    """A server's response to an HTTP request without a certificate."""
    with socket.create_connection(address, timeout=30) as connection:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        try:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(4096)
        except ConnectionResetError:
            return b""


def test_servers_listen_on_loopback_and_require_the_certificate(reachable):
    assert len(reachable) == 3, "the scheduler, a nanny and a worker"
    for address in reachable:
        assert address[0] == "127.0.0.1"
        assert ask(address, tls=False) == b""
        with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|EOF"):
            ask(address, tls=True)


def test_pickles_without_the_clusters_certificate_are_rejected(reachable):
    stranger = Security.temporary()
    for host, port in reachable:
        for scheme, security in (("tcp", None), ("tls", stranger)):
            with pytest.raises(OSError, match=r"Timed out|closed|certificate does not match"):
                Client(f"{scheme}://{host}:{port}", security=security, timeout="2s")


def test_nothing_is_imported_from_a_folder_others_may_have_made(tmp_path, monkeypatch):
    shared = tmp_path / "dask-scratch-space"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with connected(1, None, "cpu") as client:
        (paths,) = client.run(lambda: __import__("sys").path).values()
        added = [Path(path) for path in {*paths, *sys.path} if Path(path).is_relative_to(tmp_path)]
        assert added
        for folder in added:
            assert not folder.is_relative_to(shared)
            private = folder
            while private.parent != tmp_path:
                private = private.parent
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == [shared]
    assert list(shared.iterdir()) == []


# --- leftovers of killed commands


def test_the_next_command_removes_a_killed_ones_temporary_folder(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"TMPDIR": str(scratch)}
    store = Store(str(tmp_path / "store"))
    command = precompute_command(store.root, "--sample=30", "--workers=1", "--chunk-size=1", "--quiet")
    with running(*command, env=env) as process:
        wait_until(lambda: bool(matching(store, "runs", "*", "metrics", "*.parquet")), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: group_is_gone(process.pid))
    assert list(scratch.iterdir())
    done = run_command("env", f"TMPDIR={scratch}", *command, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert list(scratch.iterdir()) == []


def test_a_sweep_spares_folders_in_use_and_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (tmp_path / "hnas-dask-link").symlink_to(elsewhere)
    abandoned = tmp_path / "hnas-dask-abandoned"
    (abandoned / "dask-scratch-space").mkdir(parents=True)
    with scratch_folder() as first, scratch_folder() as second:
        assert first != second
        assert Path(first).is_dir()
        assert not abandoned.exists()
    assert (elsewhere / "kept").exists()
    assert not Path(first).exists()
    assert not Path(second).exists()


def test_a_full_temporary_file_system_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(HnasError, match=r"cannot create a folder for temporary files: No such file.*; set TMPDIR"):
        precompute(Store(str(tmp_path / "store")), SPACE, _plan(tmp_path), workers=1, device="cpu")
    assert not (tmp_path / "store").exists()


# --- the user's Dask configuration

HOSTILE = {
    "scheduler-address": "tcp://127.0.0.1:1",
    "temporary-directory": "/proc/nowhere",
    "distributed": {
        "logging": {"distributed": "debug", "distributed.core": "debug", "distributed.nanny": "info"},
        "client": {"security-loader": "no.such.module", "preload": ["no_such_module"]},
        "comm": {
            "default-scheme": "tls",
            "require-encryption": True,
            "compression": "zstd",
            "tls": {"ca-file": "/nowhere/ca.pem", "ciphers": "NONE", "client": {"cert": "/nowhere/client.pem"}},
        },
        "scheduler": {
            "allowed-failures": 0,
            "blocked-handlers": ["register-client"],
            "idle-timeout": "1s",
            "preload": ["no_such_module"],
            "http": {"routes": ["no.such.routes"]},
            "allowed-imports": [],
        },
        "worker": {
            "blocked-handlers": ["run"],
            "daemon": False,
            "lifetime": {"duration": "3s", "restart": False},
            "memory": {"terminate": 0.001, "pause": 0.001, "target": 0.001, "spill": 0.001},
            "multiprocessing-method": "fork",
            "preload": ["no_such_module"],
            "resources": {"GPU": 1},
        },
        "nanny": {
            "environ": {"HNAS_STORE": "/nowhere", "OMP_NUM_THREADS": "7"},
            "pre-spawn-environ": {"OMP_NUM_THREADS": "7", "MALLOC_ARENA_MAX": "9"},
            "preload": ["no_such_module"],
        },
    },
}
VARIABLES = {
    "DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION": "2s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s",
    "DASK_SCHEDULER": "synchronous",
}


def _plan(folder: Path):
    from hnas.pipeline.images import open_dataset
    from hnas.pipeline.precompute.plan import make_plan

    digits = open_dataset("digits")
    return make_plan(Store(str(folder / "store")), SPACE, digits, channels=4, cells=1, batch_size=8, sample=8)


def settings_below(home: Path, text: str) -> list[str]:
    """The command line that runs a command with `text` as the user's Dask configuration."""
    place = home / ".config" / "dask"
    place.mkdir(parents=True)
    (place / "cluster.yaml").write_text(text)
    return ["env", f"HOME={home}", *(f"{name}={value}" for name, value in VARIABLES.items())]


def test_a_configuration_for_other_clusters_does_not_affect_the_local_one(tmp_path):
    store = Store(str(tmp_path / "store"))
    home = settings_below(tmp_path, json.dumps(HOSTILE))
    command = precompute_command(store.root, "--sample=40", "--workers=1", "--chunk-size=1", "--quiet")
    done = run_command(*home, *command, timeout=WAIT)
    # The user's log settings still apply.
    assert done.returncode == 0, done.stderr
    assert all(re.search(" - (DEBUG|INFO) - ", line) for line in done.stderr.splitlines()), done.stderr
    alone = Store(str(tmp_path / "alone"))
    plan = _whole_plan(alone)
    assert exact_table(store, plan.settings.id) == exact_table(alone, fill(alone, plan))


def _whole_plan(store: Store):
    from hnas.pipeline.images import open_dataset
    from hnas.pipeline.precompute.plan import make_plan

    return make_plan(store, SPACE, open_dataset("digits"), channels=4, cells=1, batch_size=8, sample=40, chunk_size=8)


@pytest.mark.parametrize(
    ("text", "reason"), [("a: [", "malformed"), ("distributed: {admin: {tick: {limit: soon}}}", "soon|convert|unit")]
)
def test_an_invalid_dask_configuration_gives_one_sentence(tmp_path, text, reason):
    home = settings_below(tmp_path, text)
    done = run_command(*home, *precompute_command(tmp_path / "store", "--sample=2", "--workers=1"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("hnas: Dask rejects its configuration: ")
    assert not (tmp_path / "store").exists()
