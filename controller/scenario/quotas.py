"""The ResourceQuotas that the VMs of a fleet would exceed together: a dry run checks only one object at a time.

Guarantees: pure; the use of a quota is that of its last status. A quota whose scopes may exclude launcher pods is
ignored, and so is a figure that cannot be parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from controller.domain import names
from controller.kube.quantity import QuantityError, parse_quantity
from controller.scenario.free import CPU_UNIT, Size

_VMS: Final = f"count/{names.VM_PLURAL}.{names.GROUP}"
_SURE_SCOPES: Final = frozenset(("NotTerminating", "NotBestEffort"))
"""Scopes that include every launcher pod: it has requests, and no deadline."""
_LIMITS: Final = ("limits.cpu", "limits.memory")


@dataclass(frozen=True, slots=True)
class Shortage:
    """A quota that would be exceeded, as text; `refused` if VMs are refused and not only their pods."""

    words: str
    refused: bool


def shortages(quotas: Iterable[Mapping[str, Any]], sizes: Iterable[Size]) -> Iterator[Shortage]:
    """Yield the quotas of a namespace that VMs with pods of these sizes would exceed."""
    asked = list(sizes)
    if not asked:
        return
    cpu, memory = Decimal(sum(size.cpu for size in asked)) / CPU_UNIT, Decimal(sum(size.memory for size in asked))
    count = Decimal(len(asked))
    wanted = {_VMS: count, "pods": count, "count/pods": count}
    wanted |= {"requests.cpu": cpu, "cpu": cpu, "requests.memory": memory, "memory": memory}
    for quota in quotas:
        name = quota["metadata"].get("name", "")
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        for resource, more in wanted.items():
            if resource != _VMS and not _counts_launchers(quota):
                continue
            limit, taken = _quantity(hard.get(resource)), _quantity(used.get(resource, "0"))
            if limit is not None and taken is not None and taken + more > limit:
                figures = f"{_plain(resource, more)} more than {used.get(resource, '0')} of {hard[resource]}"
                what = f"{len(asked)} VMs" if resource == _VMS else f"the pods of {len(asked)} VMs"
                yield Shortage(f"quota {name} is too small for {what}: {resource}, {figures}", resource == _VMS)
        if unset := [resource for resource in _LIMITS if resource in hard and _counts_launchers(quota)]:
            yield Shortage(
                f"quota {name} requires {' and '.join(unset)}, which VMs' pods do not set: without a LimitRange that "
                "sets them no pod is created",
                refused=False,
            )


def _counts_launchers(quota: Mapping[str, Any]) -> bool:
    spec = quota.get("spec") or {}
    selected = [
        term.get("scopeName") if term.get("operator") == "Exists" else None
        for term in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    ]
    return _SURE_SCOPES.issuperset([*(spec.get("scopes") or ()), *selected])


def _plain(resource: str, amount: Decimal) -> str:
    if resource.endswith("memory"):
        return f"{amount / 1024**3:.1f}Gi"
    return f"{amount.normalize():f}"


def _quantity(text: object) -> Decimal | None:
    try:
        return parse_quantity(text) if isinstance(text, str) else None
    except QuantityError:
        return None
