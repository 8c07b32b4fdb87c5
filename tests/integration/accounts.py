"""The controller's own account: the tests' controllers have the rights of the manifests, and no others.

Guarantees: `acting` gives a controller exactly the rights of manifests/base, with a token of the TokenRequest API, and
the same on the ConfigMaps of the classes in the tests; `forbidden` returns each request beyond them.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from controller.controlplane.binaries import find_kubectl
from controller.controlplane.layout import Layout
from controller.controlplane.plane import default_sources
from controller.domain import names

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
ACCOUNT = "vmsim-controller"
HOME = "default"
"""Namespace of the tests' accounts and leases: that of the administrator's kubeconfig."""
SHIPPED_HOME = "vmsim-system"
"""Namespace of the account and the lease in the manifests."""

CLASSES = ("blue", "picky")
"""Controller classes of the tests."""

_RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
_REFUSED = re.compile(r'[^"]*User \\*"system:serviceaccount:[^"]*" cannot .*')


def user(namespace: str = HOME) -> str:
    """Return the name of the account at the API server."""
    return f"system:serviceaccount:{namespace}:{ACCOUNT}"


def audit_policy(directory: Path, *users: str) -> Path:
    """Write an audit policy for the requests of these accounts, by default the tests' one."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": list(users or (user(),))}],
    }
    path = directory / "audit-policy.json"
    path.write_text(json.dumps(policy))
    return path


def acting(administrator: Path, directory: Path) -> Path:
    """Return a kubeconfig of the controller's account in the administrator's cluster; create the account if needed.

    For a cluster without credentials the administrator's kubeconfig is returned: it has no accounts.
    """
    config = administrator.read_text()
    if not any(entry["user"] for entry in yaml.safe_load(config).get("users") or ()):
        return administrator
    return write_kubeconfig(administrator, directory / "controller.kubeconfig", _installed(administrator, config))


@lru_cache(maxsize=8)
def _installed(administrator: Path, config: str) -> str:
    """Install the rights of manifests/base, once for each cluster; return a token that is valid for an hour."""
    assert config
    kubectl = find_kubectl(default_sources().search_path, default_sources().beside)
    documents = yaml.safe_load_all(_run(kubectl, "kustomize", str(MANIFESTS / "base")))
    rights = [document for document in documents if document["kind"] in _RIGHTS]
    for document in rights:
        for item in (document["metadata"], *document.get("subjects", ())):
            if "namespace" in item:
                item["namespace"] = HOME
        for rule in document.get("rules", ()):
            if "resourceNames" in rule:
                rule["resourceNames"] += [names.installation(of_class) for of_class in CLASSES]
    flag = f"--kubeconfig={administrator}"
    _run(kubectl, flag, "apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    return _run(kubectl, flag, "create", "token", ACCOUNT, f"--namespace={HOME}").strip()


def write_kubeconfig(administrator: Path, path: Path, token: str, namespace: str = HOME) -> Path:
    """Write a kubeconfig for the administrator's cluster with another token."""
    config = yaml.safe_load(administrator.read_text())
    context = next(entry for entry in config["contexts"] if entry["name"] == config["current-context"])["context"]
    config["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
    config["contexts"] = [
        {
            "name": config["current-context"],
            "context": {"cluster": context["cluster"], "user": ACCOUNT, "namespace": namespace},
        }
    ]
    path.write_text(yaml.safe_dump(config))
    return path


def acting_as_shipped(administrator: Path, directory: Path) -> Path:
    """Return a kubeconfig of the account of manifests/base, which is installed, in its own namespace."""
    kubectl = find_kubectl(default_sources().search_path, default_sources().beside)
    flag = f"--kubeconfig={administrator}"
    token = _run(kubectl, flag, "create", "token", ACCOUNT, f"--namespace={SHIPPED_HOME}").strip()
    return write_kubeconfig(administrator, directory / "controller.kubeconfig", token, SHIPPED_HOME)


def forbidden(administrator: Path, log: Path) -> list[str]:
    """Return the account's requests beyond its rights: by the API server's audit log, or else by a controller's log.

    A right that was granted at another time is not missing: an API server that has just started does not know all.
    """
    audit = Layout.of(administrator.parent).audit_log
    if not audit.exists():
        return _REFUSED.findall(log.read_text())
    allowed, denied = set(), {}
    for entry in requests_of(audit, user()):
        about = entry.get("objectRef", {})
        right = (entry["verb"], about.get("resource", entry["requestURI"]), about.get("subresource"))
        if is_denied(entry):
            denied[right] = described(entry)
        else:
            allowed.add(right)
    return [request for right, request in denied.items() if right not in allowed]


def is_denied(entry: dict[str, Any]) -> bool:
    """Whether an entry of the audit log is a request that its user had no right to make."""
    return bool(entry.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid")


def described(entry: dict[str, Any]) -> str:
    """Return the verb and URI of a request of the audit log."""
    return f"{entry['verb']} {entry['requestURI']}"


def requests_of(log: Path, username: str) -> list[dict[str, Any]]:
    """Return the audit log's entries of a user."""
    lines = (line for line in log.read_text().splitlines() if f'"{username}"' in line)
    entries: Iterable[dict[str, Any]] = map(json.loads, lines)
    return [entry for entry in entries if entry["user"]["username"] == username]


def _run(*command: str | Path, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout
