"""`vmsim drain --plan`: prints what a drain would do, and changes nothing.

Guarantees: the exit code is 0 if the nodes can be drained (within the time given), 1 if not, 2 for wrong flags or an
unknown node, 3 if there is no answer: no cluster, or its nodes or VMs may not be read. The JSON document is the same
for the same cluster; its fields and units are in docs/migration.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console

from controller.cli import exits, session
from controller.cli.connection import Connection
from controller.cli.tables import Column, Grid
from controller.cli.text import cell
from controller.domain.objects import Strategy
from controller.kube import managers
from controller.kube.client import Client
from controller.operations import settings
from controller.operations.api import Api
from controller.operations.draining.order import Order
from controller.operations.errors import NoSuchNodeError
from controller.operations.planning import reading
from controller.operations.planning.reading import Outlook, Wish
from controller.operations.planning.values import Blocker, Plan, Step
from controller.operations.text import counted, one_line

_SHOWN: Final = 3
"""Names that a line lists, before it counts the others."""
_BLOCKED: Final = 10
"""The same, of VMs that are blocked."""
_MINUTE, _HOUR = 60, 3600
_EXACT: Final = 10.0
"""Seconds below which a time is shown with a decimal."""


@dataclass(frozen=True, slots=True)
class Request:
    """The command's arguments; `within` is in seconds."""

    order: Order
    selector: str | None = None
    within: float | None = None
    as_json: bool = False


def run(connection: Connection, request: Request) -> None:
    """Print the plan, and exit."""

    async def work(client: Client, scope: session.Scope) -> int:
        try:
            return await answer(client, request, scope, session.console(), datetime.now(UTC))
        except NoSuchNodeError as error:
            exits.fail(str(error), code=exits.BAD_ARGUMENT)

    session.run(connection, work, manager=managers.DRAIN, failed=exits.NO_ANSWER)


async def answer(client: Api, request: Request, scope: session.Scope, console: Console, now: datetime) -> int:
    """Print the plan; return the exit code. Raises as `reading.named` and `reading.plan` do."""
    nodes = await reading.named(client, request.selector) if request.selector else request.order.nodes
    wish = wished(nodes, request.order, scope)
    outlook = await reading.plan(client, wish, now)
    if request.as_json:
        console.print(json.dumps(document(outlook, wish, request.within), indent=2, ensure_ascii=False))
    else:
        show(console, outlook, wish, request.within)
    return 0 if _fine(outlook.plan, request.within) else exits.FAILED


def wished(nodes: tuple[str, ...], order: Order, scope: session.Scope) -> Wish:
    """Return what is to be planned for a drain."""
    places = settings.places(scope.namespace, scope.home)
    strategy = Strategy(order.strategy) if order.strategy is not None else None
    return Wish(tuple(dict.fromkeys(nodes)), places, order.parallel_nodes, strategy)


def _fine(plan: Plan, within: float | None) -> bool:
    return plan.possible and (within is None or plan.seconds <= within)


# --- for people -------------------------------------------------------------------------------------------------


def show(console: Console, outlook: Outlook, wish: Wish, within: float | None) -> None:
    """Print a plan as tables, and a verdict."""
    plan = outlook.plan
    if plan.steps:
        console.print(_steps(plan), soft_wrap=False)
        console.print("")
    console.print(_nodes(plan), soft_wrap=False)
    if plan.blockers:
        console.print("\nBlocked:")
        for line in blocked(plan):
            console.print(f"  {line}")
    if plan.not_judged:
        console.print("\nNot judged:")
        for each in plan.not_judged:
            console.print(f"  {one_line(each.what)}{f': {_listed(each.vms)}' if each.vms else ''}")
    console.print("")
    for line in (*_limits(outlook, wish), verdict(plan, within)):
        console.print(line)


def blocked(plan: Plan) -> Iterator[str]:
    """Yield a line for each reason why VMs stay, with the VMs of one node that share it."""
    alike: dict[tuple[str, str], list[Blocker]] = {}
    for blocker in plan.blockers:
        alike.setdefault((blocker.node, one_line(blocker.why)), []).append(blocker)
    for (node, why), blockers in alike.items():
        fails = {duration(blocker.fails) for blocker in blockers if blocker.fails}
        after = f" (fails after {min(fails)})" if len(fails) == 1 else ""
        yield f"{_listed(tuple(blocker.vm for blocker in blockers), _BLOCKED)} on {node}{after}: {why}"


def _steps(plan: Plan) -> Grid:
    displacing = any(step.displaces for step in plan.steps)
    drawn = Grid(
        *(Column("VM"), Column("NODE"), Column("COULD GO TO"), Column("HOW")),
        *(Column("BEGINS", justify="right"), Column("HAS LEFT", justify="right")),
        *((Column("DISPLACES", folds=True),) if displacing else ()),
    )
    for step in plan.steps:
        drawn.add(
            *(cell(step.vm), cell(step.node), cell(_where(step)), cell(step.strategy.value)),
            *(duration(step.begins), duration(step.ends)),
            *((cell(_listed(step.displaces)),) if displacing else ()),
        )
    return drawn


