"""Scrapes are authorized by the API server with few reviews, and no token is stored or logged."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest
from structlog.testing import capture_logs

from controller.engine.ratelimit import Bucket
from controller.kube import codec, errors
from controller.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from controller.serving.auth import CACHE_SIZE, DEADLINE, DecisionCache, Refusal, ScrapeGuard, bearer
from tests.model import server
from tests.model.rules import Document

pytestmark = pytest.mark.looptime

T = TypeVar("T")

NOBODY = Refusal(401, "Unauthorized")
FAILED = Refusal(500, "Authentication failed")
TOO_MANY = Refusal(429, "Too many unknown tokens")


def denied(user: str) -> Refusal:
    """Return the refusal of a user who is not allowed to scrape."""
    return Refusal(403, f"Authorization denied for user {user}")


@dataclass(repr=False)
class ApiServer(server.ApiServer):
    """An API server with some tokens and allowed users, which records the reviews it gets."""

    users: dict[str, str] = field(default_factory=lambda: {"good": "prometheus", "other": "alice"})
    allowed: set[str] = field(default_factory=lambda: {"prometheus"})
    denied: set[str] = field(default_factory=set)
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    slowness: float = 0.0

    def __post_init__(self) -> None:
        """Answer reviews."""
        self.reviews = {TOKEN_REVIEWS.plural: self.token_status, SUBJECT_ACCESS_REVIEWS.plural: self.access_status}

    async def create(self, resource: Resource[T], body: Mapping[str, Any], **options: Any) -> T:
        """Answer as the API server does, whose reply repeats the spec."""
        assert options.pop("server_deadline") <= DEADLINE
        assert options == {}
        body = msgspec.json.decode(codec.encode(body))
        self.asked.append(body)
        assert (body["apiVersion"], body["kind"]) in {
            ("authentication.k8s.io/v1", "TokenReview"),
            ("authorization.k8s.io/v1", "SubjectAccessReview"),
        }
        return await super().create(resource, body, server_deadline=DEADLINE)

    async def _arrive(self, method: str, plural: str, name: str) -> None:
        await super()._arrive(method, plural, name)
        await asyncio.sleep(self.slowness)
        if self.error is not None:
            raise self.error

    def token_status(self, spec: Document) -> Document:
        """Return the status of a TokenReview."""
        user = self.users.get(spec["token"])
        if user is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        extra = {"authentication.kubernetes.io/credential-id": ["JTI=1"]}
        info = {"username": user, "uid": f"uid-{user}", "groups": ["system:authenticated"], "extra": extra}
        return {"authenticated": True, "user": info, "audiences": ["https://kubernetes.default.svc"]}

    def access_status(self, spec: Document) -> Document:
        """Return the status of a SubjectAccessReview."""
        status: dict[str, Any] = {"allowed": spec["user"] in self.allowed}
        return status | ({"denied": True} if spec["user"] in self.denied else {})

    def count(self, resource: Resource[Any]) -> int:
        """Return the number of reviews of one kind."""
        kind = {TOKEN_REVIEWS.plural: "TokenReview", SUBJECT_ACCESS_REVIEWS.plural: "SubjectAccessReview"}
        return sum(body["kind"] == kind[resource.plural] for body in self.asked)


def guard(api: ApiServer) -> ScrapeGuard:
    """Return a guard with the test's clock."""
    return ScrapeGuard(api, "/metrics", secret=b"secret", clock=asyncio.get_running_loop().time)


# --- decisions -------------------------------------------------------------------------------------------------


async def test_a_user_who_may_get_the_path_is_allowed() -> None:
    """A valid token of an allowed user is not refused."""
    assert await guard(ApiServer()).refusal("Bearer good") is None


