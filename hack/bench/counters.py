"""What the API server was asked for, by its own counters: nobody's word about himself.

Every write counts, refused ones too: a conflict costs a request like any other. Only what controllers of VMs write
is looked at; nodes and leases, which KWOK keeps alive, are left out.
"""

from __future__ import annotations

import http.client
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.controlplane.api import ApiServer
from controller.controlplane.layout import Layout
from hack.bench.errors import BenchError

_SAMPLE: Final = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_WRITES: Final = {"POST": "POST", "PUT": "write", "PATCH": "write", "APPLY": "write", "DELETE": "DELETE"}
_KINDS: Final = frozenset({"pods", "virtualmachines", "virtualmachinemigrations", "events"})


@dataclass(frozen=True, slots=True)
class Writes:
    """Writes by what they are: `POST pods`, `write virtualmachines/status` (PUT, PATCH or apply) and so on."""

    counts: Counter[str]

    def since(self, before: Writes) -> Writes:
        """Return those that were made after an earlier reading."""
        return Writes(Counter({kind: self.counts[kind] - before.counts[kind] for kind in self.counts}))

    def of(self, *kinds: str) -> int:
        """Count some kinds."""
        return sum(self.counts[kind] for kind in kinds)

    @property
    def status(self) -> int:
        """Writes of VMs' statuses, which only a controller makes."""
        return self.of("write virtualmachines/status")

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()


def read(directory: Path, port: int) -> Writes:
    """Read the counters of the API server of a plane. Raises BenchError."""
    with ApiServer.connect(Layout.of(directory).pki, port) as server:
        try:
            server.connection.request("GET", "/metrics")
            response = server.connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"the API server does not tell its metrics: {error}") from error
    return parse(text)


def parse(metrics: str) -> Writes:
    """Count the writes in the API server's metrics."""
    counts: Counter[str] = Counter()
    for labels, value in _SAMPLE.findall(metrics):
        told = dict(_LABEL.findall(labels))
        verb, kind = _WRITES.get(told["verb"]), told["resource"]
        # Pods' status and binding are KWOK's and the scheduler's.
        if verb is not None and kind in _KINDS and not (kind == "pods" and told["subresource"]):
            counts["/".join(filter(None, (f"{verb} {kind}", told["subresource"])))] += int(float(value))
    return Writes(counts)
