"""The verdict on a run of a live move: everything in which it did not end as it has to.

Guarantees: pure in the cluster. An empty verdict is a pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.domain import names
from controller.domain.resources import MIGRATIONS, VIRTUAL_MACHINES
from controller.kube.resources import PODS
from controller.observe.ends import Clause
from tests.exhaustive.endings import End, Now
from tests.exhaustive.live import claims
from tests.model.cluster import Cluster
from tests.model.rules import Document

_VM = VIRTUAL_MACHINES.plural, "default/vm-1"
_MIGRATION = MIGRATIONS.plural, "default/m-1"
_DONE = ("Succeeded", "Failed")


def verdict(cluster: Cluster, end: End, *, lenient: frozenset[Clause] = frozenset(), until: int = 0) -> list[str]:
    """Return what is wrong with the end of a run. `lenient`: clauses that it may breach up to the revision `until`."""
    return [*_breaches(cluster, lenient, until), *_outcome(cluster, end), *_records(cluster, end), *_now(cluster, end)]


def _breaches(cluster: Cluster, lenient: frozenset[Clause], until: int) -> Iterator[str]:
    for breach in cluster.breaches:
        if breach.clause not in lenient or breach.revision > until:
            yield f"revision {breach.revision}: {breach.clause.name}: {breach.what}"
    if len(live := [pod["metadata"]["name"] for pod in cluster.live()]) > 1:
        yield f"live pods are left: {', '.join(live)}"


def _outcome(cluster: Cluster, end: End) -> Iterator[str]:
    for document in cluster.of(MIGRATIONS):
        name, phase = document["metadata"]["name"], document["status"]["phase"]
        if phase not in _DONE and not ("recordOf" in document["spec"] and _waits(cluster)):
            yield f"migration {name} is {phase}: {document['status'].get('message')}"
    found = cluster.objects.get(_MIGRATION)
    if found is None:
        if end.outcomes:
            yield "m-1 does not exist"
        return
    status = found["status"]
    outcome = "Succeeded" if status["phase"] == "Succeeded" else status.get("failureReason", status["phase"])
    if outcome not in end.outcomes:
        why = status.get("message")
        yield f"m-1 ends as {outcome} ({why}), not {' or '.join(sorted(end.outcomes)) or 'with its deletion'}"


def _records(cluster: Cluster, end: End) -> Iterator[str]:
    found = [document["spec"]["reason"] for document in cluster.of(MIGRATIONS) if "recordOf" in document["spec"]]
    if sorted(found) != sorted(end.recorded) and not (end.unseen and not found):
        yield f"evictions recorded: {found}, not {list(end.recorded)}"


def _now(cluster: Cluster, end: End) -> Iterator[str]:
    """Judge which pod is the VM."""
    vm = cluster.objects.get(_VM)
    found = _place(cluster, vm)
    if found not in end.now and not (Now.ANY in end.now and found in (Now.SOURCE, Now.TARGET, Now.LATER)):
        wanted = " or ".join(sorted(each.name for each in end.now))
        yield f"the VM is {found.name}, not {wanted}"
    if vm is None:
        return
    if (claim := vm["status"].get("migration")) is not None:
        yield f"a claim is left: {claim}"
    live = cluster.live()
    if found is Now.STOPPED:
        if (vm["status"]["phase"], live) != ("Stopped", []):
            yield f"the VM has to be stopped, and is {vm['status']['phase']} with {len(live)} live pods"
    elif not _waits(cluster):
        yield from _runs(vm["status"], live)


def _runs(status: Document, live: list[Document]) -> Iterator[str]:
    if status["phase"] != "Running" or len(live) != 1:
        yield f"the VM has to run, and is {status['phase']} with {len(live)} live pods"
        return
    metadata, node = live[0]["metadata"], live[0]["spec"].get("nodeName")
    if (status["podName"], status["podUID"], status["nodeName"]) != (metadata["name"], metadata["uid"], node):
        yield f"the status names pod {status['podName']} on {status['nodeName']}, and {metadata['name']} runs on {node}"


def _waits(cluster: Cluster) -> bool:
    """Whether the VM waits for a node, and there is none that would take its pod."""
    vm = cluster.objects.get(_VM)
    if vm is None or vm["status"]["phase"] != "Scheduling":
        return False
    return all(cluster.choice(pod) is None for pod in cluster.live())


def _place(cluster: Cluster, vm: Document | None) -> Now:
    """Return which pod the VM is, by the UID that its status names."""
    if vm is None:
        return Now.GONE
    if not vm["spec"]["running"] or "deletionTimestamp" in vm["metadata"]:
        return Now.STOPPED
    moves = [claim for claim in claims(cluster) if claim["name"] == "m-1"]
    source, targets = moves[0].get("sourceIncarnation", 0), {claim["targetIncarnation"] for claim in moves}
    named = vm["status"].get("podUID")
    if named is None or named == _first(cluster, source):
        return Now.SOURCE if named is not None or vm["status"].get("incarnation", 0) <= source else Now.LATER
    return Now.TARGET if named in {_first(cluster, number) for number in targets} else Now.LATER


def _first(cluster: Cluster, number: int) -> str | None:
    """Return the UID of the first pod that had a number; None if there was none."""
    for plural, document, _ in cluster.log:
        if plural == PODS.plural and document["metadata"]["annotations"].get(names.INCARNATION) == str(number):
            return str(document["metadata"]["uid"])
    return None
