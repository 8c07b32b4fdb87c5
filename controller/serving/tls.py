"""The server's certificate and key: loaded from two files and reloaded when they change, as by a certwatcher.

Guarantees: TLS 1.2 or newer; a new pair is used for handshakes at most some 10 s after it was written, without a
restart; an unusable pair is logged once, and the old pair stays in use; OpenSSL never prompts for a passphrase.
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

RELOAD_PERIOD: Final = 10.0
"""Seconds between two reads of the files, as in controller-runtime. File system events would miss changes on network
mounts, and reading two small files is cheap."""


class CertificateError(Exception):
    """A certificate or its key cannot be used. The message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of the certificate chain, leaf first, and of its private key, both in PEM."""

    certificate: Path
    key: Path


class Certificates:
    """Serves the newest usable pair. The constructor loads it, and raises CertificateError if it cannot be used."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._seen: tuple[bytes, ...] | str = _digest(files)
        self.context = self._current = _load(files)
        """The context to listen with. It switches each handshake to the newest pair."""
        self.context.sni_callback = self._use_newest

    async def run(self) -> None:
        """Check the files for changes until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_PERIOD)
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Use the pair if it has changed; log an unusable pair once."""
        before, self._seen = self._seen, _digest_or_reason(self.files)
        if self._seen == before:
            return
        try:
            self._current = _load(self.files)
        except CertificateError as error:
            # Perhaps only one of the files has been written yet: the write of the other is a change, too.
            _log.warning("the new certificate cannot be used; the old one stays", error=str(error))
        else:
            _log.info("the certificate was renewed", file=str(self.files.certificate))

    def _use_newest(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        """Switch a handshake to the newest pair. OpenSSL calls this with and without SNI."""
        connection.context = self._current


def _load(files: Files) -> ssl.SSLContext:
    """Return a new context for a pair: loading an unusable pair into the context in use would break it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _read(files.key)
    try:
        # Only for the error message: load_cert_chain does not say which of the two files is wrong.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=_read(files.certificate).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"cannot use {files.certificate}: it contains no certificate in PEM") from error
    try:
        context.load_cert_chain(files.certificate, files.key, password="")  # without one OpenSSL would prompt
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of {files.certificate}"
        else:
            why = "it contains no private key in PEM without a passphrase"
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
    """Return digests by which two pairs differ, so that the key is not kept. Raises CertificateError."""
    return tuple(hashlib.sha256(_read(path)).digest() for path in (files.certificate, files.key))


def _digest_or_reason(files: Files) -> tuple[bytes, ...] | str:
    try:
        return _digest(files)
    except CertificateError as error:
        return str(error)
