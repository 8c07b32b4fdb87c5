"""Log lines about who can reach the server, and the command-line options for the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from structlog.testing import capture_logs

from controller import app
from controller.cli import flags
from controller.domain.migration.limits import Limits
from controller.domain.vm.policy import LauncherPolicy
from controller.manager import Options
from controller.serving.tls import Files


def settings(address: str, *, tls: bool, auth: bool) -> app.Settings:
    """Return settings that differ only in these fields."""
    return app.Settings(
        kubeconfig=None,
        namespaces=(),
        controller_class=None,
        selector="",
        bind_address=address,
        certificate=Files(Path("tls.crt"), Path("tls.key")) if tls else None,
        metrics_auth=auth,
        vm_metrics=True,
        leader_election=False,
        home=None,
        controllers=Options(
            policy=LauncherPolicy(
                reference=flags.reference("32", "256Gi"), node_selector={}, tolerations=flags.tolerations("")
            ),
            limits=Limits(cluster=5, outbound=2),
            workers=1,
            events=False,
        ),
    )


@pytest.mark.parametrize(
    ("address", "tls", "auth", "levels"),
    [
        ("127.0.0.1:0", False, False, []),
        ("127.0.0.1:0", False, True, []),
        ("[::1]:0", False, True, []),
        ("0.0.0.0:8080", False, False, ["info"]),
        (":8080", True, False, ["info"]),
        (":8080", False, True, ["warning"]),
        ("10.0.0.1:8080", False, True, ["warning"]),
        (":8443", True, True, []),
    ],
)
def test_the_exposure_of_metrics_and_tokens_is_logged(address: str, tls: bool, auth: bool, levels: list[str]) -> None:  # noqa: FBT001 - parameters
    """Unencrypted tokens are a warning, open metrics an info line, and a loopback address is not logged."""
    with capture_logs() as logs:
        app._log_exposure(settings(address, tls=tls, auth=auth))
    assert [line["log_level"] for line in logs] == levels


def test_certificate_and_key_are_given_together_or_not_at_all() -> None:
    """An empty environment variable counts as not set."""
    assert flags.certificate_files("a.crt", "a.key") == (Path("a.crt"), Path("a.key"))
    assert flags.certificate_files(None, "") is None


@pytest.mark.parametrize(
    ("certificate", "key", "given", "missing"),
    [
        ("a.crt", None, "--metrics-cert-file", "--metrics-key-file"),
        ("", "a.key", "--metrics-key-file", "--metrics-cert-file"),
    ],
)
def test_one_file_alone_is_refused(certificate: str | None, key: str | None, given: str, missing: str) -> None:
    """The message names the missing option."""
    with pytest.raises(typer.BadParameter) as caught:
        flags.certificate_files(certificate, key)
    assert (caught.value.param_hint, caught.value.message) == (given, f"TLS takes both files: {missing} is not set")
