"""What became of the creates of pods that are not there yet: why they failed, for the VM's status.

Guarantees: a refusal is news at once; any other failure only when it repeats, since most of those pass by themselves,
and one that asks for patience only when it lasts; what differs in its digits alone (ports, times) is no news. That the
API server does not answer is no failure of a create, and could not be told there. Bounded by the VMs that wait for a
pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.kube import errors

PATIENCE: Final = 10.0
"""Seconds for which the API server may ask for patience (429, a conflict within admission) before that is told."""
_REPEATED: Final = 2
_DIGITS: Final = re.compile(r"\d+")


@dataclass(slots=True)
class _Tries:
    """The creates of one VM's next pod since the first of them was sent."""

    failures: int = 0
    since: float = 0.0
    told: str | None = None


class Tries:
    """VMs for which a create was sent that has not succeeded, by key."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._of: dict[str, _Tries] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._of

    def sent(self, key: str) -> None:
        """Note that a create is sent."""
        self._of.setdefault(key, _Tries())

    def why(self, key: str) -> str | None:
        """Return why there is no pod, in the API server's words, if that is to be told."""
        tries = self._of.get(key)
        return tries.told if tries is not None else None

    def refused(self, key: str, why: str) -> bool:
        """Note that a create was refused; return whether that is news."""
        tries = self._of[key]
        news = tries.told != why
        tries.told = why
        return news

    def failed(self, key: str, error: errors.KubeError) -> str | None:
        """Note that a create failed for another reason than a refusal; return what is news about that, if anything."""
        if not isinstance(error, errors.StatusError | errors.MalformedReplyError):
            return None
        tries, now = self._of[key], self._monotonic()
        if not tries.failures:
            tries.since = now
        tries.failures += 1
        passing = isinstance(error, errors.TooManyRequestsError | errors.ConflictError)
        if tries.failures < _REPEATED or (passing and now - tries.since < PATIENCE):
            return None
        why = error.message if isinstance(error, errors.StatusError) else str(error)
        if tries.told is not None and _DIGITS.sub("", tries.told) == _DIGITS.sub("", why):
            return None
        tries.told = why
        return why

    def moot(self, key: str) -> None:
        """Forget why earlier creates failed: no pod is to be made now."""
        if key in self._of:
            self._of[key] = _Tries()

    def forget(self, key: str) -> None:
        """Forget a VM whose pod is there, or that is gone."""
        self._of.pop(key, None)
