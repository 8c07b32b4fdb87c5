"""Failed creates of a VM's next pod, and which of them the VM's status reports.

Guarantees: a refusal is reported at once. Any other failure is reported when it repeats, since most pass by themselves,
and a request to retry later (429, a conflict) when it lasts for `PATIENCE`. A message that differs in its digits alone
(ports, times) is not reported again. An API server that does not answer is no failure of a create: no status could be
written either.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from controller.kube import errors

PATIENCE: Final = 10.0
"""Seconds for which the API server may ask to retry later (429, a conflict within admission) before it is reported."""
_REPEATED: Final = 2
_DIGITS: Final = re.compile(r"\d+")


class CreateFailures(msgspec.Struct):
    """The creates of a VM's next pod since the first of them was sent.

    `reported`: why there is no pod, in the API server's words; None while there is nothing to report.
    """

    failures: int = 0
    since: float = 0.0
    reported: str | None = None

    def refused(self, why: str) -> bool:
        """Count a refusal; return whether its message is new."""
        news = self.reported != why
        self.reported = why
        return news

    def failed(self, error: errors.KubeError, now: float) -> str | None:
        """Count a failure that is no refusal; return the message to report, or None if there is nothing new.

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
