"""The server uses the newest usable certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controller.serving.tls import RELOAD_PERIOD, CertificateError, Certificates, Files
from tests.certificates import copy, self_signed, with_passphrase


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    """Two pairs, made once."""
    directory = tmp_path_factory.mktemp("made")
    return self_signed(directory, "one"), self_signed(directory, "two")


@pytest.fixture
def files(made: tuple[Files, Files], tmp_path: Path) -> Files:
    """A copy of the first pair, which the test may change."""
    own = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    copy(made[0], own)
    return own


def served(certificates: Certificates, *, name: str | None = "localhost", newest: ssl.TLSVersion | None = None) -> str:
    """Do a handshake in memory; return the common name of the server's certificate."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    if newest is not None:
        client_context.maximum_version = newest
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificates.context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server) * 3:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    der = client.getpeercert(binary_form=True)
    assert der is not None
    return next(name for name in ("one", "two") if name.encode() in der)


@pytest.mark.parametrize("name", ["localhost", None], ids=["named", "unnamed"])
def test_a_client_gets_the_certificate(files: Files, name: str | None) -> None:
    """With and without SNI."""
    assert served(Certificates(files), name=name) == "one"


def test_tls_1_2_is_accepted(files: Files) -> None:
    """For clients without TLS 1.3."""
    assert served(Certificates(files), newest=ssl.TLSVersion.TLSv1_2) == "one"


def test_tls_below_1_2_is_refused(files: Files) -> None:
    """By the context's minimum version."""
    assert Certificates(files).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["localhost", None], ids=["named", "unnamed"])
def test_a_changed_pair_is_used_and_logged(made: tuple[Files, Files], files: Files, name: str | None) -> None:
    """Without a restart."""
    certificates = Certificates(files)
    copy(made[1], files)
    with capture_logs() as logs:
        certificates.reload()
    assert served(certificates, name=name) == "two"
    assert [(line["log_level"], line["event"]) for line in logs] == [("info", "the certificate was renewed")]


@pytest.mark.looptime
async def test_the_files_are_checked_periodically(made: tuple[Files, Files], files: Files) -> None:
    """Also after an unusable pair."""
    certificates = Certificates(files)
    running = asyncio.create_task(certificates.run())
    files.key.write_bytes(made[1].key.read_bytes())
    await asyncio.sleep(RELOAD_PERIOD * 3)
    copy(made[1], files)
    # A look takes real time, on a thread of its own; the limit of the test bounds it.
    while served(certificates) != "two":  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(RELOAD_PERIOD)
    running.cancel()


def test_an_unchanged_pair_is_not_logged(files: Files) -> None:
    """Nor is one that was rewritten with the same content."""
    certificates = Certificates(files)
    copy(files, files)
    with capture_logs() as logs:
        certificates.reload()
    assert logs == []


@pytest.mark.parametrize("half", ["certificate", "key"])
def test_half_a_new_pair_leaves_the_old_one_in_use(made: tuple[Files, Files], files: Files, half: str) -> None:
    """Either half; it is logged once, and the second half completes the pair."""
    certificates = Certificates(files)
    if half == "certificate":
        files.certificate.write_bytes(made[1].certificate.read_bytes())
    else:
        files.key.write_bytes(made[1].key.read_bytes())
    with capture_logs() as logs:
        certificates.reload()
        certificates.reload()
    assert served(certificates) == "one"
    assert [line["log_level"] for line in logs] == ["warning"]
    assert logs[0]["error"] == f"cannot use {files.key}: it is not the key of {files.certificate}"

    copy(made[1], files)
    certificates.reload()
    assert served(certificates) == "two"


def test_a_deleted_pair_leaves_the_old_one_in_use(files: Files) -> None:
    """It is logged once, and restoring it is not an error."""
    certificates = Certificates(files)
    before = files.key.read_bytes()
    files.key.unlink()
    with capture_logs() as logs:
        certificates.reload()
        certificates.reload()
        files.key.write_bytes(before)
        certificates.reload()
    assert served(certificates) == "one"
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert logs[0]["error"] == f"cannot read {files.key}: No such file or directory"


@pytest.mark.parametrize("which", ["certificate", "key"])
def test_a_file_that_cannot_be_read_is_named(files: Files, which: str) -> None:
    """With the system's reason."""
    path: Path = getattr(files, which)
    path.unlink()
    with pytest.raises(CertificateError) as caught:
        Certificates(files)
    assert str(caught.value) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize(
    "content", ["", "junk", "\xff", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_malformed_certificate_is_named(files: Files, content: str) -> None:
    """Rather than the key, which OpenSSL's own message does not tell apart."""
    files.certificate.write_text(content, encoding="latin-1")
    with pytest.raises(CertificateError) as caught:
        Certificates(files)
    assert str(caught.value) == f"cannot use {files.certificate}: it contains no certificate in PEM"


@pytest.mark.parametrize("content", ["", "junk", "\xff"], ids=["empty", "junk", "not ASCII"])
def test_a_malformed_key_is_named(files: Files, content: str) -> None:
    """With the reason."""
    files.key.write_text(content, encoding="latin-1")
    with pytest.raises(CertificateError) as caught:
        Certificates(files)
    assert str(caught.value) == f"cannot use {files.key}: it contains no private key in PEM without a passphrase"


def test_a_key_with_a_passphrase_is_refused_without_a_prompt(files: Files) -> None:
    """OpenSSL would prompt at the terminal and wait."""
    with_passphrase(files, "secret")
    with pytest.raises(CertificateError, match="without a passphrase"):
        Certificates(files)


def test_another_certificates_key_is_refused(made: tuple[Files, Files]) -> None:
    """The message names both files."""
    with pytest.raises(CertificateError) as caught:
        Certificates(Files(made[0].certificate, made[1].key))
    assert str(caught.value) == f"cannot use {made[1].key}: it is not the key of {made[0].certificate}"


def test_certificate_and_key_may_be_one_file(made: tuple[Files, Files], tmp_path: Path) -> None:
    """As some tools write them."""
    both = tmp_path / "both.pem"
    both.write_bytes(made[0].key.read_bytes() + made[0].certificate.read_bytes())
    assert served(Certificates(Files(both, both))) == "one"
