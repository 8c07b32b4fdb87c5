"""Deletions of pods that may be under way although no cache shows them: no answer has come to the request.

Guarantees: such a deletion is not asked for again while that request may still take effect, and is once it cannot any
more; bounded by the pods that exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from controller.kube import errors
from controller.kube.client import REQUEST_DEADLINE
from controller.kube.kinds import Pod

DEADLINE: Final = REQUEST_DEADLINE
"""Seconds after which a request that was not answered is over."""


class PendingDeletions:
    """Requests to delete a pod that have no answer, by the pod's UID."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # The version that the request insists on, and until when it may take effect.
        self._asked: dict[str, tuple[str, float]] = {}

    def asked(self, pod: Pod) -> None:
        """Note that a request is sent that deletes this pod in this very state."""
        self._asked[pod.metadata.uid] = (pod.metadata.resource_version, self._monotonic() + DEADLINE)

    def failed(self, pod: Pod, error: errors.KubeError) -> None:
        """Note how the request ended: only one that was sent and not answered may still be under way."""
        if not isinstance(error, errors.TransportError) or not error.sent:
            self.over(pod)

    def over(self, pod: Pod) -> None:
        """Note that the request is answered, or that the pod is gone."""
        self._asked.pop(pod.metadata.uid, None)

    def in_flight(self, pods: Iterable[Pod]) -> dict[str, float]:
        """Return for how long (seconds) the deletion of each of these pods may be under way unseen, by UID.

        A pod that has changed since is in no state that the request would delete.
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
                self.over(pod)
        return found
