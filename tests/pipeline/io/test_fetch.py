"""`hnas fetch` from a real HTTP server on loopback: complete, resumed, wrong, rejected and unpacked files."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from hnas.errors import HnasError, UsageError
from hnas.pipeline.images import open_dataset
from hnas.pipeline.io import fetch as module
from hnas.pipeline.io.fetch import SOURCES, ByHand, Download, fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(ThreadingHTTPServer):
    """Serves `files` by path, by default with ranges; breaks off after `break_after` bytes of a response.

    With `trickle`, one byte is sent every 20 ms. `headers` replace those of a response; an empty one is omitted.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_after: int | None = None
        self.trickle = False
        self.headers: dict[str, str] = {}
        self.asked: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        byte_range = self.headers.get("Range")
        self.server.asked.append(byte_range)
        if self.path.startswith("/loop"):
            self.send_response(302)
            self.send_header("Location", f"/loop{len(self.server.asked)}")
            self.end_headers()
            return
        if self.path.startswith("/moved"):
            self.send_response(301)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        for name, value in ({"Content-Length": str(len(content) - start)} | self.server.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        sent = content[start:]
        if self.server.trickle:
            with suppress(BrokenPipeError):  # the client gives up
                for place in range(len(sent)):
                    self.wfile.write(sent[place : place + 1])
                    time.sleep(0.02)
            return
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
def test_a_file_is_downloaded_once_with_progress(server: Server, tmp_path: Path) -> None:
    updates: list[tuple[int, int]] = []
    path = fetch("bench", tmp_path, progress=lambda done, total: updates.append((done, total)))
    assert path == tmp_path / "bench" / "bench.tfrecord"
    assert path.read_bytes() == CONTENT
    assert updates[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(updates) == updates
    assert fetch("bench", tmp_path) == path
    assert len(server.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["bench.tfrecord"]


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_resumes_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.break_after, server.ranges = 1_200_000, ranges
    with pytest.raises(HnasError, match=r"cannot be downloaded.*again to resume"):
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
@pytest.mark.parametrize("step", [1, 1000, 70_000])
def test_several_broken_connections_add_up(server: Server, tmp_path: Path, step: int) -> None:
    part = tmp_path / "bench" / "bench.tfrecord.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[: len(CONTENT) - 3 * step])
    server.break_after = step
    for number in (2, 1):
        with pytest.raises(HnasError, match=r"broke after [\d,]+ of 3,000,000 bytes; run the same command again"):
            fetch("bench", tmp_path)
        assert part.read_bytes() == CONTENT[: len(CONTENT) - number * step]
    assert fetch("bench", tmp_path).read_bytes() == CONTENT


@pytest.mark.usefixtures("source")
def test_an_earlier_break_without_ranges_loses_nothing(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "bench" / "bench.tfrecord.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:500_000])
    server.ranges, server.break_after = False, 200_000
    with pytest.raises(HnasError, match="broke after 200,000 of 3,000,000"):
        fetch("bench", tmp_path)
    assert part.read_bytes() == CONTENT[:500_000]
    server.ranges, server.break_after = True, None
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=500000-"


@pytest.mark.usefixtures("source")
def test_a_file_that_changed_between_attempts_is_downloaded_afresh(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "bench" / "bench.tfrecord.part"
    part.parent.mkdir()
    part.write_bytes(b"of another version" * 100)
    with pytest.raises(HnasError, match="does not have the checksum"):
        fetch("bench", tmp_path)
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1800-", None]


@pytest.mark.usefixtures("source")
def test_excess_bytes_are_not_read_and_a_wrong_range_is_rejected(server: Server, tmp_path: Path) -> None:
    server.files["/bench.tfrecord"] = CONTENT + b"more" * 1000
    server.headers = {"Content-Length": str(len(CONTENT))}
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    (tmp_path / "bench" / "bench.tfrecord").rename(tmp_path / "bench" / "bench.tfrecord.part")
    (tmp_path / "bench" / "bench.tfrecord.part").write_bytes(CONTENT[:1000])
    server.headers = {"Content-Range": "bytes 0-2999999/3000000"}
    with pytest.raises(HnasError, match="another part of the file than the one requested"):
        fetch("bench", tmp_path)


@pytest.mark.usefixtures("source")
def test_a_file_of_unknown_length_is_downloaded_within_a_limit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.headers = {"Content-Length": ""}
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    monkeypatch.setattr("hnas.pipeline.io.download._MOST_BYTES", 1_000_000)
    with pytest.raises(HnasError, match="more than 1,000,000 bytes, the limit of a download"):
        fetch("bench", tmp_path / "other")
    server.headers = {}
    with pytest.raises(HnasError, match="would have 3,000,000 bytes"):
        fetch("bench", tmp_path / "another")


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("limit", "sentence"), [("_SLOW_SECONDS", r"only \d+ bytes came in 0\.2 sec"), ("_MOST_SECONDS", "took more than")]
)
def test_a_trickling_server_is_given_up_and_its_bytes_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, sentence: str
) -> None:
    server.trickle = True
    monkeypatch.setattr(f"hnas.pipeline.io.download.{limit}", 0.2)
    with pytest.raises(HnasError, match=f"{sentence}.*run the same command again to resume"):
        fetch("bench", tmp_path)
    kept = (tmp_path / "bench" / "bench.tfrecord.part").read_bytes()
    assert kept
    assert kept == CONTENT[: len(kept)]


@pytest.mark.usefixtures("source")
def test_redirects_are_followed_within_a_limit(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HnasError, match="the server redirects without end"):
        fetch("bench", tmp_path, url=server.url("/loop"))
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/x", "bench"):
        with pytest.raises(HnasError, match="neither http nor https"):
            fetch("bench", tmp_path, url=address)
    assert fetch("bench", tmp_path, url=server.url("/moved/bench.tfrecord")).read_bytes() == CONTENT


@pytest.mark.usefixtures("source")
def test_a_complete_part_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "bench.tfrecord.part").write_bytes(CONTENT)
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.usefixtures("source")
def test_wrong_content_is_deleted_and_the_next_attempt_starts_afresh(server: Server, tmp_path: Path) -> None:
    server.files["/bench.tfrecord"] = b"<html>a login page</html>"
    with pytest.raises(HnasError, match=r"does not have the checksum sha256:.*deleted"):
        fetch("bench", tmp_path)
    assert list((tmp_path / "bench").iterdir()) == []
    server.files["/bench.tfrecord"] = CONTENT
    assert fetch("bench", tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


@pytest.mark.usefixtures("source")
def test_a_damaged_file_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    path = fetch("bench", tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch("bench", tmp_path).read_bytes() == CONTENT


def test_network_errors_give_one_sentence(server: Server, source: Download, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(HnasError, match="the server answered 404"):
        fetch("bench", tmp_path)
    with pytest.raises(HnasError, match="cannot be reached"):
        fetch("bench", tmp_path, url="http://127.0.0.1:1/bench.tfrecord")
    with pytest.raises(UsageError, match=r"unknown source 'cifar'.*cifar10, cifar100, nasbench101"):
        fetch("cifar", tmp_path)


@pytest.mark.usefixtures("source")
def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HnasError, match="file/bench cannot be written"):
        fetch("bench", tmp_path / "file")


def cifar_archive() -> bytes:
    """A small CIFAR-10 archive laid out as its authors do."""
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


def test_a_data_set_fetched_from_a_mirror_opens_by_name(
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


def test_a_half_unpacked_archive_is_unpacked_again(
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
    assert last.stat().st_mtime_ns == written, "a complete file is not touched"
    last.write_bytes(whole[:10])
    fetch("cifar10", tmp_path)
    assert last.read_bytes() == whole


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 4) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


HOSTILE = {
    "above": (member("../../escaped"), "would lie outside"),
    "above from within": (member("a/../../../escaped"), "would lie outside"),
    "absolute": (member("/escaped"), "would lie outside"),
    "symbolic link": (member("link", tarfile.SYMTYPE, "/etc"), "neither a file nor a folder"),
    "link within": (member("link", tarfile.SYMTYPE, "fine"), "neither a file nor a folder"),
    "hard link": (member("link", tarfile.LNKTYPE, "fine"), "neither a file nor a folder"),
    "device": (member("dev", tarfile.CHRTYPE), "neither a file nor a folder"),
    "pipe": (member("pipe", tarfile.FIFOTYPE), "neither a file nor a folder"),
    "control characters": (member("\x1b[2J", tarfile.FIFOTYPE), r"\\x1b\[2J"),
    "bomb": (member("zeros", size=2**40), "more than 4,294,967,296 bytes"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bad, sentence = HOSTILE[kind]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member("fine"), io.BytesIO(b"fine"))
        if bad.size > 2**30:
            archive.fileobj.write(bad.tobuf())  # a header that announces missing content
        else:
            archive.addfile(bad, io.BytesIO(b"evil"))
    server.files["/evil.tar.gz"] = buffer.getvalue()
    checksum = f"md5:{hashlib.md5(buffer.getvalue()).hexdigest()}"
    monkeypatch.setitem(SOURCES, "evil", Download(server.url("/evil.tar.gz"), checksum, archive=True))
    with pytest.raises(HnasError, match=f"the archive evil.tar.gz cannot be unpacked .*{sentence}"):
        fetch("evil", tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == ["evil.tar.gz"]


def test_sources_without_an_address_are_explained_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HnasError, match=r"nats-bench has no stable direct link.*`hnas import nats-bench PATH`"):
        fetch("nats-bench", tmp_path)
    with pytest.raises(UsageError, match="nats-bench is not downloaded, so --from has no effect: get it from"):
        fetch("nats-bench", tmp_path, url="https://example.org/nats.tar")
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


def test_published_checksums_are_well_formed() -> None:
    for source in SOURCES.values():
        if isinstance(source, Download):
            algorithm, value = source.checksum.split(":")
            assert len(value) == 2 * hashlib.new(algorithm).digest_size
            assert source.url.startswith("https://")
        else:
            assert all(len(md5) == 32 for md5 in source.checksums.values())
    assert module.SOURCES is SOURCES
