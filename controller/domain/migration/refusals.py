"""Judges a failed dry run, in which the API server was to create the target pod of a migration.

Guarantees: pure. A permanent refusal is distinct from a temporary one. An exceeded quota is no refusal if the target
fits in it once the source pod is deleted, which `Recreate` does first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from controller.domain import capacity
from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.kube.kinds import Pod
from controller.kube.quantity import QuantityError, parse_quantity

_FOR_GOOD: Final = (400, 422)
_FORBIDDEN: Final = 403
_EXCEEDED: Final = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)")
"""The message of the admission plugin ResourceQuota, the last one. Each list is `resource=quantity`, by commas."""
_UNCOUNTED: Final = "status unknown for quota: "
"""Its message for a quota whose usage its controller has not counted yet."""


def judge(code: int | None, message: str, source: Pod | None) -> Refused | None:
    """Return the refusal of a migration, or None if it does not apply once `source` is deleted.

    `code` is the HTTP status, None if there was no answer; `message` the server's.
    """
    if code == _FORBIDDEN and (exceeded := list(_EXCEEDED.finditer(message))):
        if all(_fits(found, _share_of_quota(source)) for found in exceeded):
            return None
        return Refused(Reason.QUOTA_EXCEEDED, f"The target pod would be refused: {message}", for_good=False)
    uncounted = code == _FORBIDDEN and _UNCOUNTED in message
    if code in (*_FOR_GOOD, _FORBIDDEN) and not uncounted:
        return Refused(Reason.TARGET_REFUSED, f"The target pod would be refused: {message}", for_good=True)
    reason = Reason.QUOTA_EXCEEDED if uncounted else Reason.TARGET_REFUSED
    return Refused(reason, f"Whether the target pod may be created is unknown: {message}", for_good=False)


def _fits(exceeded: re.Match[str], source: Mapping[str, Decimal]) -> bool:
    _, requested, used, limited = exceeded.groups()
    try:
        wanted, in_use, most = _figures(requested), _figures(used), _figures(limited)
        return all(in_use[name] - source.get(name, 0) + amount <= most[name] for name, amount in wanted.items())
    except (KeyError, ValueError):  # QuantityError is a ValueError
        return False


def _figures(text: str) -> dict[str, Decimal]:
    """Read `requests.cpu=2,pods=1`. Raises ValueError."""
    pairs = (part.partition("=") for part in text.rstrip(",;.]").split(","))
    return {name: parse_quantity(value) for name, _, value in pairs}


def _share_of_quota(source: Pod | None) -> dict[str, Decimal]:
    """Return what the source pod uses of a quota, as far as it is known."""
    if source is None or source.done:
        return {}
    amount = capacity.of_pod(source)
    limits = [container.resources.limits for container in source.spec.containers]
    one = Decimal(1)
    return {
        **dict.fromkeys(("cpu", "requests.cpu"), amount.cpu),
        **dict.fromkeys(("memory", "requests.memory"), amount.memory),
        "limits.cpu": _sum(limit.cpu for limit in limits),
        "limits.memory": _sum(limit.memory for limit in limits),
        "pods": one,
        "count/pods": one,
    }


def _sum(quantities: Iterable[Any]) -> Decimal:
    """Add up the readable quantities: a malformed one counts as freeing nothing."""
    total = Decimal(0)
    for text in quantities:
        try:
            total += parse_quantity(text) if text is not None else 0
        except QuantityError:
            continue
    return total