async def test_the_access_review_has_the_user_of_the_token_review() -> None:
    """Groups and extra are included, since an authorizer may use them."""
    api = ApiServer()
    await guard(api).refusal("Bearer good")
    assert [body["spec"] for body in api.asked] == [
        {"token": "good"},
        {
            "user": "prometheus",
            "uid": "uid-prometheus",
            "groups": ["system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        },
    ]


async def test_a_denied_user_gets_403_with_its_name() -> None:
    """The name is the one that needs the role."""
    assert await guard(ApiServer()).refusal("Bearer other") == denied("alice")


async def test_denied_overrides_allowed() -> None:
    """Two authorizers may disagree."""
    api = ApiServer()
    api.denied = {"prometheus"}
    assert await guard(api).refusal("Bearer good") == denied("prometheus")


async def test_an_invalid_token_gets_401() -> None:
    """No access review is made."""
    api = ApiServer()
    assert await guard(api).refusal("Bearer forged") == NOBODY
    assert api.count(SUBJECT_ACCESS_REVIEWS) == 0


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic good", "good", "Bearer a b", "Bearer gü", "Bearer \udcff", "Bearer a\nb"],
)
async def test_a_header_without_a_token_gets_401_without_a_review(header: str | None) -> None:
    """A malformed token counts as none."""
    api = ApiServer()
    assert await guard(api).refusal(header) == NOBODY
    assert api.asked == []


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", " BEARER good "])
def test_the_scheme_is_case_insensitive(header: str) -> None:
    """As in RFC 9110."""
    assert bearer(header) == "good"


def test_a_service_account_token_is_a_bearer_token() -> None:
    """It has three parts in URL-safe Base64, perhaps padded."""
    assert bearer("Bearer eyJhbGci.eyJhdWQi.Mz_-A==") == "eyJhbGci.eyJhdWQi.Mz_-A=="


# --- failures of reviews ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportError("POST /x: connection refused"),
        errors.ForbiddenError(403, "Forbidden", "tokenreviews is forbidden"),
        errors.ServerError(500, "InternalError", "oops"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_scrapes_are_refused_while_reviews_fail(error: errors.KubeError) -> None:
    """An error is not cached: the first review after the outage counts."""
    api = ApiServer()
    api.error = error
    subject = guard(api)
    assert await subject.refusal("Bearer good") == FAILED
    api.error = None
    assert await subject.refusal("Bearer good") is None


async def test_a_review_ends_at_the_deadline_when_the_api_server_hangs() -> None:
    """The deadline is below Prometheus' default scrape timeout of 10 s."""
    api = ApiServer()
    api.slowness = 3600
    assert await guard(api).refusal("Bearer good") == FAILED
    assert asyncio.get_running_loop().time() == DEADLINE < 10


async def test_an_outage_is_logged_once_and_the_next_one_again() -> None:
    """Further scrapes in one outage log nothing."""
    api = ApiServer()
    subject = guard(api)
    with capture_logs() as logs:
        for error in (errors.TransportError("connection refused"), None, errors.TransportError("connection refused")):
            api.error = error
            await subject.refusal("Bearer good")
            await subject.refusal("Bearer other")
            await asyncio.sleep(301)  # every cache entry has expired
    assert [(line["log_level"], line["error"]) for line in logs] == [("warning", "connection refused")] * 2


async def test_a_missing_permission_is_logged_with_the_page_that_has_the_role() -> None:
    """A missing role is the usual mistake."""
    api = ApiServer()
    api.error = errors.ForbiddenError(403, "Forbidden", "tokenreviews is forbidden")
    with capture_logs() as logs:
        await guard(api).refusal("Bearer good")
    assert logs[0]["error"] == "tokenreviews is forbidden; docs/security.md has the role that it needs"


# --- the cache -------------------------------------------------------------------------------------------------


async def test_a_minute_of_scrapes_costs_two_reviews() -> None:
    """One TokenReview and one SubjectAccessReview."""
    api = ApiServer()
    subject = guard(api)
    for _ in range(59):
        assert await subject.refusal("Bearer good") is None
        await asyncio.sleep(1)
    assert len(api.asked) == 2


async def test_a_revoked_token_is_refused_after_a_minute() -> None:
    """A TokenReview is cached for 60 s."""
    api = ApiServer()
    subject = guard(api)
    await subject.refusal("Bearer good")
    del api.users["good"]
    await asyncio.sleep(59)
    assert await subject.refusal("Bearer good") is None
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer good") == NOBODY


async def test_a_revoked_permission_is_refused_after_five_minutes() -> None:
    """Using the cached decision does not extend it."""
    api = ApiServer()
    subject = guard(api)
    await subject.refusal("Bearer good")
    api.allowed.clear()
    for _ in range(29):
        await asyncio.sleep(10)
        assert await subject.refusal("Bearer good") is None
    await asyncio.sleep(11)
    assert await subject.refusal("Bearer good") == denied("prometheus")


async def test_a_new_permission_counts_after_half_a_minute() -> None:
    """A denial is cached for 30 s."""
    api = ApiServer()
    subject = guard(api)
    await subject.refusal("Bearer other")
    api.allowed.add("alice")
    await asyncio.sleep(29)
    assert await subject.refusal("Bearer other") == denied("alice")
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer other") is None


async def test_an_invalid_token_is_reviewed_once_a_minute() -> None:
    """A scraper with an old token retries."""
    api = ApiServer()
    subject = guard(api)
    for _ in range(50):
        assert await subject.refusal("Bearer forged") == NOBODY
        await asyncio.sleep(1)
    assert len(api.asked) == 1


async def test_concurrent_requests_with_one_token_share_the_reviews() -> None:
    """Requests with another token have reviews of their own."""
    api = ApiServer()
    api.slowness = 0.5
    subject = guard(api)
    answers = await asyncio.gather(*(subject.refusal(f"Bearer {token}") for token in ["good"] * 20 + ["other"] * 20))
    assert answers == [None] * 20 + [denied("alice")] * 20
    assert (api.count(TOKEN_REVIEWS), api.count(SUBJECT_ACCESS_REVIEWS)) == (2, 2)


async def test_a_cancelled_request_does_not_fail_those_that_wait_for_its_review() -> None:
    """The next one makes the review."""
    api = ApiServer()
    api.slowness = 0.5
    subject = guard(api)
    first, second = (asyncio.create_task(subject.refusal("Bearer good")) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second is None


async def test_the_cache_evicts_the_least_recently_used_entry() -> None:
    """At its size."""
    cache: DecisionCache[int] = DecisionCache(asyncio.get_running_loop().time, size=3)
    decided: list[int] = []

    async def get(number: int) -> int:
        async def decide() -> int:
            decided.append(number)
            return number

        return await cache.get(bytes([number]), decide, lambda _: 60)

    for number in (1, 2, 3, 1, 4, 1, 2):
        assert await get(number) == number
    assert len(cache) == 3
    assert decided == [1, 2, 3, 4, 2]


async def test_invalid_tokens_cannot_cause_reviews_above_the_rate() -> None:
    """Excess requests get 429 at once; cached tokens are unaffected, and new ones are reviewed again soon."""
    api = ApiServer()
    subject = guard(api)
    assert await subject.refusal("Bearer good") is None

    flood = await asyncio.gather(*(subject.refusal(f"Bearer forged{number}") for number in range(5 * CACHE_SIZE)))

    assert {*flood} == {NOBODY, TOO_MANY}
    assert 60 <= api.count(TOKEN_REVIEWS) <= 75, "a burst of 30 and 20 a second, for two seconds"
    assert await subject.refusal("Bearer good") is None
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer other") == denied("alice")


async def test_locks_of_finished_reviews_are_freed() -> None:
    """Locks are kept by weak references only."""
    api = ApiServer()
    subject = guard(api)
    await asyncio.gather(*(subject.refusal(f"Bearer forged{number}") for number in range(20)))
    gc.collect()
    assert len(subject._users._deciding) == 0


@pytest.mark.parametrize(("asked", "delays"), [(4, [0, 0, 0, 0.5]), (7, [0, 0, 0, 0.5, 1.0, None, None])])
def test_a_refused_reservation_takes_no_token(asked: int, delays: list[float | None]) -> None:
    """A reservation beyond the longest wait is not made."""
    now = 0.0
    bucket = Bucket(lambda: now, rate=2, burst=3)
    assert [bucket.reserve_within(1) for _ in range(asked)] == delays
    now = 10.0
    assert [bucket.reserve_within(1) for _ in range(asked)] == delays


# --- secrecy of tokens -----------------------------------------------------------------------------------------


async def test_no_token_is_stored_or_logged() -> None:
    """Not in caches, responses or logs, even when a malformed reply quotes it."""
    token = "eyJhbGciOiJSUzI1NiJ9.secret.signature"  # noqa: S105 - that is the point
    api = ApiServer()
    subject = guard(api)
    told: list[object] = []
    with capture_logs() as logs:
        told.append(await subject.refusal(f"Bearer {token}"))
        api.error = errors.MalformedReplyError(f'expected TokenReview, got \'{{"spec":{{"token":"{token}\'')
        told.append(await subject.refusal(f"Bearer {token}2"))
    assert told == [NOBODY, FAILED]
    assert [line["error"] for line in logs] == ["its reply is not a review"]
    kept = [*subject._users._entries, *vars(subject).values()]
    assert token not in repr(told) + repr(logs) + repr(kept)


async def test_cache_keys_of_two_processes_differ() -> None:
    """The secret is random in each process."""
    one, two = (
        ScrapeGuard(ApiServer(), "/metrics", secret=b"1", clock=lambda: 0),
        ScrapeGuard(ApiServer(), "/metrics", secret=b"2", clock=lambda: 0),
    )
    for subject in (one, two):
        await subject.refusal("Bearer good")
    assert not one._users._entries.keys() & two._users._entries.keys()
