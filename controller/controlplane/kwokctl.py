"""The interface to kwokctl: its configuration, its command line, and the files that it writes.

kwokctl lays a cluster out (certificates, component arguments) and starts it the first time. It starts all components
or none, so later starts of single components are made here, from the arguments that kwokctl wrote.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.controlplane.errors import CommandError, InvalidSettingError
from controller.controlplane.layout import CLUSTER, Layout
from controller.controlplane.ports import Ports
from controller.controlplane.versions import KUBERNETES

# In the order of their start. The binary of kwok-controller is called kwok.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller")

ComponentArgs = Mapping[str, Mapping[str, str]]

# There is one instance of each: with leader election a restarted one would only wait until its predecessor's lease
# expires.
_NO_ELECTION = {"leader-elect": "false"}
# Its controllers act as service accounts of their own, as on other clusters, so that a rule that exempts, for example,
# the garbage collector can distinguish it from users.
_OUR_ARGS: ComponentArgs = {
    "kube-controller-manager": {**_NO_ELECTION, "use-service-account-credentials": "true"},
    "kube-scheduler": _NO_ELECTION,
}

_START_TIMEOUT = 10.0

_CONFIGURATION = "KwokctlConfiguration"


def check_paths(directory: Path, binaries: Iterable[Path]) -> None:
    """Raise InvalidSettingError for paths that the programs would misread."""
    if "," in str(directory):
        # kwok-controller reads the path of its configuration as a comma-separated list.
        raise InvalidSettingError("directory", f"{directory} contains a comma, which kwok-controller cannot read")
    for binary in binaries:
        if "#" in str(binary):
            # kwokctl reads such a path as an archive and a file in it.
            raise InvalidSettingError("binaries", f"{binary} contains a #, which kwokctl cannot read")


@dataclass(frozen=True, slots=True)
class Component:
    """The program, the arguments and the environment of one component."""

    name: str
    binary: str
    args: tuple[str, ...]
    environment: Mapping[str, str]


def configuration(
    binaries: Mapping[str, Path], ports: Ports, component_args: ComponentArgs, audit_policy: Path | None
) -> dict[str, Any]:
    """Return the configuration file for kwokctl.

    Only a file can set `bindAddress` (by default every server, even etcd, which has no authentication, listens on all
    addresses) and the port of etcd's peers. All binaries and all ports are named, so that kwokctl neither downloads
    a program nor chooses a port.
    """
    options: dict[str, Any] = {
        "runtime": "binary",
        "kubeVersion": str(KUBERNETES.version),
        "bindAddress": "127.0.0.1",
        "disableQPSLimits": True,
        "kubeAuthorization": True,
        "etcdPort": ports.etcd,
        "etcdPeerPort": ports.etcd_peer,
        "kubeApiserverPort": ports.kube_apiserver,
        "kubeControllerManagerPort": ports.kube_controller_manager,
        "kubeSchedulerPort": ports.kube_scheduler,
        "kwokControllerPort": ports.kwok_controller,
        "etcdBinary": str(binaries["etcd"]),
        "kubeApiserverBinary": str(binaries["kube-apiserver"]),
        "kubeControllerManagerBinary": str(binaries["kube-controller-manager"]),
        "kubeSchedulerBinary": str(binaries["kube-scheduler"]),
        "kwokControllerBinary": str(binaries["kwok"]),
    }
    if audit_policy:
        options["kubeAuditPolicy"] = str(audit_policy)
    return {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": _CONFIGURATION,
        "metadata": {"name": CLUSTER},
        "options": options,
        "componentsPatches": _patches(component_args),
    }


def _patches(component_args: ComponentArgs) -> list[dict[str, Any]]:
    # The caller's arguments come last: a component takes the last value of a repeated flag.
    merged = {name: {**_OUR_ARGS.get(name, {}), **component_args.get(name, {})} for name in COMPONENTS}
    return [
        {"name": name, "extraArgs": [{"key": key, "value": value} for key, value in args.items()]}
        for name, args in merged.items()
        if args
    ]


def environment(base: Mapping[str, str], home: Path, kubectl: Path) -> dict[str, str]:
    """Return the environment for kwokctl.

    HOME sets the place of its files, because kwokctl cuts KWOK_WORKDIR at the first space. Other KWOK_* variables
    would override the configuration. kwokctl looks for kubectl on PATH, and downloads one if it finds none.
    """
    kept = {name: value for name, value in base.items() if not name.startswith("KWOK_")}
    return {**kept, "HOME": str(home), "PATH": f"{kubectl.parent}{os.pathsep}{base.get('PATH', '')}"}


@contextmanager
def creating(kwokctl: Path, layout: Layout, kubectl: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `kwokctl create cluster`. It ends when the API server answers; the components keep running."""
    command = [
        str(kwokctl),
        f"--name={CLUSTER}",
        # Relative, because this flag is a comma-separated list.
        f"--config={layout.kwokctl_config.name}",
        "create",
        "cluster",
        f"--kubeconfig={layout.kubeconfig}",
    ]
    with (
        layout.kwokctl_log.open("wb") as log,
        subprocess.Popen(
            command,
            cwd=layout.home,
            env=environment(os.environ, layout.home, kubectl),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,  # it writes private keys
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def read_components(workdir: Path) -> dict[str, Component]:
    """Read how kwokctl starts each component; empty if it has not written that yet."""
    try:
        documents = yaml.safe_load_all(workdir.joinpath("kwok.yaml").read_text())
        document = next(doc for doc in documents if isinstance(doc, dict) and doc.get("kind") == _CONFIGURATION)
    except (FileNotFoundError, StopIteration, yaml.YAMLError):
        return {}
    return {entry["name"]: _component(entry) for entry in document.get("components", [])}


def _component(entry: Mapping[str, Any]) -> Component:
    return Component(
        name=entry["name"],
        binary=entry["binary"],
        args=tuple(entry["args"]),
        environment={variable["name"]: variable["value"] for variable in entry.get("envs", [])},
    )


def start_component(component: Component, layout: Layout) -> int:
    """Start one component as kwokctl does: detached, output to its log; write and return its process id.

    The shell that starts it ends at once, so the component is no child of this process: it outlives this program,
    and leaves no zombie in a program that outlives it. Raises CommandError.
    """
    log = layout.log(component.name)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))  # keeps the reason of a crash readable
    script = '"$@" >"$0" 2>&1 </dev/null & echo $!'
    try:
        result = subprocess.run(
            ["/bin/sh", "-c", script, str(log), component.binary, *component.args],
            cwd=layout.workdir,
            env={**os.environ, **component.environment},
            start_new_session=True,
            capture_output=True,
            check=True,
            text=True,
            timeout=_START_TIMEOUT,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise CommandError(component.binary, str(error)) from error
    pid = int(result.stdout)
    layout.pid_file(component.name).write_text(str(pid))
    return pid
