"""The output of `vmsim load --dry-run`: a scenario's groups, and how much of its nodes' capacity its VMs request.

Guarantees: decimals are exact until they are formatted; the text says whether shares are of the reference node that the
controller has published, or of the default one; with several classes of controllers, for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from controller.cli.tables import Column, Grid
from controller.cli.text import cell
from controller.domain.capacity import NOTHING, Amount
from controller.kube.quantity import decimal_text, parse_quantity
from controller.operations.settings import Reading
from controller.scenario.errors import SHOWN, TOGETHER, listed
from controller.scenario.fleet import DesiredVM
from controller.scenario.free import CPU_UNIT, Size
from controller.scenario.packing import Packing, Reach, Unplaced
from controller.scenario.profiles import Profile
from controller.scenario.scenario import Scenario, VMGroup
from controller.scenario.speed import of_play

Readings = Mapping[str | None, Reading]
"""The settings of each class of controllers."""
_EXACT: Final = Context(prec=80)
"""A file's nodes may have quantities of 36 digits."""
_GIB: Final = Decimal(1024) ** 3


def table(scenario: Scenario) -> Grid:
    """Return a table of the groups: their sizes, and what they use."""
    drawn = Grid(
        *(Column("KIND"), Column("NAME"), Column("COUNT", justify="right"), Column("CPU"), Column("MEMORY")),
        *(Column("USES CPU", folds=True), Column("USES MEMORY", folds=True)),
    )
    for group in scenario.node_groups:
        names = [node.name for node in group.nodes]
        if group.nodes:
            first = group.nodes[0]
            drawn.add("Node", cell(span(names)), str(len(names)), first.cpu, first.memory, "", "")
    for vm_group in scenario.vm_groups:
        names = [vm.name for vm in vm_group.vms]
        if vm_group.vms:
            cpu, memory = ([vm.cpu for vm in vm_group.vms], [vm.memory for vm in vm_group.vms])
            uses = (_uses(vm_group.cpu), _uses(vm_group.memory))
            drawn.add("VM", cell(span(names)), str(len(names)), _sizes(cpu), _sizes(memory), *uses)
    return drawn


def totals(scenario: Scenario, readings: Readings) -> Iterator[str]:
    """Yield what the VMs request, and use at most, of the nodes' capacity."""
    nodes = [node for group in scenario.node_groups for node in group.nodes]
    capacity = sum(
        (Amount(parse_quantity(node.cpu), parse_quantity(node.memory), node.pods) for node in nodes), start=NOTHING
    )
    requested = _total(scenario, readings, lambda _, vm: (Decimal(vm.cpu), Decimal(vm.memory)))
    peak = _total(scenario, readings, _peak)
    yield ""
    for what, amount in (("requested", requested), ("used at most", peak)):
        cpu = _of(amount.cpu, capacity.cpu, "CPUs")
        memory = _of(amount.memory / _GIB, capacity.memory / _GIB, "GiB")
        yield f"{what + ':':14}{cpu}, {memory}, {amount.pods} of {capacity.pods} pods"
    references = _by_class(readings, _reference)
    yield (
        f"CPU and memory of VMs are shares of a reference node, here of {', and of '.join(references)}; "
        "what they use is a share of what they request."
    )


def pace(scenario: Scenario, asked: float | None, readings: Readings) -> Iterator[str]:
    """Yield the speed of the play, if there is one, and what of it is assumed. Raises SpeedError."""
    if not scenario.changes:
        return
    given = scenario.speed if asked is None else asked
    speed = of_play(asked, scenario.speed, readings)
    read = [reading for reading in readings.values() if reading.config_map is not None]
    plays = decimal_text(speed)
    if given is None:
        sources = (f"by {reading.config_map}" for reading in read if reading.settings.policy.speed == speed)
        source = next(sources, "the controller's default")
        yield f"Plays at {plays}x, {source}."
    elif not read:
        yield f"Plays at {plays}x, if the controller runs with --speed {plays if speed == 1 else f'{plays} or 1'}."
    else:
        yield f"Plays at {plays}x."


def _by_class(readings: Readings, text: Callable[[Reading], str]) -> list[str]:
    """Return what is to be said about the settings of each class: one text without a class if all are the same."""
    texts = {of_class: text(reading) for of_class, reading in readings.items()}
    if len(set(texts.values())) == 1:
        return [next(iter(texts.values()))]
    return [f"{said} ({f'class {of_class}' if of_class else 'no class'})" for of_class, said in texts.items()]


def _reference(reading: Reading) -> str:
    reference = reading.settings.policy.reference
    source = "the controller's default" if reading.config_map is None else f"by {reading.config_map}"
    return f"{reference.cpu:f} CPUs and {_short(reference.memory / _GIB)} GiB, {source}"


def _source(reading: Reading) -> str:
    return "their defaults" if reading.config_map is None else f"those of {reading.config_map}"


