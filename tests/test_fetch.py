"""`hnas fetch` from a real HTTP server on loopback: whole, resumed, wrong, refused, unpacked."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from hnas.errors import HnasError, UsageError
from pipeline import fetch as module
from pipeline.fetch import SOURCES, ByHand, Download, fetch
from pipeline.images import open_dataset

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(ThreadingHTTPServer):
    """Serves `files` by path, with ranges unless told otherwise; breaks off after `break_after` bytes of an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_after: int | None = None
        self.asked: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start:]
        self.wfile.write(sent if self.server.break_after is None else sent[: self.server.break_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def source(server: Server, monkeypatch: pytest.MonkeyPatch) -> Download:
    """A benchmark file called `bench`, published by the server."""
    server.files["/bench.tfrecord"] = CONTENT
    download = Download(server.url("/bench.tfrecord"), f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    monkeypatch.setitem(SOURCES, "bench", download)
    return download


@pytest.mark.usefixtures("source")
def test_a_file_is_fetched_whole_with_progress_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch("bench", tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path == tmp_path / "bench" / "bench.tfrecord"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(told) == told
    assert fetch("bench", tmp_path) == path
    assert len(server.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["bench.tfrecord"]


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.break_after, server.ranges = 1_200_000, ranges
    with pytest.raises(HnasError, match=r"cannot be fetched.*goes on where it stopped"):
        fetch("bench", tmp_path)
    part = tmp_path / "bench" / "bench.tfrecord.part"
    there = part.stat().st_size
    assert 0 < there <= 1_200_000
    assert part.read_bytes() == CONTENT[:there]
    server.break_after = None
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={there}-"]
    assert not part.exists()


@pytest.mark.usefixtures("source")
def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "bench.tfrecord.part").write_bytes(CONTENT)
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.usefixtures("source")
def test_wrong_content_is_thrown_away_and_the_next_attempt_starts_afresh(server: Server, tmp_path: Path) -> None:
    server.files["/bench.tfrecord"] = b"<html>a login page</html>"
    with pytest.raises(HnasError, match=r"has not the checksum sha256:.*thrown away"):
        fetch("bench", tmp_path)
    assert list((tmp_path / "bench").iterdir()) == []
    server.files["/bench.tfrecord"] = CONTENT
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


@pytest.mark.usefixtures("source")
def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    path = fetch("bench", tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch("bench", tmp_path).read_bytes() == CONTENT


def test_refusals_of_the_network_are_one_sentence(server: Server, source: Download, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(HnasError, match="the server answered 404"):
        fetch("bench", tmp_path)
    with pytest.raises(HnasError, match="cannot be reached"):
        fetch("bench", tmp_path, url="http://127.0.0.1:1/bench.tfrecord")
    with pytest.raises(UsageError, match=r"nothing to fetch called 'cifar'.*cifar10, cifar100, nasbench101"):
        fetch("cifar", tmp_path)


@pytest.mark.usefixtures("source")
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HnasError, match="file/bench cannot be written"):
        fetch("bench", tmp_path / "file")


def cifar_archive() -> bytes:
    """A small CIFAR-10 as its authors pack it."""
    files = {}
    rng = np.random.default_rng(1)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        files[name] = {b"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), b"labels": [0, 1, 2, 3]}
    files["batches.meta"] = {b"label_names": [f"class {k}".encode() for k in range(10)]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_the_command_fetches_a_data_set_from_a_mirror_and_the_name_then_opens_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = cifar_archive()
    server.files["/mirror/cifar-10-python.tar.gz"] = content
    monkeypatch.setitem(
        SOURCES,
        "cifar10",
        Download("http://127.0.0.1:1/x.tar.gz", f"md5:{hashlib.md5(content).hexdigest()}", archive=True),
    )
    monkeypatch.delenv("HNAS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["fetch", "cifar10", "--from", server.url("/mirror/cifar-10-python.tar.gz")])
    assert result.exit_code == 0, result.output
    assert "cifar10 is in data/downloads/cifar10" in result.stdout
    dataset = open_dataset("cifar10")
    assert (dataset.name, len(dataset.train), dataset.size) == ("cifar10", 20, 32)


def test_what_was_unpacked_half_way_is_unpacked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = cifar_archive()
    server.files["/cifar-10-python.tar.gz"] = content
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    monkeypatch.setitem(SOURCES, "cifar10", Download(server.url("/cifar-10-python.tar.gz"), checksum, archive=True))
    place = fetch("cifar10", tmp_path)
    last = place / "cifar-10-batches-py" / "batches.meta"
    whole = last.read_bytes()
    written = last.stat().st_mtime_ns
    fetch("cifar10", tmp_path)
    assert last.stat().st_mtime_ns == written, "what is whole is left alone"
    last.write_bytes(whole[:10])
    fetch("cifar10", tmp_path)
    assert last.read_bytes() == whole


def test_a_hostile_archive_writes_nothing_outside_its_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../escaped")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    server.files["/evil.tar.gz"] = buffer.getvalue()
    checksum = f"md5:{hashlib.md5(buffer.getvalue()).hexdigest()}"
    monkeypatch.setitem(SOURCES, "evil", Download(server.url("/evil.tar.gz"), checksum, archive=True))
    with pytest.raises(HnasError, match="archive"):
        fetch("evil", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escaped"))


def test_what_has_no_address_is_explained_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HnasError, match=r"nats-bench has no stable direct link.*`hnas import nats-bench PATH`"):
        fetch("nats-bench", tmp_path)
    with pytest.raises(HnasError, match=r"batch_1 27846dcaa50de8e21a7d1a35f30f0e91.*missing there: .*val_data"):
        fetch("imagenet16-120", tmp_path)
    small = {"one": hashlib.md5(b"1").hexdigest(), "two": hashlib.md5(b"2").hexdigest()}
    monkeypatch.setitem(SOURCES, "byhand", ByHand("somewhere", small))
    place = tmp_path / "byhand"
    place.mkdir()
    (place / "one").write_bytes(b"1")
    (place / "two").write_bytes(b"3")
    with pytest.raises(HnasError, match="the MD5 of two is not the published one"):
        fetch("byhand", tmp_path)
    (place / "two").write_bytes(b"2")
    assert fetch("byhand", tmp_path) == place


def test_published_checksums_have_the_form_of_checksums() -> None:
    for source in SOURCES.values():
        if isinstance(source, Download):
            algorithm, value = source.checksum.split(":")
            assert len(value) == 2 * hashlib.new(algorithm).digest_size
            assert source.url.startswith("https://")
        else:
            assert all(len(md5) == 32 for md5 in source.checksums.values())
    assert module.SOURCES is SOURCES
