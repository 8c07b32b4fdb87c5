"""The schema of a scenario file: reads a document into a scenario.

Guarantees: a returned scenario can be loaded and played as it is: names are unique and short enough, and the CRD and
the controller accept every ratio that it can produce. Otherwise every problem is reported with its line and field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Final, TypeVar

from controller.domain import names
from controller.domain.ratio import CPU_MAX, MEMORY_MAX
from controller.domain.vm.policy import FASTEST, SLOWEST
from controller.kube import naming
from controller.kube.kinds import Taint
from controller.scenario import chance, templates, values
from controller.scenario.distributions import Distribution, plain
from controller.scenario.document import Fields, Notes, Spot, UnusableError, attempt, compose
from controller.scenario.fleet import FAKE_NODE_TAINT, DesiredNode, DesiredVM, Origin
from controller.scenario.profiles import Curve, Part, Profile
from controller.scenario.scenario import NodeGroup, Scenario, VMGroup
from controller.scenario.shapes import distribution, profile
from controller.scenario.traces import Traces

GroupT = TypeVar("GroupT", NodeGroup, VMGroup)

KIND: Final = "Scenario"
MOST_NODES: Final = 5_000
MOST_VMS: Final = 50_000
_MOST_GROUPS: Final = 1_000
_MOST_TAINTS: Final = 50
_MOST_PODS: Final = 10_000
_HIGHEST_SEED: Final = (1 << 63) - 1
FIELDS: Final = ("apiVersion", "kind", "name", "namespace", "seed", "speed", "nodes", "vms")
NODE_FIELDS: Final = ("name", "count", "cpu", "memory", "pods", "labels", "taints")
VM_FIELDS: Final = ("name", "count", "seed", "cpu", "memory", "consumption", "node", *templates.FIELDS)


def parse(text: str, file: str, directory: Path) -> Scenario:
    """Read a scenario; `file` is its name in messages, `directory` where its traces are.

    Raises DocumentError with all of its problems.
    """
    notes = Notes(file)
    root = compose(text, notes)
    scenario = attempt(partial(_scenario, Traces(directory)), root)
    notes.settle()
    if scenario is None:
        raise AssertionError(f"{file} is unusable for no reason")
    return scenario


def _scenario(traces: Traces, spot: Spot) -> Scenario:
    fields = spot.fields("a scenario", *FIELDS)
    fields.required("apiVersion", partial(_exactly, names.API_VERSION))
    fields.required("kind", partial(_exactly, KIND))
    name = fields.required("name", values.dns_label())
    namespace = fields.optional("namespace", values.dns_label(), "")
    seed = fields.optional("seed", values.whole(0, _HIGHEST_SEED), 0)
    speed = fields.optional("speed", values.decimal(Decimal(str(SLOWEST)), Decimal(FASTEST)), None)
    nodes = fields.optional("nodes", partial(_groups, "nodes", _node_group, MOST_NODES), ())
    there = frozenset(node.name for group in nodes for node in group.nodes)
    # Of a list of nodes that cannot be read it is not known which ones are missing.
    known = there if nodes and not spot.notes.problems else None
    vms = fields.optional("vms", partial(_groups, "VMs", partial(_vm_group, seed, traces, known), MOST_VMS), ())
    if name is None:
        raise UnusableError
    return Scenario(name, namespace or None, None if speed is None else float(speed), tuple(nodes), tuple(vms))


def _exactly(wanted: str, spot: Spot) -> str:
    written = spot.text(wanted)
    if written != wanted:
        raise spot.unusable(f"want {wanted}, not {written!r}")
    return written


def _groups(what: str, read: Callable[[Spot], GroupT], at_most: int, spot: Spot) -> tuple[GroupT, ...]:
    """Read groups; note duplicate names, and too many members in total."""
    owners: dict[str, str] = {}
    found: list[GroupT] = []
    total = 0
    for item in spot.items(f"a list of groups of {what}", at_most=_MOST_GROUPS):
        group = attempt(read, item)
        if group is None:
            continue
        found.append(group)
        members = _members(group)
        taken = next((name for name in members if name in owners), None)
        if taken is not None:
            item.note(f"{taken} is in {owners[taken]} already: names must be unique")
        owners |= dict.fromkeys(members, item.path)
        total += len(members)
        if total > at_most:
            raise spot.unusable(f"want at most {at_most} {what} in all")
    return tuple(found)


def _members(group: NodeGroup | VMGroup) -> list[str]:
    members: tuple[DesiredNode, ...] | tuple[DesiredVM, ...] = (
        group.nodes if isinstance(group, NodeGroup) else group.vms
    )
    return [member.name for member in members]


def _numbered(fields: Fields, name: str | None, at_most: int) -> list[str]:
    """Return the members' names: name-1, name-2 …, or just the name if there is no count."""
    if "count" not in fields.found or fields.found["count"].is_null:
        return [name] if name is not None else []
    count = fields.required("count", values.whole(0, at_most))
    return [f"{name}-{number}" for number in range(1, (count or 0) + 1)] if name is not None else []


