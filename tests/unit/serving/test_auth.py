"""The API server decides who may scrape, is asked as seldom as can be, and no token is kept or told."""

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
    """Return what a user is told who may not scrape."""
    return Refusal(403, f"Authorization denied for user {user}")


@dataclass(repr=False)
class ApiServer(server.ApiServer):
    """Knows tokens and who may scrape, and writes down what it was asked."""

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
        """Answer as the API server does, whose reply repeats the question."""
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
        """Say whose a token is."""
        user = self.users.get(spec["token"])
        if user is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        extra = {"authentication.kubernetes.io/credential-id": ["JTI=1"]}
        info = {"username": user, "uid": f"uid-{user}", "groups": ["system:authenticated"], "extra": extra}
        return {"authenticated": True, "user": info, "audiences": ["https://kubernetes.default.svc"]}

    def access_status(self, spec: Document) -> Document:
        """Say whether a user may scrape."""
        status: dict[str, Any] = {"allowed": spec["user"] in self.allowed}
        return status | ({"denied": True} if spec["user"] in self.denied else {})

    def count(self, resource: Resource[Any]) -> int:
        """Return how often it was asked for one kind of review."""
        kind = {TOKEN_REVIEWS.plural: "TokenReview", SUBJECT_ACCESS_REVIEWS.plural: "SubjectAccessReview"}
        return sum(body["kind"] == kind[resource.plural] for body in self.asked)


def guard(api: ApiServer) -> ScrapeGuard:
    """Return a guard on the test's clock."""
    return ScrapeGuard(api, "/metrics", secret=b"secret", clock=asyncio.get_running_loop().time)


# --- who may ---------------------------------------------------------------------------------------------------


async def test_who_may_get_metrics_may_scrape() -> None:
    """There is nothing against it."""
    assert await guard(ApiServer()).refusal("Bearer good") is None


async def test_the_api_server_is_asked_about_the_user_it_named() -> None:
    """With all it said of them: an authorizer may look at groups and extras."""
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


async def test_who_may_not_is_told_so() -> None:
    """With the name that needs the role."""
    assert await guard(ApiServer()).refusal("Bearer other") == denied("alice")


async def test_a_denial_beats_a_permission() -> None:
    """Of two authorizers, say."""
    api = ApiServer()
    api.denied = {"prometheus"}
    assert await guard(api).refusal("Bearer good") == denied("prometheus")


async def test_an_invalid_token_is_no_token() -> None:
    """The API server says so; nobody is asked about any user."""
    api = ApiServer()
    assert await guard(api).refusal("Bearer forged") == NOBODY
    assert api.count(SUBJECT_ACCESS_REVIEWS) == 0


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic good", "good", "Bearer a b", "Bearer gü", "Bearer \udcff", "Bearer a\nb"],
)
async def test_without_a_token_nobody_is_asked(header: str | None) -> None:
    """What cannot be a token is none."""
    api = ApiServer()
    assert await guard(api).refusal(header) == NOBODY
    assert api.asked == []


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", " BEARER good "])
def test_the_scheme_s_case_does_not_matter(header: str) -> None:
    """As for any scheme of HTTP."""
    assert bearer(header) == "good"


def test_a_token_of_a_service_account_is_one() -> None:
    """Three parts in URL-safe Base64, which may be padded."""
    assert bearer("Bearer eyJhbGci.eyJhdWQi.Mz_-A==") == "eyJhbGci.eyJhdWQi.Mz_-A=="


