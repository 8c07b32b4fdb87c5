"""Metrics over TLS for the accounts that the real API server authorizes, with the roles of docs/security.md."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from controller.controlplane.plane import ControlPlane
from controller.serving.tls import Files
from tests.certificates import copy, self_signed
from tests.integration import accounts
from tests.integration.tools import Controller, Kubectl, eventually

pytestmark = pytest.mark.timeout(60)  # the first test waits for the control plane

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
ROLES, SCRAPE_CONFIG = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Secured:
    """A controller that serves TLS and authorizes scrapes."""

    controller: Controller
    files: Files
    made: tuple[Files, Files]
    """The pair that it began with, and another one."""

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        """GET as a client that trusts only the certificates of these tests."""
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for files in self.made:
            trust.load_verify_locations(files.certificate)
        connection = HTTPSConnection(urlsplit(self.controller.url).netloc, timeout=10, context=trust)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def certificate(self) -> str:
        """Return the served certificate, in PEM."""
        where = urlsplit(self.controller.url)
        assert where.hostname is not None
        assert where.port is not None
        return ssl.get_server_certificate((where.hostname, where.port), timeout=10)


@pytest.fixture(scope="module")
def secured(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Run a controller with the account of the manifests, without the right to review tokens."""
    directory = tmp_path_factory.mktemp("secured")
    made = self_signed(directory, "one"), self_signed(directory, "two")
    files = Files(directory / "tls.crt", directory / "tls.key")
    copy(made[0], files)
    flags = (
        *("--kubeconfig", str(accounts.acting(plane.kubeconfig, directory)), "--no-leader-elect"),
        *("--metrics-bind-address", "127.0.0.1:0", "--metrics-auth"),
        *("--metrics-cert-file", str(files.certificate), "--metrics-key-file", str(files.key)),
    )
    with Controller.run(directory / "log", *flags) as controller:
        controller.wait_for("caches filled")
        yield Secured(controller, files, made)


@pytest.fixture(scope="module")
def scraper(kubectl: Kubectl) -> str:
    """Return a token of Prometheus' account, which has no rights yet."""
    kubectl("create", "namespace", "monitoring")
    kubectl("create", "serviceaccount", "prometheus", "-n", "monitoring")
    return kubectl("create", "token", "prometheus", "-n", "monitoring").strip()


@pytest.fixture(scope="module")
def roles(kubectl: Kubectl, secured: Secured, scraper: str) -> None:
    """Create the roles of the page for the tests' accounts, and wait until they are enforced."""
    kubectl("apply", "-f", "-", stdin=ROLES.replace(accounts.SHIPPED_HOME, accounts.HOME))
    eventually(lambda: secured.get("/metrics", scraper)[0] == 200)


def test_no_scrape_is_allowed_without_the_controllers_role(secured: Secured, scraper: str) -> None:
    """The controller cannot review tokens, and the log names the page. Runs first: the other tests need the roles."""
    assert secured.get("/metrics", scraper) == (500, "Authentication failed")
    line = secured.controller.wait_for("scrapes are refused: the API server cannot be asked who may scrape")
    assert "tokenreviews" in line["error"]
    assert "docs/security.md" in line["error"]


@pytest.mark.usefixtures("roles")
def test_an_account_with_the_role_may_scrape(secured: Secured, scraper: str) -> None:
    """With its own token."""
    status, text = secured.get("/metrics", scraper)
    assert status == 200
    assert "process_cpu_seconds_total" in text


@pytest.mark.usefixtures("roles")
def test_an_account_without_the_role_is_refused_by_name(secured: Secured, kubectl: Kubectl) -> None:
    """A valid token is not enough."""
    token = kubectl("create", "token", "default").strip()
    user = "system:serviceaccount:default:default"
    assert secured.get("/metrics", token) == (403, f"Authorization denied for user {user}")


@pytest.mark.usefixtures("roles")
def test_a_scrape_without_a_valid_token_is_refused(secured: Secured, kubectl: Kubectl, scraper: str) -> None:
    """No token, another's signature, or another audience."""
    for_others = kubectl("create", "token", "prometheus", "-n", "monitoring", "--audience", "another").strip()
    for token in (None, f"{scraper[:-8]}AAAAAAAA", for_others):
        assert secured.get("/metrics", token) == (401, "Unauthorized")


def test_probes_need_no_token(secured: Secured) -> None:
    """Over TLS as well."""
    assert secured.get("/healthz") == (200, "ok")
    assert secured.get("/readyz") == (200, "ok")


def test_a_new_certificate_is_served_without_a_restart(secured: Secured) -> None:
    """Within about ten seconds."""
    one, two = (files.certificate.read_text().strip() for files in secured.made)
    assert secured.certificate().strip() == one
    copy(secured.made[1], secured.files)
    eventually(lambda: secured.certificate().strip() == two)
    assert secured.get("/healthz") == (200, "ok")


@pytest.mark.usefixtures("roles")
def test_no_token_is_in_the_log(secured: Secured, scraper: str) -> None:
    """Nor its signature."""
    assert secured.get("/metrics", scraper)[0] == 200
    log = secured.controller.log.read_text()
    assert scraper not in log
    assert scraper.rpartition(".")[2] not in log


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (("--metrics-cert-file", "tls.crt"), 2, "TLS takes both files: --metrics-key-file is not set"),
        (
            ("--metrics-cert-file", "nowhere.crt", "--metrics-key-file", "nowhere.key"),
            1,
            "error: cannot read nowhere.crt: No such file or directory\n",
        ),
    ],
    ids=["one file", "no such file"],
)
def test_an_unusable_certificate_ends_the_controller_with_one_line(
    tmp_path: Path, flags: tuple[str, ...], code: int, complaint: str
) -> None:
    """Before any request to a cluster."""
    kubeconfig = ("--kubeconfig", str(tmp_path / "none"))
    done = subprocess.run(
        [sys.executable, "-m", "controller", *kubeconfig, *flags],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == code
    assert complaint in (" ".join(done.stderr.split()) if code == 2 else done.stderr)
    assert "Traceback" not in done.stderr


def test_promtool_accepts_the_scrape_configuration_of_the_page(tmp_path: Path) -> None:
    """Its files are those of a pod."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not in PATH")
    config = tmp_path / "prometheus.yml"
    config.write_text(SCRAPE_CONFIG)
    done = subprocess.run(
        [promtool, "check", "config", "--syntax-only", config], capture_output=True, text=True, timeout=15, check=False
    )
    assert done.returncode == 0, done.stderr
    (job,) = yaml.safe_load(SCRAPE_CONFIG)["scrape_configs"]
    assert job["job_name"] == "vmsim", "the alerts select it"