def _node_group(spot: Spot) -> NodeGroup:
    fields = spot.fields("a group of nodes", *NODE_FIELDS)
    name = fields.required("name", values.node_name)
    members = _numbered(fields, name, MOST_NODES)
    _fits(fields, members, naming.LONGEST_LABEL)
    default = DesiredNode("")
    cpu = fields.optional("cpu", values.quantity, default.cpu)
    memory = fields.optional("memory", values.quantity, default.memory)
    pods = fields.optional("pods", values.whole(1, _MOST_PODS), default.pods)
    labels: Mapping[str, str] = fields.optional("labels", _node_labels, default.labels)
    taints = fields.optional("taints", _taints, ())
    if name is None:
        raise UnusableError
    origin = Origin(name, spot.notes.file, spot.line, spot.path)
    return NodeGroup(name, tuple(DesiredNode(member, cpu, memory, pods, labels, taints, origin) for member in members))


def _node_labels(spot: Spot) -> dict[str, str]:
    return values.label_map(spot, values.of_every_node)


def _taints(spot: Spot) -> tuple[Taint, ...]:
    """Read taints; like the API server, accept each pair of key and effect once; the fake taint is implied."""
    found: dict[tuple[str, str], Taint] = {}
    places = {(FAKE_NODE_TAINT.key, FAKE_NODE_TAINT.effect): "every node of a scenario"}
    for item in spot.items("a list of taints", at_most=_MOST_TAINTS):
        taint = attempt(_taint, item)
        if taint is None or taint == FAKE_NODE_TAINT:  # users copy it from KWOK's documentation
            continue
        pair = (taint.key, taint.effect)
        if pair in places:
            item.note(f"{':'.join(pair)} is in {places[pair]} already: each key and effect once")
        else:
            places[pair] = item.path
            found[pair] = taint
    return tuple(found.values())


def _taint(spot: Spot) -> Taint:
    fields = spot.fields("key, value and effect", "key", "value", "effect")
    key, effect = fields.required("key", values.label_key), fields.required("effect", values.effect)
    value = fields.optional("value", values.label_value, "")
    if key is None or effect is None:
        raise UnusableError
    return Taint(key=key, value=value, effect=effect)


def _vm_group(scenario_seed: int, traces: Traces, known: Collection[str] | None, spot: Spot) -> VMGroup:
    fields = spot.fields("a group of VMs", *VM_FIELDS)
    name = fields.required("name", values.dns_label(names.MAX_VM_NAME))
    members = _numbered(fields, name, MOST_VMS)
    _fits(fields, members, names.MAX_VM_NAME)
    seed = fields.optional("seed", values.whole(0, _HIGHEST_SEED), scenario_seed)
    cpu = fields.required("cpu", distribution(CPU_MAX))
    memory = fields.required("memory", distribution(MEMORY_MAX))
    uses = fields.found.get("consumption")
    cpu_profile = memory_profile = None
    if uses is not None and not uses.is_null:
        consumption = attempt(lambda found: found.fields("cpu and memory", "cpu", "memory"), uses)
        if consumption is not None:
            cpu_profile = _consumption(consumption, "cpu", traces, cpu, CPU_MAX)
            memory_profile = _consumption(consumption, "memory", traces, memory, MEMORY_MAX)
    template = templates.read(fields)
    nodes = fields.optional("node", partial(templates.nodes, known), ())
    if name is None or cpu is None or memory is None:
        raise UnusableError
    origin = Origin(name, spot.notes.file, spot.line, spot.path)
    common = DesiredVM("", "", "", origin=origin, template=template)
    made = [
        _vm(replace(common, name=member, node=node), seed, (cpu, memory), (cpu_profile, memory_profile))
        for member, node in zip(members, cycle(nodes or (None,)), strict=False)
    ]
    return VMGroup(
        name,
        vms=tuple(desired for desired, _ in made),
        parts=tuple(part for _, part in made) if cpu_profile or memory_profile else (),
        cpu=cpu_profile,
        memory=memory_profile,
    )


def _consumption(
    fields: Fields, column: str, traces: Traces, sizes: Distribution | None, maximum: Decimal
) -> Profile | None:
    """Read a profile, if there is one; note a problem if the largest VM would exceed the maximum of an annotation."""
    found = fields.optional(column, profile(column, traces), None)
    if found is not None and sizes is not None and (most := found.high * sizes.high) > maximum:
        fields.found[column].note(
            f"reaches {found.high} of a request of {sizes.high}, {most.normalize():f} of the reference node: "
            f"want at most {maximum}"
        )
    return found


def _fits(fields: Fields, members: list[str], longest: int) -> None:
    """Note a problem if the longest name of a group is too long."""
    if members and len(members[-1]) > longest:
        fields.found["name"].note(f"{members[-1]} has {len(members[-1])} characters: want at most {longest}")


def _vm(
    blank: DesiredVM,
    seed: int,
    sizes: tuple[Distribution, Distribution],
    profiles: tuple[Profile | None, Profile | None],
) -> tuple[DesiredVM, Part]:
    """Draw one VM's numbers. Its seeds depend only on the group's seed and its own name."""
    columns, name = ("cpu", "memory"), blank.name
    cpu, memory = (size.draw(chance.seed(seed, name, column)) for size, column in zip(sizes, columns, strict=True))
    cpu_curve, memory_curve = (
        Curve(shape, request, chance.seed(seed, name, column, "consumption")) if shape is not None else None
        for shape, request, column in zip(profiles, (cpu, memory), columns, strict=True)
    )
    part = Part(name, cpu_curve, memory_curve)
    cpu_now, memory_now = part.at(0.0)
    drawn = replace(blank, cpu=plain(cpu), memory=plain(memory), cpu_consumption=cpu_now, memory_consumption=memory_now)
    return drawn, part
