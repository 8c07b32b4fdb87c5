"""KubeVirt's decisions about a move that is slow, and QEMU's about a guest that dirties too fast.

Guarantees: pure. The order of the decisions is that of KubeVirt's `handleLegacyConvergence`
(pkg/virt-launcher/virtwrap/live-migration-source.go), which looks every 400 ms; here they are made at the exact moment.
"""

from __future__ import annotations

import math

from controller.domain.copying import constants
from controller.domain.copying.model import Checkpoint, Limits, Mode


def decide(limits: Limits, at: Checkpoint) -> Mode:
    """Return the mode that KubeVirt chooses for a move at this moment: mostly the one that it has."""
    if at.mode is Mode.POST_COPY or at.ended:
        return at.mode  # in post-copy an abort would lose the VM, whose memory is on both nodes
    late = at.elapsed >= _deadline(limits, at.mode)
    if late and limits.allow_workload_disruption and at.mode is not Mode.PAUSED:
        return Mode.POST_COPY if limits.allow_post_copy else Mode.PAUSED
    if limits.progress_timeout > 0 and -at.wait >= limits.progress_timeout:
        return Mode.STUCK
    return Mode.TIMED_OUT if late else at.mode


def until(limits: Limits, at: Checkpoint, *, blocked: bool) -> float:
    """Return the seconds until KubeVirt decides; infinity: never. `blocked`: nothing can be sent until then.

    Only while nothing can be sent does the rest not fall, so only then does the progress timeout come nearer.
    """
    if at.mode is Mode.POST_COPY:
        return math.inf
    stuck = limits.progress_timeout + at.wait if blocked and limits.progress_timeout > 0 else math.inf
    return max(min(stuck, _deadline(limits, at.mode) - at.elapsed), 0.0)


def throttle(limits: Limits, at: Checkpoint) -> tuple[int, int]:
    """Return the throttle (per cent) and the count of bad rounds after a round of pre-copy is over."""
    if not limits.allow_auto_converge or at.dirtied <= constants.BAD_SHARE * at.round_bytes:
        return at.throttle, at.bad_rounds
    if at.bad_rounds + 1 < constants.BAD_ROUNDS:
        return at.throttle, at.bad_rounds + 1
    if at.throttle == 0:
        return constants.FIRST_THROTTLE, 0
    return min(at.throttle + constants.THROTTLE_INCREMENT, constants.MOST_THROTTLE), 0


def _deadline(limits: Limits, mode: Mode) -> float:
    """Return when the completion timeout passes, in seconds from the start; a pause doubles it."""
    if limits.completion_timeout == 0:
        return math.inf
    return limits.completion_timeout * (2 if mode is Mode.PAUSED else 1)