# --- when nobody can say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportError("POST /x: connection refused"),
        errors.ForbiddenError(403, "Forbidden", "tokenreviews is forbidden"),
        errors.ServerError(500, "InternalError", "oops"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_when_the_api_server_cannot_be_asked_nobody_may(error: errors.KubeError) -> None:
    """And as soon as it can be, what it says counts: a failure is not remembered."""
    api = ApiServer()
    api.error = error
    subject = guard(api)
    assert await subject.refusal("Bearer good") == FAILED
    api.error = None
    assert await subject.refusal("Bearer good") is None


async def test_an_api_server_that_hangs_is_not_waited_for_longer_than_a_scrape_lasts() -> None:
    """Prometheus gives up after ten seconds by default, and would not hear why."""
    api = ApiServer()
    api.slowness = 3600
    assert await guard(api).refusal("Bearer good") == FAILED
    assert asyncio.get_running_loop().time() == DEADLINE < 10


async def test_an_outage_is_logged_once_and_again_after_it_ended() -> None:
    """Not with each scrape."""
    api = ApiServer()
    subject = guard(api)
    with capture_logs() as logs:
        for error in (errors.TransportError("connection refused"), None, errors.TransportError("connection refused")):
            api.error = error
            await subject.refusal("Bearer good")
            await subject.refusal("Bearer other")
            await asyncio.sleep(301)  # nothing is remembered any more
    assert [(line["log_level"], line["error"]) for line in logs] == [("warning", "connection refused")] * 2


async def test_a_missing_permission_says_where_to_read_on() -> None:
    """It is the usual mistake."""
    api = ApiServer()
    api.error = errors.ForbiddenError(403, "Forbidden", "tokenreviews is forbidden")
    with capture_logs() as logs:
        await guard(api).refusal("Bearer good")
    assert logs[0]["error"] == "tokenreviews is forbidden; docs/security.md has the role that it needs"


# --- what is remembered ----------------------------------------------------------------------------------------


async def test_a_minute_of_scrapes_costs_two_reviews() -> None:
    """One of each kind."""
    api = ApiServer()
    subject = guard(api)
    for _ in range(59):
        assert await subject.refusal("Bearer good") is None
        await asyncio.sleep(1)
    assert len(api.asked) == 2


async def test_a_revoked_token_is_refused_after_a_minute() -> None:
    """Not sooner, and not later."""
    api = ApiServer()
    subject = guard(api)
    await subject.refusal("Bearer good")
    del api.users["good"]
    await asyncio.sleep(59)
    assert await subject.refusal("Bearer good") is None
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer good") == NOBODY


async def test_a_revoked_permission_is_gone_after_five_minutes() -> None:
    """Not sooner, and not later, however often it was used meanwhile."""
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
    """Whoever was refused is not asked about again before."""
    api = ApiServer()
    subject = guard(api)
    await subject.refusal("Bearer other")
    api.allowed.add("alice")
    await asyncio.sleep(29)
    assert await subject.refusal("Bearer other") == denied("alice")
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer other") is None


async def test_an_invalid_token_is_not_asked_about_again_within_a_minute() -> None:
    """A scraper with an old token tries again and again."""
    api = ApiServer()
    subject = guard(api)
    for _ in range(50):
        assert await subject.refusal("Bearer forged") == NOBODY
        await asyncio.sleep(1)
    assert len(api.asked) == 1


async def test_requests_at_once_share_the_reviews() -> None:
    """Those of one token; another's are its own."""
    api = ApiServer()
    api.slowness = 0.5
    subject = guard(api)
    answers = await asyncio.gather(*(subject.refusal(f"Bearer {token}") for token in ["good"] * 20 + ["other"] * 20))
    assert answers == [None] * 20 + [denied("alice")] * 20
    assert (api.count(TOKEN_REVIEWS), api.count(SUBJECT_ACCESS_REVIEWS)) == (2, 2)


async def test_a_request_that_is_given_up_takes_no_other_with_it() -> None:
    """Those that wait for its review get one all the same."""
    api = ApiServer()
    api.slowness = 0.5
    subject = guard(api)
    first, second = (asyncio.create_task(subject.refusal("Bearer good")) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second is None


async def test_memory_is_bounded() -> None:
    """What was used longest ago is forgotten."""
    cache: DecisionCache[int] = DecisionCache(asyncio.get_running_loop().time, size=3)
    decided: list[int] = []

    async def recall(number: int) -> int:
        async def decide() -> int:
            decided.append(number)
            return number

        return await cache.get(bytes([number]), decide, lambda _: 60)

    for number in (1, 2, 3, 1, 4, 1, 2):
        assert await recall(number) == number
    assert len(cache) == 3
    assert decided == [1, 2, 3, 4, 2]


async def test_made_up_tokens_fill_no_memory_and_ask_at_a_bounded_rate() -> None:
    """Those beyond it are refused at once; who is known is not affected; and soon after, anybody is heard again."""
    api = ApiServer()
    subject = guard(api)
    assert await subject.refusal("Bearer good") is None

    flood = await asyncio.gather(*(subject.refusal(f"Bearer forged{number}") for number in range(5 * CACHE_SIZE)))

    assert {*flood} == {NOBODY, TOO_MANY}
    assert 60 <= api.count(TOKEN_REVIEWS) <= 75, "a burst of 30 and 20 a second, for two seconds"
    assert await subject.refusal("Bearer good") is None
    await asyncio.sleep(2)
    assert await subject.refusal("Bearer other") == denied("alice")


async def test_nothing_that_waits_is_left_behind() -> None:
    """The locks that made requests wait go with them."""
    api = ApiServer()
    subject = guard(api)
    await asyncio.gather(*(subject.refusal(f"Bearer forged{number}") for number in range(20)))
    gc.collect()
    assert len(subject._users._deciding) == 0


@pytest.mark.parametrize(("asked", "delays"), [(4, [0, 0, 0, 0.5]), (7, [0, 0, 0, 0.5, 1.0, None, None])])
def test_a_pace_has_a_burst_and_no_debt(asked: int, delays: list[float | None]) -> None:
    """Turns that are too far away are not given, and so not owed."""
    now = 0.0
    bucket = Bucket(lambda: now, rate=2, burst=3)
    assert [bucket.reserve_within(1) for _ in range(asked)] == delays
    now = 10.0
    assert [bucket.reserve_within(1) for _ in range(asked)] == delays


# --- what must not be told -------------------------------------------------------------------------------------


async def test_no_token_is_kept_or_told() -> None:
    """Neither in memory, nor in answers, nor in logs: not even when the API server's odd reply quotes it."""
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


async def test_what_is_remembered_by_means_nothing_in_another_process() -> None:
    """Its key is random there."""
    one, two = (
        ScrapeGuard(ApiServer(), "/metrics", secret=b"1", clock=lambda: 0),
        ScrapeGuard(ApiServer(), "/metrics", secret=b"2", clock=lambda: 0),
    )
    for subject in (one, two):
        await subject.refusal("Bearer good")
    assert not one._users._entries.keys() & two._users._entries.keys()
