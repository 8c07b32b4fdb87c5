"""The manifests hold together: what is named is there, what is selected is labelled, what is set is a flag."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.testing import CliRunner

from controller import __version__
from controller.cli.main import app
from tests.unit.manifests.kustomizations import (
    CLUSTERS,
    MANIFESTS,
    NAME,
    Objects,
    built,
    container_of,
    of_kind,
    pod_of,
    the,
    write_overlay,
)
from tests.unit.manifests.shipped import REPOSITORY

HELP = CliRunner().invoke(app, ["controller", "--help"], env={"COLUMNS": "200"}).output
NAMESPACED = ("ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """What the overlay with all that there is consists of."""
    return built(write_overlay(tmp_path_factory.mktemp("overlay")))


@pytest.fixture(params=CLUSTERS)
def objects(request: pytest.FixtureRequest, everything: Objects) -> Objects:
    """What one way to install the controller consists of."""
    return everything if request.param == "all" else built(MANIFESTS / request.param)


def test_every_flag_is_one_that_the_controller_takes(objects: Objects) -> None:
    """And none is set twice."""
    command, *arguments = container_of(objects)["args"]
    assert command == "controller"
    flags = [argument.partition("=")[0] for argument in arguments]
    assert len(set(flags)) == len(flags)
    assert set(flags) <= set(re.findall(r"--[\w-]+", HELP))


def test_the_image_is_that_of_this_version(objects: Objects) -> None:
    """Pinned by its tag, so that an upgrade is a change of the manifests."""
    assert container_of(objects)["image"] == f"vmsim:{__version__}"


def test_the_user_is_the_images(objects: Objects) -> None:
    """Files of the image belong to it."""
    context = pod_of(objects)["spec"]["securityContext"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile


def test_the_container_may_nothing_that_it_need_not(objects: Objects) -> None:
    """Restricted, and a read-only root file system besides, which no pod security level asks for."""
    pod, container = pod_of(objects)["spec"], container_of(objects)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


def test_only_the_controller_gets_the_accounts_token(objects: Objects) -> None:
    """The account gives it to nobody by itself."""
    assert the(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod_of(objects)["spec"]["automountServiceAccountToken"] is True
    assert pod_of(objects)["spec"]["serviceAccountName"] == NAME


def test_probes_ask_the_port_that_the_controller_listens_on(objects: Objects) -> None:
    """By its name, with the scheme that is spoken there; liveness forgives one stall, whose memory lasts 30 s."""
    container = container_of(objects)
    [port] = container["ports"]
    assert f"--metrics-bind-address=:{port['containerPort']}" in container["args"]
    scheme = "HTTPS" if any(argument.startswith("--metrics-cert-file") for argument in container["args"]) else "HTTP"
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["httpGet"]["path"] for kind, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    for probe in probes.values():
        assert probe["httpGet"]["port"] == port["name"]
        assert probe["httpGet"].get("scheme", "HTTP") == scheme
    assert probes["liveness"]["periodSeconds"] * (probes["liveness"]["failureThreshold"] - 1) > 30


def test_selectors_match_the_pods(objects: Objects) -> None:
    """Those of the Deployment, the Service, the policies and the spread."""
    labels = pod_of(objects)["metadata"]["labels"].items()
    selectors = [
        the(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        the(objects, "Service")["spec"]["selector"],
    ]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(objects, "NetworkPolicy")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, "PodDisruptionBudget")]
    spread = pod_of(objects)["spec"].get("topologySpreadConstraints", ())
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_ports_are_named_as_the_pods_name_them(objects: Objects) -> None:
    """In the Service, the NetworkPolicy and the ServiceMonitor."""
    [name] = [port["name"] for port in container_of(objects)["ports"]]
    [port] = the(objects, "Service")["spec"]["ports"]
    assert port["targetPort"] == name
    [rule] = the(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [name]
    for monitor in of_kind(objects, "ServiceMonitor"):
        assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == [port["name"]]


def test_what_is_bound_exists(objects: Objects) -> None:
    """Roles in the binding's reach, and the account."""
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(objects, "ServiceAccount")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        role = the(tuple(in_namespace_of(binding, objects)), binding["roleRef"]["kind"], binding["roleRef"]["name"])
        assert role["rules"]
        assert {(subject["namespace"], subject["name"]) for subject in binding["subjects"]} == accounts


def in_namespace_of(binding: dict[str, Any], objects: Objects) -> list[dict[str, Any]]:
    """Return the objects that a binding can refer to."""
    wanted = (None, binding["metadata"].get("namespace"))
    return [one for one in objects if one["metadata"].get("namespace") in wanted]


