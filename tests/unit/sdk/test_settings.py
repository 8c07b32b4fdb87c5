"""The controller's settings, as the Python API uses them."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from controller.domain.ratio import ReferenceNode
from controller.domain.settings import DEFAULTS, PublishedSettings, encode
from controller.domain.vm.policy import LauncherPolicy
from controller.kube.resources import CONFIG_MAPS
from controller.sdk.pod_manager import PodManager
from tests.model.server import ApiServer
from tests.unit.kube.builders import kubeconfig

POLICY = LauncherPolicy(reference=ReferenceNode.of(cpu="64", memory="1Ti"))


def manager(directory: Path) -> PodManager:
    """Return a manager of bare pods in the namespace team-a."""
    config = kubeconfig(directory / "config", "http://127.0.0.1:1")
    return PodManager(create_vm_crs=False, namespace="team-a", kubeconfig=str(config))


async def test_bare_pods_follow_the_settings_at_a_managers_first_pod(tmp_path: Path) -> None:
    """All its pods have the same, and the settings are read once."""
    api = ApiServer()
    labels = {"app.kubernetes.io/managed-by": "vmsim-controller"}
    data = encode(PublishedSettings(POLICY))
    api.put(CONFIG_MAPS.plural, "default/vmsim-controller", metadata={"labels": labels}, data=data)
    pods = manager(tmp_path)
    with capture_logs() as logs:
        assert [await pods._settled_policy(api) for _ in range(2)] == [POLICY, POLICY]
    assert (logs, api.requests) == ([], ["get configmaps"] * 2)  # of team-a, and of default


async def test_defaults_are_logged(tmp_path: Path) -> None:
    """Once, as a warning."""
    pods = manager(tmp_path)
    with capture_logs() as logs:
        assert [await pods._settled_policy(ApiServer()) for _ in range(2)] == [DEFAULTS.policy] * 2
    [line] = logs
    assert line["log_level"] == "warning"
    assert line["reason"].startswith(
        "no controller has published ConfigMap vmsim-controller in namespace team-a or default or"
    )
