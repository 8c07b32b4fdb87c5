"""What became of the creates of a pod that is not there yet: why they failed, for the VM's status.

Guarantees: a refusal is news at once; any other failure only when it repeats, since most of those pass by themselves,
and one that asks for patience only when it lasts; what differs in its digits alone (ports, times) is no news. That the
API server does not answer is no failure of a create, and could not be told there.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from controller.kube import errors

PATIENCE: Final = 10.0
"""Seconds for which the API server may ask for patience (429, a conflict within admission) before that is told."""
_REPEATED: Final = 2
_DIGITS: Final = re.compile(r"\d+")


class CreateFailures(msgspec.Struct):
    """The creates of a VM's next pod since the first of them was sent.

    `reported`: why there is no pod, in the API server's words, if that is to be told.
    """

    failures: int = 0
    since: float = 0.0
    reported: str | None = None

    def refused(self, why: str) -> bool:
        """Note that a create was refused; return whether that is news."""
        news = self.reported != why
        self.reported = why
        return news

    def failed(self, error: errors.KubeError, now: float) -> str | None:
        """Note that a create failed for another reason than a refusal; return what is news about that, if anything.

        `now` is monotonic, in seconds.
        """
        if not isinstance(error, errors.StatusError | errors.MalformedReplyError):
            return None
        if not self.failures:
            self.since = now
        self.failures += 1
        passing = isinstance(error, errors.TooManyRequestsError | errors.ConflictError)
        if self.failures < _REPEATED or (passing and now - self.since < PATIENCE):
            return None
        why = error.message if isinstance(error, errors.StatusError) else str(error)
        if self.reported is not None and _DIGITS.sub("", self.reported) == _DIGITS.sub("", why):
            return None
        self.reported = why
        return why
