"""The requests to the API server by its own counters, and not by the contestants' reports.

Every write counts, also a refused one: a conflict costs a request like any other. Only the kinds that controllers of
VMs write are counted; nodes and leases, which KWOK renews, are left out.
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
    """The number of writes by kind: `POST pods`, `write virtualmachines/status` (PUT, PATCH or apply) and so on."""

    counts: Counter[str]

    def since(self, before: Writes) -> Writes:
        """Return the writes since an earlier reading."""
        return Writes(Counter({kind: self.counts[kind] - before.counts[kind] for kind in self.counts}))

    def of(self, *kinds: str) -> int:
        """Return the number of writes of these kinds."""
        return sum(self.counts[kind] for kind in kinds)

    @property
    def status(self) -> int:
        """The number of writes of VMs' statuses, which only a controller makes."""
        return self.of("write virtualmachines/status")

    @property
    def total(self) -> int:
        """The number of all writes."""
        return self.counts.total()


def read(directory: Path, port: int) -> Writes:
    """Read the counters of the API server of a plane. Raises BenchError."""
    with ApiServer.connect(Layout.of(directory).pki, port) as server:
        try:
            server.connection.request("GET", "/metrics")
            response = server.connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"cannot read the API server's metrics: {error}") from error
    return parse(text)


def parse(metrics: str) -> Writes:
    """Count the writes in the API server's metrics."""
    counts: Counter[str] = Counter()
    for labels, value in _SAMPLE.findall(metrics):
        label = dict(_LABEL.findall(labels))
        verb, kind = _WRITES.get(label["verb"]), label["resource"]
        # KWOK and the scheduler write pods' status and binding.
        if verb is not None and kind in _KINDS and not (kind == "pods" and label["subresource"]):
            counts["/".join(filter(None, (f"{verb} {kind}", label["subresource"])))] += int(float(value))
    return Writes(counts)
