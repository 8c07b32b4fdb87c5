"""Verdicts on the history of a watch: outages, moves, loads; `controller.observe.ends` judges live pods.

Guarantees: every function is pure in the events. A VM is identified by the UID of its pods' controller reference. The
status that the controller publishes (phases of VMs and migrations) is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from controller.observe.history import ClusterState, NodeSeen, PodSeen, Seen, VMSeen


@dataclass(frozen=True, slots=True)
class Outage:
    """A period during which a VM that had run on `node` did not run; `ended` is None while it goes on."""

    vm: str
    vm_uid: str
    node: str
    began: float
    ended: float | None

    def seconds(self, until: float) -> float:
        """Return its duration in seconds; an open outage lasts until `until`, the end of the observation."""
        return (until if self.ended is None else self.ended) - self.began


def outages(events: Iterable[Seen]) -> list[Outage]:
    """Return the periods during which a VM that had run had no serving pod, ordered by their start."""
    cluster = ClusterState()
    names: dict[str, str] = {}
    serving: dict[str, str | None] = {}
    open_: dict[str, tuple[str, float]] = {}
    closed: list[Outage] = []
    for event in events:
        affected = _affected(cluster, event)
        cluster.apply(event)
        if isinstance(event, VMSeen) and event.deleted:
            open_.pop(event.uid, None)
            serving.pop(event.uid, None)
            continue
        if isinstance(event, PodSeen):
            names[event.vm_uid] = event.vm
        for vm_uid in affected:
            pod = cluster.serving(vm_uid)
            if pod is not None and vm_uid in open_:
                closed.append(Outage(names[vm_uid], vm_uid, *open_.pop(vm_uid), event.at))
            elif pod is None and (node := serving.get(vm_uid)):
                open_[vm_uid] = (node, event.at)
            serving[vm_uid] = pod.node if pod is not None else None
    still = [Outage(names[vm_uid], vm_uid, node, began, None) for vm_uid, (node, began) in open_.items()]
    return sorted([*closed, *still], key=lambda outage: outage.began)


def most_at_once(found: Sequence[Outage]) -> int:
    """Return the maximum number of concurrent outages; one that begins as another ends is not concurrent with it."""
    steps = [(outage.began, 1) for outage in found]
    steps += [(outage.ended, -1) for outage in found if outage.ended is not None]
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def most_at_once_of_a_node(found: Iterable[Outage]) -> int:
    """Return the maximum number of concurrent outages of VMs from the same node."""
    by_node: dict[str, list[Outage]] = {}
    for outage in found:
        by_node.setdefault(outage.node, []).append(outage)
    return max((most_at_once(of_node) for of_node in by_node.values()), default=0)


def _affected(cluster: ClusterState, event: Seen) -> set[str]:
    """Return the UIDs of the VMs whose serving pod an event may change."""
    match event:
        case PodSeen() if event.vm_uid:
            return {event.vm_uid}
        case NodeSeen():
            return {pod.vm_uid for pod in cluster.on(event.name)}
        case _:
            return set()


def moves(events: Iterable[Seen], *, since: float = 0.0) -> int:
    """Return how often, from `since` on, a VM began to run on another node than before."""
    cluster = ClusterState()
    at: dict[str, str | None] = {}
    count = 0
    for event in events:
        cluster.apply(event)
        if not isinstance(event, PodSeen):
            continue
        if (pod := cluster.serving(event.vm_uid)) is not None:
            count += event.at >= since and at.get(event.vm_uid, pod.node) != pod.node
            at[event.vm_uid] = pod.node
    return count


def loads(events: Iterable[Seen]) -> dict[str, list[tuple[float, int]]]:
    """Return for each node the (time, number of live VM pods) of every change; 0 once the node is deleted."""
    cluster = ClusterState()
    series: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        changed = _changed_nodes(cluster, event)
        cluster.apply(event)
        for node in changed:
            if node not in cluster.nodes and node not in series:
                continue
            points = series.setdefault(node, [])
            count = cluster.load(node)
            if not points or points[-1][1] != count:
                points.append((event.at, count))
    return {node: series[node] for node in sorted(series, key=natural)}


def _changed_nodes(cluster: ClusterState, event: Seen) -> set[str]:
    """Return the nodes whose number of live pods an event may change."""
    match event:
        case PodSeen():
            before = cluster.pods.get(event.uid)
            return {pod.node for pod in (before, event) if pod is not None and pod.node is not None}
        case NodeSeen():
            return {event.name}
        case _:
            return set()


def spread(events: Iterable[Seen], at: float) -> tuple[int, int]:
    """Return the minimum and the maximum number of live pods on the nodes that existed at a time."""
    cluster = ClusterState()
    for event in events:
        if event.at > at:
            break
        cluster.apply(event)
    counts = [count for _, count in cluster.loads()]
    return min(counts, default=0), max(counts, default=0)


def not_running(cluster: ClusterState, vms: Mapping[str, str]) -> list[str]:
    """Return one line with the reason for each VM (name by UID) that does not run in exactly one live pod."""
    found = []
    for vm_uid, name in vms.items():
        live = cluster.live(vm_uid)
        if len(live) == 1 and cluster.serves(live[0]):
            continue
        pods = ", ".join(f"{pod.name} {_state(cluster, pod)}" for pod in cluster.pods_of(vm_uid)) or "no pod"
        found.append(f"VM {name} does not run: {pods}")
    return sorted(found)


def _state(cluster: ClusterState, pod: PodSeen) -> str:
    words = [pod.phase]
    if pod.terminating:
        words.append("and terminating")
    words.append(f"on {pod.node}" if pod.node else "on no node")
    if pod.node and pod.node not in cluster.nodes:
        words.append("(which no longer exists)")
    return " ".join(words)


def touched(events: Iterable[Seen], *, since: float) -> list[str]:
    """Return one line for each VM pod that was created, ended or began to terminate from `since` on."""
    cluster = ClusterState()
    found = []
    for event in events:
        before = cluster.pods.get(event.uid) if isinstance(event, PodSeen) else None
        cluster.apply(event)
        if not isinstance(event, PodSeen) or not event.vm_uid or event.at < since:
            continue
        if before is None:
            found.append(f"at {event.at:.3f} s VM {event.vm} got pod {event.name}")
        elif (before.live and not before.terminating) and (event.terminating or not event.live):
            found.append(f"at {event.at:.3f} s VM {event.vm} lost pod {event.name}")
    return found


def natural(name: str) -> tuple[int, str]:
    """Return a key for natural sort order: node-2 before node-10."""
    return len(name), name


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of the values by nearest rank; `share` is from 0 to 1."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
