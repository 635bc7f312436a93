"""Certificates for the connection to a scheduler, from the command line or from Dask's configuration."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from hnas.errors import HnasError, UsageError
from hnas.pipeline.cluster.dask_api import Security, dask, parse_address, parse_host_port


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority that signed the scheduler's certificate, and this command's certificate and key.

    Files that are None are taken from Dask's configuration. The key may be in the certificate's file.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def given(self) -> bool:
        """Whether any file is given."""
        return any((self.ca, self.cert, self.key))

    def check(self, scheduler: str | None) -> None:
        """Raise `UsageError` for files that cannot be read, or if there is no scheduler to use them with."""
        for option, path in (("--tls-ca", self.ca), ("--tls-cert", self.cert), ("--tls-key", self.key)):
            if path is None:
                continue
            if scheduler is None:
                raise UsageError(f"{option} requires --scheduler; local workers create their own certificates")
            try:
                path.read_bytes()
            except OSError as error:
                raise UsageError(
                    f"{option} {path} cannot be read: {error.strerror or error}; give a file in PEM form"
                ) from error
        if self.key is not None and self.cert is None:
            raise UsageError("--tls-key requires --tls-cert, the certificate that it belongs to")

    def security(self) -> Security | None:
        """Return the files as Dask's `Security`; None if none is given, so that Dask uses its configuration."""
        if not self.given:
            return None
        files: dict[str, str | None] = {}
        if self.ca is not None:
            files["tls_ca_file"] = str(self.ca)
        if self.cert is not None:
            files |= {"tls_client_cert": str(self.cert), "tls_client_key": None if self.key is None else str(self.key)}
        return Security(require_encryption=True, **files)


def complete_address(address: str, certificates: Certificates) -> str:
    """Prefix `address` with tls:// if it has no scheme and there are certificates. Raises `UsageError` otherwise."""
    if not certificates.given:
        return address
    if "://" not in address:
        return f"tls://{address}"
    if not address.startswith("tls://"):
        raise UsageError(f"--scheduler {address} uses no certificates; give its tls:// address, or no --tls options")
    return address


def await_greeting(address: str, security: Security | None) -> None:
    """Wait until the scheduler at `address` has sent a byte: schedulers speak first, and `Client` would wait forever.

    Raises `OSError` if the scheduler cannot be reached or stays silent for 10 s, `ValueError` for an invalid address,
    `HnasError` if the two sides reject each other's certificates, and `UsageError` if certificates are missing. Only
    tcp:// and tls:// addresses are checked.
    """
    scheme, place = parse_address(address, strict=False)
    if scheme not in ("tcp", "tls"):
        return
    context = None
    if scheme == "tls":
        if security is None and dask.config.get("distributed.client.security-loader"):
            return
        context = _context(security or Security())
    with socket.create_connection(parse_host_port(place), timeout=10) as plain:
        if context is None:
            _read(plain)
            return
        try:
            # A scheduler rejects this command's certificate only after the handshake, at the first read.
            with context.wrap_socket(plain) as connection:
                _read(connection)
        except ssl.SSLError as error:
            if error.reason == "WRONG_VERSION_NUMBER":
                raise HnasError(f"the scheduler at {address} does not speak TLS; give its tcp:// address") from error
            raise HnasError(
                f"the scheduler at {address} and this command reject each other's certificates "
                f"({error.reason or error}); each must be signed by the authority that the other one trusts"
            ) from error


def _context(security: Security) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext | None = security.get_connection_args("client")["ssl_context"]
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise UsageError(
            f"the certificates for --scheduler cannot be used: {reason}; --tls-ca, --tls-cert and --tls-key must be "
            "files in PEM form, with the key of the certificate"
        ) from error
    if context is None:
        raise UsageError(
            "a scheduler at a tls:// address requires certificates: give --tls-ca, --tls-cert and --tls-key, or set "
            "distributed.comm.tls in Dask's configuration"
        )
    return context


def _read(connection: socket.socket) -> None:
    if not connection.recv(1):
        raise ConnectionError("it hung up")