def fitting(packing: Packing, readings: Readings) -> Iterator[str]:
    """Yield whether the VMs fit on the nodes, and which do not, with the reason; and what is not judged."""
    if not packing.vms:
        return
    if packing.unplaced:
        yield from _shortage(packing)
        if any(group.reach.barred for group in packing.unplaced):
            used = " and ".join(_by_class(readings, _source))
            yield f"The controller's --node-selector and --tolerations decide where VMs run; this check uses {used}."
    else:
        yield "Every VM finds room."
    if packing.unjudged:
        concerned = (f"{what} ({listed(groups, at_most=TOGETHER)})" for what, groups in packing.unjudged.items())
        yield f"Not judged, since the scheduler alone knows: {listed(concerned)}."


def _shortage(packing: Packing) -> Iterator[str]:
    """Yield which VMs do not fit; then the nodes that do not take them, once for all groups of the same nodes."""
    if packing.reaches == 1 and not packing.spaces and packing.unplaced[0].reach.problem is None:
        yield f"No node takes these VMs: {_barred(packing.unplaced[0].reach) or 'there is none here'}."
        return
    yield from _unplaced(packing)
    excluded: dict[str, list[str]] = {}
    for group in packing.unplaced[:SHOWN]:
        if barred := _barred(group.reach):
            excluded.setdefault(barred, []).append(group.group)
    for barred, groups in excluded.items():
        whose = "take no VM" if packing.reaches == 1 else f"do not take {listed(groups, at_most=TOGETHER)}"
        yield f"Nodes that {whose}: {barred}."


def _barred(reach: Reach) -> str:
    return listed(f"{count} {why}" for why, count in reach.barred.items())


def _unplaced(packing: Packing) -> Iterator[str]:
    unplaced = sum(len(group.names) for group in packing.unplaced)
    if packing.short:
        yield "The VMs request more than these nodes have: without others, some will not run."
    order = "the largest first" if packing.reaches == 1 else "those with the fewest nodes first, of these the largest"
    how = "" if packing.certain else f", placed one by one, {order}; another order may do better"
    yield f"No room for {unplaced} of {packing.vms} VMs{how}:"
    for group in packing.unplaced[:SHOWN]:
        many = f"{len(group.names)} of {group.of}, " if group.of > 1 else ""
        size = f"{many}{'up to ' if len(group.names) > 1 else ''}{_size(group.largest)}"
        yield f"  {group.group}: {size}; {_nearest(group)}"
    if len(packing.unplaced) > SHOWN:
        yield f"  and {len(packing.unplaced) - SHOWN} more groups"


def _nearest(group: Unplaced) -> str:
    if group.nearest is None:
        return group.reach.problem or "no node takes it"
    where = "no node has as much, the nearest is" if group.beyond else "most is left on"
    name, size = group.nearest.name, group.nearest.size
    return f"{where} {name}: {_size(size)}{'' if size.pods else ', but no pod'}"


def _size(size: Size) -> str:
    cpu, memory = _short(Decimal(size.cpu) / CPU_UNIT), _short(Decimal(size.memory) / _GIB)
    return f"{cpu} CPUs and {memory} GiB"


def span(names: Sequence[str]) -> str:
    """Return the first and last of numbered names, such as `vm-1 to 3`."""
    first, last = names[0], names[-1]
    return first if first == last else f"{first} to {last.rpartition('-')[2]}"


def _sizes(texts: Iterable[str]) -> str:
    ordered = sorted(texts, key=Decimal)
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _uses(profile: Profile | None) -> str:
    return profile.describe() if profile is not None else "what it requests"


def _total(
    scenario: Scenario, readings: Readings, shares: Callable[[VMGroup, DesiredVM], tuple[Decimal, Decimal]]
) -> Amount:
    total = NOTHING
    for group in scenario.vm_groups:
        for vm in group.vms:
            cpu, memory = shares(group, vm)
            reference = readings[vm.controller_class].settings.policy.reference
            total += Amount(cpu * reference.cpu, memory * reference.memory, 1)
    return total


def _peak(group: VMGroup, vm: DesiredVM) -> tuple[Decimal, Decimal]:
    cpu, memory = (profile.high if profile is not None else Decimal(1) for profile in (group.cpu, group.memory))
    return cpu * Decimal(vm.cpu), memory * Decimal(vm.memory)


def _of(amount: Decimal, capacity: Decimal, unit: str) -> str:
    share = f" ({amount / capacity:.0%})" if capacity else ""
    return f"{_short(amount)} of {_short(capacity)} {unit}{share}"


def _short(number: Decimal) -> str:
    rounded = number.quantize(Decimal("0.1"), ROUND_HALF_EVEN, _EXACT)
    return f"{rounded.to_integral_value() if rounded == rounded.to_integral_value() else rounded:f}"
