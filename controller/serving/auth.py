"""Who may scrape: the API server decides, by the request's bearer token, as with controller-runtime's filter.

Guarantees: a scrape is answered only after a TokenReview said whom its token speaks for and a SubjectAccessReview that
they may `get` the path; when the API server cannot be asked, nobody may. Requests with one token share one
review, and what was decided is remembered for controller-runtime's times, in a bounded memory that holds no token.
Strangers with made-up tokens cannot make us ask the API server at more than a fixed rate. No token, nor anything made
of one, is logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

import structlog

from controller.engine.ratelimit import Bucket
from controller.kube import codec, errors
from controller.kube.kinds import UserInfo
from controller.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from controller.kube.verbs import Creator

_log = structlog.get_logger(__name__)

T = TypeVar("T")
V = TypeVar("V")

AUTHENTICATED: Final = 60.0
"""Seconds for which a token's user, or that it has none, is remembered."""
ALLOWED: Final = 300.0
"""Seconds for which a user who may scrape may go on to."""
DENIED: Final = 30.0
"""Seconds for which a user who may not scrape is not asked about again."""
REMEMBERED: Final = 1024
"""Tokens, and users, that are remembered; those of longest ago are forgotten first."""
DEADLINE: Final = 8.0
"""Seconds that both reviews may take together, below the ten in which Prometheus wants its answer."""
REVIEWS_PER_SECOND: Final = 20.0
REVIEW_BURST: Final = 30
"""The rate of controller-runtime's clients."""
LONGEST_TURN: Final = 2.0
"""Seconds that a review may wait for its turn. Beyond that, refusing at once keeps the connections free for probes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a scrape is not answered: an HTTP status, and its text."""

    status: int
    text: str


_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_NO_TOKEN: Final = Refusal(401, "Unauthorized")
_FAILED: Final = Refusal(500, "Authentication failed")
_TOO_MANY: Final = Refusal(429, "Too many unknown tokens")


def bearer(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; None if there is none, or what is no token (RFC 6750)."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token if scheme.lower() == "bearer" and _TOKEN.fullmatch(token) else None


class Memory(Generic[V]):
    """What was decided, for a time, by the digest of what it was decided about."""

    def __init__(self, clock: Callable[[], float], size: int = REMEMBERED) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, tuple[V, float]] = OrderedDict()
        self._deciding: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        """Return how much is remembered."""
        return len(self._entries)

    async def recall(self, key: bytes, decide: Callable[[], Awaitable[V]], life: Callable[[V], float]) -> V:
        """Return what was decided, or decide and remember it for `life` seconds; others who ask meanwhile wait for it.

        What raises is not remembered: who waited decides anew.
        """
        lock = self._deciding.setdefault(key, asyncio.Lock())
        async with lock:
            value, ends = self._entries.get(key, (None, float("-inf")))
            if value is None or self._clock() >= ends:
                value = await decide()
                self._entries[key] = value, self._clock() + life(value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
            return value


@dataclass(frozen=True, slots=True)
class _Speaker:
    """Whom a token speaks for; None for one that is not, or no longer, valid."""

    user: UserInfo | None


class _TooManyError(Exception):
    """There is no turn for a review in time."""


class ScrapeGuard:
    """Decides about scrapes of a path. `secret` is random, of this process alone: no digest can be compared."""

    def __init__(self, reviews: Creator, path: str, *, secret: bytes, clock: Callable[[], float]) -> None:
        self._reviews = reviews
        self._path = path
        self._secret = secret
        self._bucket = Bucket(clock, rate=REVIEWS_PER_SECOND, burst=REVIEW_BURST)
        self._speakers: Memory[_Speaker] = Memory(clock)
        self._allowed: Memory[bool] = Memory(clock)
        self._told: str | None = None

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Return why a request with this Authorization header is not answered; None if it is."""
        token = bearer(authorization)
        if token is None:
            return _NO_TOKEN
        try:
            async with asyncio.timeout(DEADLINE):
                user = (await self._speaker(token)).user
                if user is None:
                    return _NO_TOKEN
                allowed = await self._may_scrape(user)
        except _TooManyError:
            return _TOO_MANY
        except (errors.KubeError, TimeoutError) as error:
            self._tell(error)
            return _FAILED
        self._told = None
        return None if allowed else Refusal(403, f"Authorization denied for user {user.username}")

    async def _speaker(self, token: str) -> _Speaker:
        async def review() -> _Speaker:
            status = (await self._ask(TOKEN_REVIEWS, "TokenReview", {"token": token})).status
            return _Speaker(status.user if status.authenticated else None)

        return await self._speakers.recall(self._digest(token.encode()), review, lambda _: AUTHENTICATED)

    async def _may_scrape(self, user: UserInfo) -> bool:
        question = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": {"path": self._path, "verb": "get"},
        }

        async def review() -> bool:
            status = (await self._ask(SUBJECT_ACCESS_REVIEWS, "SubjectAccessReview", question)).status
            return status.allowed and not status.denied

        life = {True: ALLOWED, False: DENIED}
        return await self._allowed.recall(self._digest(codec.encode(question)), review, life.__getitem__)

    async def _ask(self, resource: Resource[T], kind: str, spec: Mapping[str, Any]) -> T:
        delay = self._bucket.reserve_within(LONGEST_TURN)
        if delay is None:
            raise _TooManyError
        await asyncio.sleep(delay)
        body = {"apiVersion": f"{resource.group}/{resource.version}", "kind": kind, "spec": spec}
        return await self._reviews.create(resource, body, server_deadline=DEADLINE)

    def _digest(self, about: bytes) -> bytes:
        return hmac.digest(self._secret, about, hashlib.sha256)

    def _tell(self, error: Exception) -> None:
        """Log what is wrong, once until it changes: scrapes come again and again."""
        if isinstance(error, errors.MalformedReplyError):
            why = "its reply is no review"  # the error quotes the reply, and a review repeats its token
        elif isinstance(error, errors.ForbiddenError):
            why = f"{error.message}; docs/security.md shows the role that is needed"
        elif isinstance(error, TimeoutError):
            why = f"no answer within {DEADLINE:g} s"
        else:
            why = str(error)
        if why != self._told:
            self._told = why
            _log.warning("scrapes are refused: the API server cannot be asked who may scrape", error=why)
