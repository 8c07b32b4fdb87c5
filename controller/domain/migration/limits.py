"""The limits on parallel migrations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How many VMs may migrate at once: in the cluster, and away from a node; 0: any number. KubeVirt's defaults."""

    cluster: int = 5
    outbound: int = 2
