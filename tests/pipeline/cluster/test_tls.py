"""`--scheduler` over TLS: a scheduler and a worker in separate processes, with certificates made here."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client, Security

from hnas.errors import HnasError, UsageError
from hnas.pipeline.cluster.tls import Certificates
from hnas.pipeline.precompute.driver import precompute
from hnas.pipeline.store.store import Store
from tests.support.processes import WAIT, precompute_command, run_command
from tests.support.runs import SPACE, exact_table, fill

DASK = Path(sys.executable).with_name("dask")


@dataclass(frozen=True)
class Authority:
    """A certificate authority and the certificates it has signed, as files."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        made = cls(folder, ec.generate_private_key(ec.SECP256R1()), name)
        made._write("ca.pem", made._signed(name, made.key, authority=True))
        return made

    def issue(self, role: str) -> Certificates:
        """Issue a certificate for `role`, with its key in another file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
        self._write(f"{role}.pem", self._signed(name, key, authority=False))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{role}.key").write_bytes(pem)
        return Certificates(self.folder / "ca.pem", self.folder / f"{role}.pem", self.folder / f"{role}.key")

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        (self.folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate of another authority."""
    return Authority.make(tmp_path_factory.mktemp("tls") / "another").issue("client")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificates:
    return authority.issue("client")


