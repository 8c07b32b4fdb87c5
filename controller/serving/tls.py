"""The server's certificate: read from two files, and read again when they change.

Guarantees: TLS 1.2 or newer; a new pair serves the next handshake at most some 10 s after it was written, without a
restart; a pair that cannot be used leaves the old one in service and is told of once; no passphrase is ever asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 10.0
"""Seconds between two looks at the files, as controller-runtime does it. Events of the file system would miss what
happens on network mounts, and reading two small files costs nothing."""


class CertificateError(Exception):
    """A certificate or its key cannot be used. The message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the certificate (with its chain, its own first) and its private key are, both in PEM."""

    certificate: Path
    key: Path


class Certificates:
    """Serves the newest usable pair. Reads the files when made, and raises CertificateError if they cannot be used."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._seen: tuple[bytes, ...] | str = _digest(files)
        self.context = self._current = _load(files)
        """What a server listens with. It hands each handshake over to the newest pair."""
        self.context.sni_callback = self._hand_over

    async def run(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take a changed pair into service; say once what is wrong with one that cannot be used."""
        before, self._seen = self._seen, _digest_or_reason(self.files)
        if self._seen == before:
            return
        try:
            self._current = _load(self.files)
        except CertificateError as error:
            # Half of a pair may be written already: the other half changes what is seen, and is tried then.
            _log.warning("the new certificate cannot be used; the old one stays", error=str(error))
        else:
            _log.info("the certificate was renewed", file=str(self.files.certificate))

    def _hand_over(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        """Serve a handshake with the newest pair. OpenSSL asks here whether or not the client named a server."""
        connection.context = self._current


def _load(files: Files) -> ssl.SSLContext:
    """Return a context of its own for each pair: a pair that fails halfway would spoil the one in service."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _read(files.key)
    try:
        # For the reason alone: load_cert_chain does not say which of the two files it dislikes.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_read(files.certificate).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"cannot use {files.certificate}: there is no certificate in PEM in it") from error
    try:
        context.load_cert_chain(files.certificate, files.key, password="")  # without one OpenSSL would ask a person
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of {files.certificate}"
        else:
            why = "there is no private key in PEM without a passphrase in it"
        raise CertificateError(f"cannot use {files.key}: {why}") from error
    except OSError as error:
        raise CertificateError(f"cannot read {files.key} and {files.certificate}: {error.strerror}") from error
    return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error


def _digest(files: Files) -> tuple[bytes, ...]:
    """Return what tells two pairs apart, without keeping the key. Raises CertificateError."""
    return tuple(hashlib.sha256(_read(path)).digest() for path in (files.certificate, files.key))


def _digest_or_reason(files: Files) -> tuple[bytes, ...] | str:
    try:
        return _digest(files)
    except CertificateError as error:
        return str(error)
