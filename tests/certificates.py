"""Certificates for tests, made by the openssl command: Python's ssl can use them, but not make them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from controller.serving.tls import Files


def self_signed(directory: Path, name: str) -> Files:
    """Make a pair for this machine, with a subject of this name. Skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the test's certificates, is not in PATH")
    files = Files(directory / f"{name}.crt", directory / f"{name}.key")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    where = ("-out", str(files.certificate), "-keyout", str(files.key))
    subprocess.run(
        [openssl, "req", "-x509", "-days", "2", *curve, *subject, *where], check=True, capture_output=True, timeout=10
    )
    return files


def copy(source: Files, target: Files) -> None:
    """Write a pair over another: the certificate first, so that for a moment they do not match."""
    target.certificate.write_bytes(source.certificate.read_bytes())
    target.key.write_bytes(source.key.read_bytes())


def with_passphrase(files: Files, passphrase: str) -> None:
    """Encrypt a pair's key."""
    encrypted = files.key.with_suffix(".encrypted")
    command = ["openssl", "ec", "-in", str(files.key), "-aes128", "-passout", f"pass:{passphrase}", "-out"]
    subprocess.run([*command, str(encrypted)], check=True, capture_output=True, timeout=10)
    encrypted.replace(files.key)