@pytest.fixture(scope="module")
def scheduler(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with one worker, which accept only certificates of `authority`."""
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    address = f"tls://127.0.0.1:{port}"

    def start(role: str, *options: str) -> subprocess.Popen[bytes]:
        files = authority.issue(role)
        tls = [f"--tls-ca-file={files.ca}", f"--tls-cert={files.cert}", f"--tls-key={files.key}"]
        with (folder / f"{role}.log").open("wb") as log:
            return subprocess.Popen(
                [str(DASK), role, *options, *tls, "--no-dashboard", "--dashboard-address=127.0.0.1:0"],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    processes = [start("scheduler", "--protocol=tls", "--host=127.0.0.1", f"--port={port}")]
    try:
        worker = ["--host=127.0.0.1", "--nthreads=1", "--no-nanny", "--memory-limit=0", f"--local-directory={folder}"]
        processes.append(start("worker", address, *worker))
        with Client(address, security=authority.issue("watcher").security(), timeout=WAIT) as watcher:
            watcher.wait_for_workers(1, timeout=WAIT)
        yield address
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_certificates_of_the_command_line_are_accepted(scheduler, client, tmp_path, small_plan):
    store = Store(str(tmp_path / "store"))
    options = [f"--scheduler={scheduler}", f"--tls-ca={client.ca}", f"--tls-cert={client.cert}"]
    command = precompute_command(store.root, "--sample=8", "--quiet", *options, f"--tls-key={client.key}")
    done = run_command(*command, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")
    alone = Store(str(tmp_path / "alone"))
    plan = small_plan(alone, sample=8)
    assert exact_table(store, plan.settings.id) == exact_table(alone, fill(alone, plan))


def test_certificates_of_dasks_configuration_are_accepted(scheduler, client, tmp_path):
    place = tmp_path / ".config" / "dask"
    place.mkdir(parents=True)
    tls = {"ca-file": str(client.ca), "client": {"cert": str(client.cert), "key": str(client.key)}}
    comm = {"require-encryption": True, "tls": tls}
    (place / "tls.yaml").write_text(json.dumps({"distributed": {"comm": comm}}))
    command = precompute_command(tmp_path / "store", "--sample=2", f"--scheduler={scheduler}", "--quiet")
    done = run_command("env", f"HOME={tmp_path}", *command, timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")
    # The configuration supplies what the command line omits; an address without a scheme then means TLS.
    command[-2] = f"--scheduler={scheduler.removeprefix('tls://')}"
    done = run_command("env", f"HOME={tmp_path}", *command, f"--tls-ca={client.ca}", "--seed=1", timeout=WAIT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_key_in_its_certificates_file_is_accepted(scheduler, client, tmp_path, small_plan):
    both = tmp_path / "both.pem"
    both.write_bytes(client.cert.read_bytes() + client.key.read_bytes())
    store = Store(str(tmp_path / "store"))
    certificates = Certificates(client.ca, both)
    assert precompute(store, SPACE, small_plan(store, sample=2), scheduler=scheduler, certificates=certificates)


@pytest.mark.timeout(120)
def test_rejected_certificates_are_reported(scheduler, client, stranger, tmp_path, small_plan):
    cases = (
        (stranger, HnasError, r"reject each other's certificates \(CERTIFICATE_VERIFY_FAILED\)"),
        (
            Certificates(client.ca, stranger.cert, stranger.key),
            HnasError,
            r"reject .* \(TLSV1_ALERT_UNKNOWN_CA\)",
        ),
        (Certificates(), UsageError, r"a scheduler at a tls:// address requires certificates: give --tls-ca"),
        (Certificates(client.ca), UsageError, r"a scheduler at a tls:// address requires certificates: give --tls-ca"),
        (Certificates(client.ca, client.cert, stranger.key), UsageError, r"cannot be used: KEY_VALUES_MISMATCH; "),
        (Certificates(client.ca, client.cert), UsageError, r"cannot be used: .*; --tls-ca, --tls-cert and --tls-key"),
        (Certificates(tmp_path / "no", client.cert), UsageError, r"--tls-ca .*no cannot be read: No such file"),
        (Certificates(client.ca, tmp_path, client.key), UsageError, r"--tls-cert .* cannot be read: Is a directory"),
        (Certificates(client.ca, key=client.key), UsageError, r"--tls-key requires --tls-cert"),
    )
    store = Store(str(tmp_path / "store"))
    for certificates, kind, complaint in cases:
        with pytest.raises(kind, match=complaint) as error:
            precompute(store, SPACE, small_plan(store, sample=2), scheduler=scheduler, certificates=certificates)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.timeout(120)
def test_the_wrong_scheme_is_reported(scheduler, client, tmp_path, small_plan, impatient):
    store = Store(str(tmp_path / "store"))
    plan = small_plan(store, sample=2)
    in_the_clear = scheduler.replace("tls", "tcp")
    with pytest.raises(HnasError, match=r"within 10 seconds.*its tls:// address if it requires certificates"):
        precompute(store, SPACE, plan, scheduler=in_the_clear)
    with pytest.raises(UsageError, match="uses no certificates; give its tls:// address"):
        precompute(store, SPACE, plan, scheduler=in_the_clear, certificates=client)
    with pytest.raises(UsageError, match="--tls-ca requires --scheduler"):
        precompute(store, SPACE, plan, workers=1, certificates=client)
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()
        address = f"tls://127.0.0.1:{plain.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            speaker = subprocess.Popen([sys.executable, "-c", _SPEAK, str(plain.fileno())], pass_fds=[plain.fileno()])
            stack.callback(speaker.wait)
            stack.callback(speaker.kill)
            with pytest.raises(HnasError, match="does not speak TLS; give its tcp:// address"):
                precompute(store, SPACE, plan, scheduler=address, certificates=client)
    assert not (tmp_path / "store").exists()


#: A scheduler without TLS also speaks first.
_SPEAK = (
    "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); c = s.accept()[0]; c.sendall(bytes(64)); input()"
)


def test_required_encryption_rejects_a_plain_scheduler(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "scheduler.log").open("wb") as log:
        process = subprocess.Popen(
            [str(DASK), "scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard"], stdout=log, stderr=log
        )
    try:
        Client(f"tcp://127.0.0.1:{port}", timeout=WAIT, security=Security()).close()
        command = precompute_command(tmp_path / "store", "--sample=2", f"--scheduler=tcp://127.0.0.1:{port}")
        done = run_command("env", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True", *command, timeout=WAIT)
    finally:
        process.kill()
        process.wait()
    assert done.returncode == 1
    assert done.stderr.startswith(f"hnas: cannot connect to Dask at tcp://127.0.0.1:{port}: encryption required")
    assert done.stderr.count("\n") == 1