def _where(step: Step) -> str:
    others = len(step.candidates) - 1
    return step.target + (f" or {counted(others, 'other')}" if others else "")


def _nodes(plan: Plan) -> Grid:
    drawn = Grid(
        *(Column("NODE"), Column("VMS", justify="right")),
        *(Column("BEGINS", justify="right"), Column("EMPTY", justify="right")),
    )
    for node in plan.nodes:
        empty = cell("never", "bold red") if node.empty is None else cell(duration(node.empty), "green")
        drawn.add(cell(node.name), str(node.vms), "" if node.begins is None else duration(node.begins), empty)
    return drawn


def _limits(outlook: Outlook, wish: Wish) -> Iterator[str]:
    """Yield how many VMs move at once, and the limits of each class of controllers."""
    nodes = f"{counted(wish.parallel_nodes, 'node')} at a time"
    for of_class, found in outlook.settings.items():
        limits = found.limits
        cluster, outbound = (str(limit) if limit else "any number" for limit in (limits.cluster, limits.outbound))
        whose = "" if of_class is None else f"Class {of_class}: "
        speed = "" if found.policy.speed == 1 else f"; {found.policy.speed:g} simulated seconds in a real one"
        yield f"{whose}limits: {cluster} in the cluster, {outbound} away from a node, {nodes}{speed}"


def verdict(plan: Plan, within: float | None = None) -> str:
    """Return whether and in which time nodes can be drained, as a sentence."""
    nodes = counted(len(plan.nodes), "node")
    if not plan.possible:
        vms = sum(node.vms for node in plan.nodes)
        rest = f"; the others would have left after {duration(plan.left)}" if plan.steps else ""
        return f"{nodes} cannot be drained: {len(plan.blockers)} of {counted(vms, 'VM')} would stay{rest}"
    moves = f"{counted(len(plan.steps), 'VM')}, at most {plan.at_once} at once" if plan.steps else "no VM is there"
    late = f"; that is more than {duration(within)}" if within is not None and plan.seconds > within else ""
    return f"{nodes} can be drained in {duration(plan.seconds)}: {moves}{late}"


def missed(plan: Plan, took: float) -> str:
    """Return how far an estimate was off, as a sentence."""
    estimate = plan.seconds
    share = f" ({(took - estimate) / estimate:+.0%})" if estimate > 0 else ""
    return f"it took {duration(took)}; the estimate was {duration(estimate)}{share}"


def duration(seconds: float) -> str:
    """Return a duration for people: 0.4s, 12s, 3m04s, 2h05m."""
    if seconds < _EXACT - 0.05:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"


def _listed(names: tuple[str, ...], most: int = _SHOWN) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


# --- for programs -----------------------------------------------------------------------------------------------


def document(outlook: Outlook, wish: Wish, within: float | None) -> dict[str, Any]:
    """Return a plan as a JSON document; times are real seconds from the beginning of the drain."""
    plan = outlook.plan
    return {
        "possible": plan.possible,
        "seconds": _rounded(plan.seconds),
        "withinSeconds": within,
        "inTime": _fine(plan, within),
        "atOnce": plan.at_once,
        "parallelNodes": wish.parallel_nodes,
        "controllers": [
            {
                "class": of_class,
                "strategy": found.strategy.value,
                "speed": found.policy.speed,
                "parallelMigrationsPerCluster": found.limits.cluster,
                "parallelOutboundMigrationsPerNode": found.limits.outbound,
            }
            for of_class, found in outlook.settings.items()
        ],
        "nodes": [
            {
                "name": node.name,
                "vms": node.vms,
                "beginsSeconds": _rounded(node.begins),
                "emptySeconds": _rounded(node.empty),
            }
            for node in plan.nodes
        ],
        "moves": [
            {
                "vm": step.vm,
                "node": step.node,
                "target": step.target,
                "candidates": list(step.candidates),
                "strategy": step.strategy.value,
                "beginsSeconds": _rounded(step.begins),
                "leftSeconds": _rounded(step.ends),
                "displaces": list(step.displaces),
            }
            for step in plan.steps
        ],
        "blockers": [
            {
                "vm": blocker.vm,
                "node": blocker.node,
                "reason": blocker.cause.value,
                "message": blocker.why,
                "failsSeconds": _rounded(blocker.fails),
                "displaces": list(blocker.displaces),
            }
            for blocker in plan.blockers
        ],
        "notJudged": [{"what": each.what, "vms": list(each.vms)} for each in plan.not_judged],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
