"""Judgements on a watch's history. Pure: the same events give the same judgement, and nothing else is asked.

What counts as one VM is the UID that controls its pods. The controller's own word (phases of VMs and migrations)
is never used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from controller.observe.history import NodeSeen, Picture, PodSeen, Seen, VMSeen


@dataclass(frozen=True, slots=True)
class Outage:
    """A time during which a VM that had run on `node` did not; `ended` is None if it does not run yet."""

    vm: str
    vm_uid: str
    node: str
    began: float
    ended: float | None

    def seconds(self, until: float) -> float:
        """Return how long it lasted; an open one lasts until the observation's end."""
        return (until if self.ended is None else self.ended) - self.began


def double_lives(events: Iterable[Seen]) -> list[str]:
    """Tell of each moment at which one more live pod of a VM was there than its only one."""
    picture = Picture()
    found = []
    known: dict[str, frozenset[str]] = {}
    for event in events:
        picture.take(event)
        if not isinstance(event, PodSeen) or not event.vm_uid:
            continue
        live = picture.live(event.vm_uid)
        names = frozenset(pod.name for pod in live)
        if len(live) > 1 and not names <= known.get(event.vm_uid, frozenset()):
            found.append(f"at {event.at:.3f} s VM {event.vm} has {len(live)} live pods: {', '.join(sorted(names))}")
        known[event.vm_uid] = names if len(live) > 1 else frozenset()
    return found


def outages(events: Iterable[Seen]) -> list[Outage]:
    """List the times during which a VM that had run had no Running pod, in the order in which they began."""
    picture = Picture()
    names: dict[str, str] = {}
    serving: dict[str, str | None] = {}
    open_: dict[str, tuple[str, float]] = {}
    closed: list[Outage] = []
    for event in events:
        affected = _affected(picture, event)
        picture.take(event)
        if isinstance(event, VMSeen) and event.deleted:
            open_.pop(event.uid, None)
            serving.pop(event.uid, None)
            continue
        if isinstance(event, PodSeen):
            names[event.vm_uid] = event.vm
        for vm_uid in affected:
            pod = picture.serving(vm_uid)
            if pod is not None and vm_uid in open_:
                closed.append(Outage(names[vm_uid], vm_uid, *open_.pop(vm_uid), event.at))
            elif pod is None and (node := serving.get(vm_uid)):
                open_[vm_uid] = (node, event.at)
            serving[vm_uid] = pod.node if pod is not None else None
    still = [Outage(names[vm_uid], vm_uid, node, began, None) for vm_uid, (node, began) in open_.items()]
    return sorted([*closed, *still], key=lambda outage: outage.began)


def most_at_once(found: Sequence[Outage]) -> int:
    """Return the largest number of outages that lasted at the same moment; one may begin as another ends."""
    turns = [(outage.began, 1) for outage in found]
    turns += [(outage.ended, -1) for outage in found if outage.ended is not None]
    now = most = 0
    for _, turn in sorted(turns):
        now += turn
        most = max(most, now)
    return most


def most_at_once_of_a_node(found: Iterable[Outage]) -> int:
    """Return the same, counted for each node by itself: the largest number of any."""
    by_node: dict[str, list[Outage]] = {}
    for outage in found:
        by_node.setdefault(outage.node, []).append(outage)
    return max((most_at_once(of_node) for of_node in by_node.values()), default=0)


def _affected(picture: Picture, event: Seen) -> set[str]:
    """Return the VMs whose serving an event may change."""
    match event:
        case PodSeen() if event.vm_uid:
            return {event.vm_uid}
        case NodeSeen():
            return {pod.vm_uid for pod in picture.on(event.name)}
        case _:
            return set()


def moves(events: Iterable[Seen], *, since: float = 0.0) -> int:
    """Count how often a VM came to run on another node than it ran on before."""
    picture = Picture()
    at: dict[str, str | None] = {}
    count = 0
    for event in events:
        picture.take(event)
        if not isinstance(event, PodSeen):
            continue
        if (pod := picture.serving(event.vm_uid)) is not None:
            count += event.at >= since and at.get(event.vm_uid, pod.node) != pod.node
            at[event.vm_uid] = pod.node
    return count


def loads(events: Iterable[Seen]) -> dict[str, list[tuple[float, int]]]:
    """Return for each node the times at which its number of live VM pods changed, and to what; 0 once it is gone."""
    picture = Picture()
    series: dict[str, list[tuple[float, int]]] = {}
    for event in events:
        changed = _changed_nodes(picture, event)
        picture.take(event)
        for node in changed:
            if node not in picture.nodes and node not in series:
                continue
            points = series.setdefault(node, [])
            count = picture.load(node)
            if not points or points[-1][1] != count:
                points.append((event.at, count))
    return {node: series[node] for node in sorted(series, key=natural)}


def _changed_nodes(picture: Picture, event: Seen) -> set[str]:
    """Return the nodes whose number of live pods an event may change."""
    match event:
        case PodSeen():
            before = picture.pods.get(event.uid)
            return {pod.node for pod in (before, event) if pod is not None and pod.node is not None}
        case NodeSeen():
            return {event.name}
        case _:
            return set()


def spread(events: Iterable[Seen], at: float) -> tuple[int, int]:
    """Return the fewest and the most VMs on a node that existed at a moment."""
    picture = Picture()
    for event in events:
        if event.at > at:
            break
        picture.take(event)
    counts = [count for _, count in picture.loads()]
    return min(counts, default=0), max(counts, default=0)


def not_running(picture: Picture, vms: Mapping[str, str]) -> list[str]:
    """Say of each VM (name by UID) that does not run in exactly one live pod, why."""
    found = []
    for vm_uid, name in vms.items():
        live = picture.live(vm_uid)
        if len(live) == 1 and picture.serves(live[0]):
            continue
        pods = ", ".join(f"{pod.name} {_state(picture, pod)}" for pod in picture.pods_of(vm_uid)) or "no pod"
        found.append(f"VM {name} does not run: {pods}")
    return sorted(found)


def _state(picture: Picture, pod: PodSeen) -> str:
    words = [pod.phase]
    if pod.terminating:
        words.append("and terminating")
    words.append(f"on {pod.node}" if pod.node else "on no node")
    if pod.node and pod.node not in picture.nodes:
        words.append("(which is gone)")
    return " ".join(words)


def touched(events: Iterable[Seen], *, since: float) -> list[str]:
    """Tell of each VM pod that began to terminate, ended or was created from a time on."""
    picture = Picture()
    found = []
    for event in events:
        before = picture.pods.get(event.uid) if isinstance(event, PodSeen) else None
        picture.take(event)
        if not isinstance(event, PodSeen) or not event.vm_uid or event.at < since:
            continue
        if before is None:
            found.append(f"at {event.at:.3f} s VM {event.vm} got pod {event.name}")
        elif (before.live and not before.terminating) and (event.terminating or not event.live):
            found.append(f"at {event.at:.3f} s VM {event.vm} lost pod {event.name}")
    return found


def natural(name: str) -> tuple[int, str]:
    """Return a key that sorts names as a person counts: node-2 before node-10."""
    return len(name), name


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
