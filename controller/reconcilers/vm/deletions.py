"""Deletions of pods that are in flight: the request was sent, and no answer has come.

Guarantees: a deletion is not requested again while an earlier request may still take effect, and is requested again
after that. Bounded by the pods that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from controller.kube import errors
from controller.kube.client import REQUEST_DEADLINE
from controller.kube.kinds import Pod

DEADLINE: Final = REQUEST_DEADLINE
"""Seconds after which a request without an answer can no longer take effect."""


class PendingDeletions:
    """Requests to delete a pod that have no answer, by the pod's UID. `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # The resourceVersion in the request's precondition, and until when the request may take effect.
        self._asked: dict[str, tuple[str, float]] = {}

    def asked(self, pod: Pod) -> None:
        """Note that a request is sent that deletes this pod at this resourceVersion."""
        self._asked[pod.metadata.uid] = (pod.metadata.resource_version, self._monotonic() + DEADLINE)

    def failed(self, pod: Pod, error: errors.KubeError) -> None:
        """Note how the request failed: it stays in flight only if it was sent and not answered."""
        if not isinstance(error, errors.TransportError) or not error.sent:
            self.settled(pod)

    def settled(self, pod: Pod) -> None:
        """Note that the request is answered, or that the pod no longer exists."""
        self._asked.pop(pod.metadata.uid, None)

    def in_flight(self, pods: Iterable[Pod]) -> dict[str, float]:
        """Return the seconds for which the deletion of each of these pods may still take effect, by UID.

        A pod that has changed since the request fails its precondition, so it is not among them.
        """
        if not self._asked:
            return {}
        now = self._monotonic()
        found: dict[str, float] = {}
        for pod in pods:
            version, until = self._asked.get(pod.metadata.uid, ("", 0.0))
            if version == pod.metadata.resource_version and until > now:
                found[pod.metadata.uid] = until - now
            else:
                self.settled(pod)
        return found
