"""Delegated authentication and authorization of scrapes, as in controller-runtime's metrics filter.

Guarantees: a scrape is served only after a TokenReview has identified its token's user and a SubjectAccessReview has
allowed this user to `get` the path; every scrape is refused while the API server cannot be reached. Concurrent requests
with the same token share one review. Decisions are cached for controller-runtime's times, in a bounded cache without
tokens. Clients that send invalid tokens cannot cause reviews above a fixed rate. Neither a token nor anything derived
from it is logged.
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
"""Seconds for which the result of a TokenReview is cached."""
ALLOWED: Final = 300.0
"""Seconds for which a SubjectAccessReview that allows a user is cached."""
DENIED: Final = 30.0
"""Seconds for which a SubjectAccessReview that denies a user is cached."""
CACHE_SIZE: Final = 1024
"""Entries per cache, of tokens and of users; the least recently used entry is evicted first."""
DEADLINE: Final = 8.0
"""Seconds that both reviews may take together, below Prometheus' scrape timeout of 10 s."""
REVIEWS_PER_SECOND: Final = 20.0
REVIEW_BURST: Final = 30
"""QPS and burst of reviews: the defaults of controller-runtime's client."""
LONGEST_WAIT: Final = 2.0
"""Seconds that the rate limit may delay a review. A longer wait is refused at once, so that connections stay free for
probes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a refused scrape: an HTTP status and its text."""

    status: int
    text: str


_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_NO_TOKEN: Final = Refusal(401, "Unauthorized")
_FAILED: Final = Refusal(500, "Authentication failed")
_TOO_MANY: Final = Refusal(429, "Too many unknown tokens")


def bearer(authorization: str | None) -> str | None:
    """Return the bearer token of an Authorization header; None without a well-formed one (RFC 6750)."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token if scheme.lower() == "bearer" and _TOKEN.fullmatch(token) else None


class DecisionCache(Generic[V]):
    """An LRU cache of decisions with a time to live each, keyed by the digest of the decision's subject."""

    def __init__(self, clock: Callable[[], float], size: int = CACHE_SIZE) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, tuple[V, float]] = OrderedDict()
        self._deciding: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        """Return the number of entries, expired ones included."""
        return len(self._entries)

    async def get(self, key: bytes, decide: Callable[[], Awaitable[V]], ttl: Callable[[V], float]) -> V:
        """Return the cached decision, or call `decide` and cache its result for `ttl` seconds.

        Concurrent callers with one key share one call. An error is not cached: the next waiting caller decides anew.
        """
        lock = self._deciding.setdefault(key, asyncio.Lock())
        async with lock:
            value, ends = self._entries.get(key, (None, float("-inf")))
            if value is None or self._clock() >= ends:
                value = await decide()
                self._entries[key] = value, self._clock() + ttl(value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
            return value


@dataclass(frozen=True, slots=True)
class _Authenticated:
    """The result of a TokenReview; `user` is None for a token that is invalid or expired."""

    user: UserInfo | None


class _TooManyError(Exception):
    """The rate limit would delay a review for more than LONGEST_WAIT."""


class ScrapeGuard:
    """Authorizes scrapes of one path. `secret` keys the digests; it is random and never leaves this process."""

    def __init__(self, reviews: Creator, path: str, *, secret: bytes, clock: Callable[[], float]) -> None:
        self._reviews = reviews
        self._path = path
        self._secret = secret
        self._bucket = Bucket(clock, rate=REVIEWS_PER_SECOND, burst=REVIEW_BURST)
        self._users: DecisionCache[_Authenticated] = DecisionCache(clock)
        self._allowed: DecisionCache[bool] = DecisionCache(clock)
        self._logged: str | None = None

    async def refusal(self, authorization: str | None) -> Refusal | None:
        """Return the refusal of a request with this Authorization header; None if the request is allowed."""
        token = bearer(authorization)
        if token is None:
            return _NO_TOKEN
        try:
            async with asyncio.timeout(DEADLINE):
                user = (await self._authenticate(token)).user
                if user is None:
                    return _NO_TOKEN
                allowed = await self._authorize(user)
        except _TooManyError:
            return _TOO_MANY
        except (errors.KubeError, TimeoutError) as error:
            self._log_failure(error)
            return _FAILED
        self._logged = None
        return None if allowed else Refusal(403, f"Authorization denied for user {user.username}")

    async def _authenticate(self, token: str) -> _Authenticated:
        async def review() -> _Authenticated:
            status = (await self._review(TOKEN_REVIEWS, "TokenReview", {"token": token})).status
            return _Authenticated(status.user if status.authenticated else None)

        return await self._users.get(self._digest(token.encode()), review, lambda _: AUTHENTICATED)

    async def _authorize(self, user: UserInfo) -> bool:
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": {"path": self._path, "verb": "get"},
        }

        async def review() -> bool:
            status = (await self._review(SUBJECT_ACCESS_REVIEWS, "SubjectAccessReview", spec)).status
            return status.allowed and not status.denied

        ttl = {True: ALLOWED, False: DENIED}
        return await self._allowed.get(self._digest(codec.encode(spec)), review, ttl.__getitem__)

    async def _review(self, resource: Resource[T], kind: str, spec: Mapping[str, Any]) -> T:
        delay = self._bucket.reserve_within(LONGEST_WAIT)
        if delay is None:
            raise _TooManyError
        await asyncio.sleep(delay)
        body = {"apiVersion": f"{resource.group}/{resource.version}", "kind": kind, "spec": spec}
        return await self._reviews.create(resource, body, server_deadline=DEADLINE)

    def _digest(self, subject: bytes) -> bytes:
        return hmac.digest(self._secret, subject, hashlib.sha256)

    def _log_failure(self, error: Exception) -> None:
        """Log why reviews fail, once per reason: every scrape would repeat it."""
        if isinstance(error, errors.MalformedReplyError):
            why = "its reply is not a review"  # the error quotes the reply, and a review contains the token
        elif isinstance(error, errors.ForbiddenError):
            why = f"{error.message}; docs/security.md has the role that it needs"
        elif isinstance(error, TimeoutError):
            why = f"no answer within {DEADLINE:g} s"
        else:
            why = str(error)
        if why != self._logged:
            self._logged = why
            _log.warning("scrapes are refused: the API server cannot be asked who may scrape", error=why)
