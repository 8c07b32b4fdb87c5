"""The settings of an installation that all launcher pods share.

Guarantees: by default no simulated VM runs on a real node of a shared cluster, and no other pod on a fake one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from controller.domain.ratio import DEFAULT_REFERENCE, ReferenceNode
from controller.kube.scheduling import Toleration

FAKE_NODES: Final[Mapping[str, str]] = MappingProxyType({"type": "kwok"})
"""The default selector: no simulated VM runs on a real node of a shared cluster by accident."""

FAKE_TAINT: Final = Toleration(key="kwok.x-k8s.io/node", operator="Exists", effect="NoSchedule")
"""The taint that keeps all other pods off fake nodes."""

SLOWEST: Final = 0.01
FASTEST: Final = 100_000
"""Simulated seconds in a real one."""


@dataclass(frozen=True, slots=True)
class LauncherPolicy:
    """The settings that all launcher pods share.

    `boot_time`: simulated seconds between the start of a pod and of its guest.
    `speed`: simulated seconds in a real one.
    """

    reference: ReferenceNode = DEFAULT_REFERENCE
    node_selector: Mapping[str, str] = field(default_factory=lambda: FAKE_NODES)
    tolerations: tuple[Toleration, ...] = (FAKE_TAINT,)
    boot_time: float = 0.0
    speed: float = 1.0