def test_no_right_is_a_wildcard(objects: Objects) -> None:
    """In no role, the ones for people included."""
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert not [value for values in rule.values() for value in values if "*" in value]


def test_what_goes_with_the_controller_is_labelled_and_the_resources_are_not(objects: Objects) -> None:
    """By this label the controller is removed while VMs stay."""
    by_label = {
        one["kind"] for one in objects if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "vmsim"
    }
    assert by_label == {"CustomResourceDefinition"}


def test_everything_is_in_the_controllers_namespace(objects: Objects) -> None:
    """Save rights elsewhere, in the namespaced overlay."""
    elsewhere = {
        (one["kind"], one["metadata"].get("namespace"))
        for one in of_kind(objects, *NAMESPACED)
        if one["metadata"].get("namespace") != "vmsim-system"
    }
    assert elsewhere in (set(), {(kind, team) for kind in ("Role", "RoleBinding") for team in ("team-a", "team-b")})


def test_a_grace_period_is_longer_than_a_stop(objects: Objects) -> None:
    """Keys in hand, the lease and open connections have their own deadlines, of 10, 2 and 1 s."""
    assert pod_of(objects)["spec"]["terminationGracePeriodSeconds"] > 10 + 2 + 1


# --- each on its own ---------------------------------------------------------------------------------------------


def test_two_replicas_have_a_budget_and_a_spread() -> None:
    """A drain takes one at a time, and two are not on one node while there is another."""
    objects = built(MANIFESTS / "overlays" / "ha")
    assert the(objects, "Deployment")["spec"]["replicas"] == 2
    assert the(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    [host, _] = pod_of(objects)["spec"]["topologySpreadConstraints"]
    assert (host["topologyKey"], host["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")


def test_one_replica_has_no_budget() -> None:
    """It would keep every drain from ending."""
    objects = built(MANIFESTS / "base")
    assert the(objects, "Deployment")["spec"]["replicas"] == 1
    assert of_kind(objects, "PodDisruptionBudget") == []


def test_without_a_lease_two_never_run_at_once() -> None:
    """A laptop's controller is stopped before the next one starts."""
    objects = built(MANIFESTS / "overlays" / "local")
    deployment = the(objects, "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert "--no-leader-elect" in container_of(objects)["args"]
    assert container_of(objects)["imagePullPolicy"] == "Never"


def test_a_namespace_gets_the_rights_of_the_cluster_without_nodes() -> None:
    """The same rules, in each namespace that the controller is told to watch; those on nodes apart."""

    def about_namespaces(rule: dict[str, Any]) -> bool:
        return rule.get("resources") not in (None, ["nodes"])

    everywhere = the(built(MANIFESTS / "base"), "ClusterRole")["rules"]
    objects = built(MANIFESTS / "overlays" / "namespaced")
    roles = {
        one["metadata"]["namespace"]: one["rules"]
        for one in of_kind(objects, "Role")
        if one["metadata"]["name"] == NAME
    }
    assert roles == {team: list(filter(about_namespaces, everywhere)) for team in ("team-a", "team-b")}
    assert f"--namespaces={','.join(roles)}" in container_of(objects)["args"]
    assert the(objects, "ClusterRole", f"{NAME}-nodes")["rules"] == [
        rule for rule in everywhere if rule.get("resources") == ["nodes"]
    ]
    assert [one["metadata"]["name"] for one in of_kind(objects, "ClusterRoleBinding")] == [f"{NAME}-nodes"]


def test_the_operator_scrapes_under_the_name_that_the_alerts_select(everything: Objects) -> None:
    """The job is the value of a label of the Service; series keep their labels; the certificate's name is expected."""
    monitor, service = the(everything, "ServiceMonitor")["spec"], the(everything, "Service")["metadata"]
    assert service["labels"][monitor["jobLabel"]] == "vmsim"
    assert monitor["selector"]["matchLabels"].items() <= service["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["honorLabels"] is True
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == f"{service['name']}.{service['namespace']}.svc"


def test_the_certificate_is_mounted_where_the_flags_say(everything: Objects) -> None:
    """From the Secret of which the ServiceMonitor takes the authority."""
    arguments = dict(argument.partition("=")[::2] for argument in container_of(everything)["args"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(everything)["volumeMounts"]}
    secrets = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod_of(everything)["spec"]["volumes"]
        if "secret" in volume
    }
    [(name, secret)] = secrets.items()
    assert arguments["--metrics-cert-file"] == f"{mounts[name]}/tls.crt"
    assert arguments["--metrics-key-file"] == f"{mounts[name]}/tls.key"
    [endpoint] = the(everything, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["tlsConfig"]["ca"]["secret"]["name"] == secret
