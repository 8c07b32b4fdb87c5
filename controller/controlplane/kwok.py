"""What the plane's KWOK needs beyond what kwokctl gives it: a stage of our own, and a restart without a gap.

KWOK plays its built-in stages only if its configuration has none, so kwokctl writes them all into that file, and ours
is appended. KWOK names itself anew at each start: until the node Leases of the one before expire, which takes minutes,
it does nothing for their nodes. So whoever restarts it deletes the Leases that the stopped one held, and no others.
"""

import json
from itertools import islice
from pathlib import Path

from controller import package_data
from controller.controlplane.api import ApiServer

NAME = "kwok-controller"

_MARK = "\n---\n# Appended by "
"""What stands before our stage, whichever release appended it."""
_STAGE = "manifests/kwok/pod-ready-again.yaml"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_FIRST_LINES = 50


def append_stage(configuration: Path) -> bool:
    """Have our stage at the end of KWOK's configuration; return whether that is news to a KWOK that runs."""
    try:
        there = configuration.read_text()
    except FileNotFoundError:
        return False  # kwokctl has not come that far
    wanted = there.partition(_MARK)[0] + _MARK + "vmsim.\n" + package_data.path(_STAGE).read_text()
    if there == wanted:
        return False
    temporary = configuration.with_suffix(".tmp")
    temporary.write_text(wanted)
    temporary.replace(configuration)
    return True


def identity(log: Path) -> str | None:
    """Return under which name the KWOK that wrote a log held Leases; None if it did not come that far."""
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
    """Delete the node Leases that a KWOK held; one that somebody takes over meanwhile stays. Raises ApiError."""
    for lease in server.get(_LEASES)["items"]:
        if lease.get("spec", {}).get("holderIdentity") == holder:
            metadata = lease["metadata"]
            server.delete(f"{_LEASES}/{metadata['name']}", unchanged_since=metadata["resourceVersion"])
