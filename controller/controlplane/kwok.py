"""Extends the plane's KWOK beyond kwokctl's setup: an additional stage, and restarts without a gap.

KWOK plays its built-in stages only if its configuration has none, so kwokctl writes them all into that file, and ours
is appended. KWOK gets a new identity at each start, and serves no node whose Lease another identity holds; the Leases
of the previous one expire after minutes. So a restart deletes the Leases that the stopped KWOK held, and no others.
"""

import json
from itertools import islice
from pathlib import Path

from controller import package_data
from controller.controlplane.api import ApiServer

NAME = "kwok-controller"

_MARK = "\n---\n# Appended by "
"""The text before our stage, by every release that appended it."""
_STAGE = "manifests/kwok/pod-ready-again.yaml"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_FIRST_LINES = 50


def append_stage(configuration: Path) -> bool:
    """Append our stage to KWOK's configuration; return whether the file changed, so that KWOK needs a restart."""
    try:
        found = configuration.read_text()
    except FileNotFoundError:
        return False  # kwokctl has not written it yet
    wanted = found.partition(_MARK)[0] + _MARK + "vmsim.\n" + package_data.path(_STAGE).read_text()
    if found == wanted:
        return False
    temporary = configuration.with_suffix(".tmp")
    temporary.write_text(wanted)
    temporary.replace(configuration)
    return True


def identity(log: Path) -> str | None:
    """Return the identity under which the KWOK that wrote a log held Leases; None if the log does not name it."""
    try:
        with log.open("rb") as lines:
            for line in islice(lines, _FIRST_LINES):
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and isinstance(name := entry.get("id"), str):
                    return name
    except OSError:
        return None
    return None


def release_leases(server: ApiServer, holder: str) -> None:
    """Delete the node Leases that a KWOK held; one that another holder takes meanwhile stays. Raises ApiError."""
    for lease in server.get(_LEASES)["items"]:
        if lease.get("spec", {}).get("holderIdentity") == holder:
            metadata = lease["metadata"]
            server.delete(f"{_LEASES}/{metadata['name']}", unchanged_since=metadata["resourceVersion"])
