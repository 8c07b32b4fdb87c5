"""The constants of the model of copying, and the defaults of what users set, each with its source.

Units: seconds are simulated ones, rates are bytes a second. *Fitted*: chosen so that the model meets the measurements
of KubeVirt's enhancement VEP 291, "Dynamic Downtime Tuning" (`python -m hack.calibration` prints the comparison).
"""

from __future__ import annotations

from typing import Final

GOODPUT: Final = 0.93
"""The share of a link that carries memory: what TCP leaves. Fitted."""
ROUND_OVERHEAD: Final = 0.25
"""Seconds at the start of each round in which memory is dirtied and nothing is sent. Fitted."""
SWITCH_OVER: Final = 0.12
"""Seconds between the last byte and the resumed guest. Fitted."""
FIRST_ROUND_SHARE: Final = 0.885
"""The share of memory in use that the first round sends; the other pages are zero. Fitted."""
WRITABLE_SHARE: Final = 0.03
"""Default of the writable working set, as a share of memory in use. Fitted."""
DIRTY_RATE_JITTER: Final = 0.15
"""Default of sigma of the factor by which the dirty rates of rounds differ. Fitted."""

DIRTY_RATE: Final = 10 * 2.0**20
"""Default dirty rate, bytes a second: an idle guest's. Our choice."""
BANDWIDTH_PER_NODE: Final = 1.25e9
"""Default bandwidth of each direction of a node, bytes a second: 10 Gb/s. Our choice."""
MAX_DOWNTIME: Final = 0.3
"""Default downtime limit, seconds: QEMU's (KubeVirt, pkg/util/migrations/migrations.go)."""
COMPLETION_TIMEOUT_PER_GIB: Final = 150.0
"""Default seconds for each GB of the VM's memory: KubeVirt's (pkg/virt-config/virt-config.go)."""
PROGRESS_TIMEOUT: Final = 150.0
"""Default seconds in which something has to be sent: KubeVirt's (pkg/virt-config/virt-config.go)."""

FIRST_THROTTLE: Final = 20
"""Per cent of the guest's CPU that auto-converge takes first: QEMU's cpu-throttle-initial."""
THROTTLE_INCREMENT: Final = 10
"""Per cent that it takes with each further step: QEMU's cpu-throttle-increment."""
MOST_THROTTLE: Final = 99
"""Per cent at most: QEMU's max-cpu-throttle."""
BAD_SHARE: Final = 0.5
"""A round is bad if more than this share of what it sent has been dirtied: QEMU's throttle-trigger-threshold."""
BAD_ROUNDS: Final = 2
"""Bad rounds, not necessarily in a row, for each step of throttling: QEMU's (migration/ram.c)."""
