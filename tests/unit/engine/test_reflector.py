"""The reflector keeps its store equal to the API server, through every failure."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from controller.engine.watch import Relist
from controller.kube import codec, errors
from controller.kube.verbs import Page
from tests.model.script import HANG, WatchStep, bookmark, error_event, event, page
from tests.unit.engine.builders import Scene, gaps, pod

pytestmark = pytest.mark.looptime


def expired() -> errors.ExpiredError:
    """Return the error for an expired version or token."""
    return errors.ExpiredError(410, "Expired", "too old resource version")


# --- what may not be read --------------------------------------------------------------------------------


def forbidden() -> errors.ForbiddenError:
    """Return RBAC's refusal."""
    return errors.ForbiddenError(403, "Forbidden", "pods is forbidden")


async def test_a_forbidden_optional_resource_counts_as_answered() -> None:
    """At once. The list is retried now and then, and its objects are stored once it is allowed."""
    scene = Scene([forbidden(), forbidden(), page(5, pod("a", 1))], optional=True)
    async with scene.running():
        await asyncio.sleep(1)
        assert (scene.reflector.answered.is_set(), scene.reflector.synced.is_set()) == (True, False)
        assert not scene.store.filled

        await asyncio.sleep(200)
        assert (scene.names, scene.reflector.synced.is_set(), scene.reflector.connected) == (["a"], True, True)
        assert gaps([request.at for request in scene.api.list_requests]) == [60, 60]


async def test_an_optional_resource_is_not_answered_while_the_server_is_away() -> None:
    """Only a 403 is an answer."""
    scene = Scene([errors.TransportError("refused"), errors.TransportError("refused"), 3600.0, page(5)], optional=True)
    async with scene.running():
        await asyncio.sleep(100)
        assert not scene.reflector.answered.is_set()


async def test_a_forbidden_required_resource_is_not_answered() -> None:
    """The administrator has to grant it."""
    scene = Scene([forbidden(), 3600.0, page(5)])
    async with scene.running():
        await asyncio.sleep(100)
        assert not scene.reflector.answered.is_set()


# --- listing ---------------------------------------------------------------------------------------------


async def test_the_first_list_is_paged_and_the_watch_starts_from_its_version() -> None:
    """Each page is requested with the token of the previous one."""
    scene = Scene([page(7, pod("a", 1), more="t1"), page(7, pod("b", 2), more="t2"), page(7, pod("c", 3))])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["a", "b", "c"]
        assert [(r.limit, r.continue_token) for r in scene.api.list_requests] == [(500, ""), (500, "t1"), (500, "t2")]
        assert scene.watched_from == ["7"]


async def test_the_store_takes_a_list_whole_or_not_at_all() -> None:
    """While pages arrive the store shows nothing of them, and is not synced."""
    scene = Scene([page(7, pod("a", 1), more="t1"), 10.0, page(7, pod("b", 2))])
    async with scene.running():
        await asyncio.sleep(5)
        assert (scene.names, scene.store.resource_version, scene.reflector.synced.is_set()) == ([], "", False)

        await asyncio.sleep(10)
        assert (scene.names, scene.store.resource_version, scene.reflector.synced.is_set()) == (["a", "b"], "7", True)


async def test_a_list_that_fails_half_way_starts_over() -> None:
    """Pages of the failed list are not mixed into the next one."""
    scene = Scene(
        [page(7, pod("a", 1), more="t1"), errors.TransportError("reset"), page(9, pod("b", 8))],
    )
    async with scene.running():
        await asyncio.sleep(5)

        assert (scene.names, scene.changes) == (["b"], ["+b"])
        assert [r.continue_token for r in scene.api.list_requests] == ["", "t1", ""]


async def test_an_expired_continue_token_falls_back_to_one_unpaged_list() -> None:
    """At once; the objects of the earlier pages are dropped."""
    scene = Scene([page(7, pod("deleted", 1), more="t1"), expired(), page(9, pod("a", 8), pod("b", 2))])
    async with scene.running():
        await asyncio.sleep(1)

        assert [(r.limit, r.continue_token) for r in scene.api.list_requests] == [(500, ""), (500, "t1"), (0, "")]
        assert gaps([r.at for r in scene.api.list_requests]) == [0, 0]
        assert (scene.names, scene.changes) == (["a", "b"], ["+a", "+b"])
        assert scene.watched_from == ["9"]


async def test_a_list_that_is_expired_from_the_start_backs_off() -> None:
    """A server that answers 410 to a fresh list is not requested in a hot loop."""
    scene = Scene([expired()] * 5 + [page(7, pod("a", 1))])
    async with scene.running():
        await asyncio.sleep(120)

        assert scene.names == ["a"]
        assert all(gap >= 0.8 for gap in gaps([r.at for r in scene.api.list_requests]))


async def test_namespace_and_selector_go_with_every_request() -> None:
    """A reflector of one namespace never requests more."""
    scene = Scene([page(1, more="t1"), expired(), page(2)], [[expired()]], namespace="team", label_selector="app=vm")
    scene.api.lists.append(page(3))
    async with scene.running():
        await asyncio.sleep(10)

        asked = [
            *((request.namespace, request.label_selector) for request in scene.api.list_requests),
            *((request.namespace, request.label_selector) for request in scene.api.watch_requests),
        ]
        assert asked == [("team", "app=vm")] * 6


# --- watching --------------------------------------------------------------------------------------------


async def test_events_reach_the_store() -> None:
    """Additions, changes and deletions, in their order."""
    scene = Scene(
        [page(5, pod("a", 1), pod("b", 2))],
        [[event("MODIFIED", pod("a", 6)), event("ADDED", pod("c", 7)), event("DELETED", pod("b", 8)), HANG]],
    )
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["a", "c"]
        assert scene.changes == ["+a", "+b", "~a", "+c", "-b"]
        assert scene.store.resource_version == "8"


async def test_a_watch_resumes_from_the_last_event() -> None:
    """Not from the list."""
    scene = Scene([page(5)], [[event("ADDED", pod("a", 6)), event("DELETED", pod("a", 8)), 10.0]])
    async with scene.running():
        await asyncio.sleep(30)

        assert scene.watched_from == ["5", "8"]


async def test_a_watch_resumes_from_the_last_bookmark() -> None:
    """Also when the stream broke."""
    scene = Scene([page(5)], [[event("ADDED", pod("a", 6)), bookmark(90), errors.TransportError("reset")]])
    async with scene.running():
        await asyncio.sleep(30)

        assert scene.watched_from == ["5", "90"]
        assert scene.names == ["a"]


async def test_a_repeated_event_changes_nothing() -> None:
    """A server that replays history does not bring back an older state."""
    scene = Scene([page(9, pod("a", 9))], [[event("MODIFIED", pod("a", 7)), event("DELETED", pod("a", 8)), HANG]])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.store.get("default/a") == pod("a", 9)
        assert scene.changes == ["+a"]


async def test_a_watch_that_ends_normally_is_resumed_without_a_list() -> None:
    """At once, from the last version."""
    scene = Scene([page(5)], [[300.0], [300.0, event("ADDED", pod("a", 6))], [300.0]])
    async with scene.running():
        await asyncio.sleep(1000)

        assert scene.watched_from == ["5", "5", "6", "6"]
        assert gaps([r.at for r in scene.api.watch_requests]) == pytest.approx([300, 300, 300], abs=0.01)
        assert len(scene.api.list_requests) == 1


async def test_a_short_watch_with_an_event_is_resumed_at_once() -> None:
    """Only an empty one backs off."""
    scene = Scene([page(5)], [[event("ADDED", pod(f"p{n}", 6 + n))] for n in range(20)])
    async with scene.running():
        await asyncio.sleep(0.5)

        assert len(scene.api.watch_requests) == 21


async def test_watches_that_end_at_once_and_empty_back_off() -> None:
    """In 600 s there are some 20 requests, not a hot loop of them."""
    scene = Scene([page(5)], rest=())
    async with scene.running():
        await asyncio.sleep(600)

        waits = gaps([request.at for request in scene.api.watch_requests])
        assert 15 <= len(waits) <= 25
        assert all(
            base <= wait < 2 * base + 0.01 for base, wait in zip([0.8, 1.6, 3.2, 6.4, 12.8, 25.6], waits, strict=False)
        )
        assert len(scene.api.list_requests) == 1


async def test_every_watch_has_a_timeout_of_five_to_ten_minutes() -> None:
    """Drawn for each watch, so that replicas do not reconnect together."""
    scene = Scene([page(5)], rest=(60.0,))
    async with scene.running():
        await asyncio.sleep(60 * 50)

        lives = [request.life for request in scene.api.watch_requests]
        assert len(lives) >= 50
        assert all(300 <= life <= 600 for life in lives)
        assert min(lives) < 330
        assert max(lives) > 570


# --- 410 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expiry",
    [expired(), error_event(410, "Expired"), error_event(410, "Gone"), error_event(410)],
    ids=["status", "Expired event", "Gone event", "event without a reason"],
)
async def test_an_expired_version_leads_to_a_new_list_whose_deletions_reach_the_listeners(expiry: WatchStep) -> None:
    """Listeners get every difference between the store and the new list; the watch resumes from that list."""
    scene = Scene(
        [
            page(5, pod("deleted", 1), pod("same", 2), pod("changed", 3)),
            page(50, pod("same", 2), pod("changed", 40), pod("new", 41)),
        ],
        [[100.0, expiry]],
    )
    async with scene.running():
        await asyncio.sleep(50)
        scene.changes.clear()
        await asyncio.sleep(100)

        assert scene.names == ["changed", "new", "same"]
        assert scene.changes == ["-deleted", "~changed", "+new"]
        assert scene.watched_from == ["5", "50"]
        assert scene.reflector.synced.is_set()


async def test_a_version_that_expired_later_than_its_list_is_listed_again_at_once() -> None:
    """A version that has expired as soon as it was listed backs off."""
    scene = Scene([page(5), page(50)], [[100.0, expired()], [HANG]])
    async with scene.running():
        await asyncio.sleep(100.1)

        assert scene.watched_from == ["5", "50"]


async def test_connected_says_whether_changes_arrive() -> None:
    """From the moment a watch is accepted until one fails."""
    scene = Scene([10.0, page(5)], [[10.0, errors.TransportError("reset")], [HANG]])
    async with scene.running():
        seen = []
        for seconds in (5, 10, 5.1):
            await asyncio.sleep(seconds)
            seen.append(scene.reflector.connected)

        assert seen == [False, True, False]


async def test_it_reports_lists_watches_and_batches() -> None:
    """Each list, each accepted watch and each batch of events once."""
    scene = Scene([page(5)], [[1.0, event("ADDED", pod("a", 6)), bookmark(7)], [HANG]])
    async with scene.running():
        await asyncio.sleep(10)

        assert scene.metrics.reports == ["listed", "watching", "heard", "heard", "watching"]


async def test_it_reports_a_watch_that_ended_at_once() -> None:
    """Within a second and without an event."""
    scene = Scene([page(5)], [[], [HANG]])
    async with scene.running():
        await asyncio.sleep(10)

        assert scene.metrics.reports == ["listed", "watching", "watched_shortly", "watching"]


@pytest.mark.parametrize(
    ("watches", "cause"),
    [
        ([[100.0, expired()]], Relist.EXPIRED),
        ([[errors.ServerError(500, "", "no")]] * 3, Relist.REFUSED),
    ],
)
async def test_it_reports_why_it_lists_again(watches: list[list[WatchStep]], cause: Relist) -> None:
    """Once, with the cause."""
    scene = Scene([page(5), page(50)], [*watches, [HANG]])
    async with scene.running():
        await asyncio.sleep(200)

        assert [report for report in scene.metrics.reports if isinstance(report, Relist)] == [cause]


async def test_the_store_stays_as_it_is_while_the_new_list_fails() -> None:
    """Stale but complete: no object is deleted because of an outage."""
    scene = Scene(
        [page(5, pod("a", 1)), errors.ServerError(503, "", "away"), page(50, pod("b", 1), more="t"), 1000.0, page(50)],
        [[expired()]],
    )
    async with scene.running():
        await asyncio.sleep(500)

        assert (scene.names, scene.store.resource_version) == (["a"], "5")
        assert scene.reflector.synced.is_set()


async def test_a_server_that_says_410_to_every_watch_is_not_listed_in_a_hot_loop() -> None:
    """List, 410, list, 410: each round backs off."""
    scene = Scene([page(n) for n in range(1000)], rest=(expired(),))
    async with scene.running():
        await asyncio.sleep(600)

        assert 10 <= len(scene.api.list_requests) <= 25


# --- every other failure ---------------------------------------------------------------------------------

GARBAGE = codec.WatchEnvelope(type="MODIFIED", object=msgspec.Raw(b'{"metadata": 7}'))
UNKNOWN = codec.WatchEnvelope(type="PATCHED", object=msgspec.Raw(b"{}"))
FAILURES: dict[str, WatchStep] = {
    "transport": errors.TransportError("reset"),
    "401": errors.UnauthorizedError(401, "Unauthorized", "who are you"),
    "403": errors.ForbiddenError(403, "Forbidden", "not you"),
    "404": errors.NotFoundError(404, "NotFound", "no such resource"),
    "429": errors.TooManyRequestsError(429, "TooManyRequests", "slow down"),
    "500": errors.ServerError(500, "InternalError", "etcd is away"),
    "503 in HTML": errors.ServerError(503, "", "<html>"),
    "302": errors.StatusError(302, "", "moved"),
    "garbage line": errors.MalformedReplyError("expected WatchEnvelope"),
    "unknown type": UNKNOWN,
    "500 event": error_event(500, "InternalError"),
    "event of no known code": error_event(0),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_any_other_failure_keeps_the_version_backs_off_and_goes_on(failure: WatchStep) -> None:
    """The next watch starts 0.8 to 1.6 s later from the same version, with no list; its events arrive."""
    scene = Scene([page(5, pod("a", 1))], [[failure], [event("MODIFIED", pod("a", 6)), HANG]])
    async with scene.running():
        await asyncio.sleep(10)

        assert scene.watched_from == ["5", "5"]
        [wait] = gaps([request.at for request in scene.api.watch_requests])
        assert 0.8 <= wait <= 1.6
        assert len(scene.api.list_requests) == 1
        assert scene.store.get("default/a") == pod("a", 6)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_watch_that_fails_after_events_resumes_after_them(failure: WatchStep) -> None:
    """The store retains their changes."""
    scene = Scene([page(5)], [[event("ADDED", pod("a", 6)), failure]])
    async with scene.running():
        await asyncio.sleep(10)

        assert scene.watched_from == ["5", "6"]
        assert scene.names == ["a"]


async def test_an_object_that_does_not_decode_is_left_out_and_the_others_arrive() -> None:
    """A poisoned event cannot stop the watch, however often it comes back."""
    scene = Scene([page(5)], [[GARBAGE, event("ADDED", pod("a", 6)), HANG]])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["a"]
        assert scene.watched_from == ["5"]


async def test_the_third_refusal_in_a_row_leads_to_a_new_list() -> None:
    """The server may never have had our version: an etcd restored from a backup is behind it."""
    refused = errors.ServerError(500, "InternalError", "too large resource version")
    scene = Scene([page(900, pod("lost", 1)), page(5, pod("a", 1))], [[refused], [refused], [refused], [HANG]])
    async with scene.running():
        await asyncio.sleep(60)

        assert scene.watched_from == ["900", "900", "900", "5"]
        assert scene.names == ["a"]


@pytest.mark.parametrize(
    "failure",
    [errors.TransportError("refused"), errors.TooManyRequestsError(429, "TooManyRequests", "slow down")],
    ids=["transport", "429"],
)
async def test_an_outage_or_a_throttled_watch_costs_no_new_list(failure: errors.KubeError) -> None:
    """Neither says anything about the version, and lists would add to the server's load."""
    scene = Scene([page(5)], [[failure]] * 10)
    async with scene.running():
        await asyncio.sleep(3600)

        assert len(scene.api.list_requests) == 1


async def test_a_list_is_retried_after_any_failure() -> None:
    """The store is synced in the end."""
    failures = [failure for failure in FAILURES.values() if isinstance(failure, errors.KubeError)]
    scene = Scene([*failures, page(5, pod("a", 1))])
    async with scene.running():
        await asyncio.sleep(600)

        assert scene.names == ["a"]
        assert scene.watched_from == ["5"]


@pytest.mark.parametrize("where", ["list", "watch"])
async def test_retry_after_is_a_floor(where: str) -> None:
    """A server that asks for 20 s gets them, though the first backoff is shorter."""
    busy = errors.TooManyRequestsError(429, "TooManyRequests", "slow down", retry_after=20)
    scene = Scene([busy, page(5)] if where == "list" else [page(5)], [] if where == "list" else [[busy]])
    async with scene.running():
        await asyncio.sleep(30)

        requests = scene.api.list_requests if where == "list" else scene.api.watch_requests
        assert gaps([request.at for request in requests]) == pytest.approx([20], abs=0.01)


async def test_delays_grow_from_800_ms_to_30_s_with_jitter() -> None:
    """Each failure waits [1, 2) times its base, and the bases double up to 30 s."""
    scene = Scene([page(5)], rest=(errors.TransportError("refused"),))
    async with scene.running():
        await asyncio.sleep(600)

        waits = gaps([request.at for request in scene.api.watch_requests])
        bases = [0.8, 1.6, 3.2, 6.4, 12.8, 25.6] + [30.0] * len(waits[6:])
        assert len(waits) > 10
        assert all(base <= wait < 2 * base + 0.001 for base, wait in zip(bases, waits, strict=True))


async def test_two_quiet_minutes_start_the_delays_over() -> None:
    """After a watch of 200 s the next failure waits as little as the first."""
    lost = errors.TransportError("reset")
    scene = Scene([page(5)], [*[[lost]] * 8, [200.0, lost], [HANG]])
    async with scene.running():
        await asyncio.sleep(1200)

        waits = gaps([request.at for request in scene.api.watch_requests])
        assert waits[7] >= 30
        assert 200.8 <= waits[8] < 201.61


@pytest.mark.parametrize("where", ["list", "watch"])
async def test_it_never_gives_up(where: str) -> None:
    """A hundred failures in a row, and the next attempt succeeds."""
    lost = errors.TransportError("refused")
    if where == "list":
        scene = Scene([*[lost] * 100, page(5, pod("a", 1))])
    else:
        scene = Scene([page(5)], [*[[lost]] * 100, [event("ADDED", pod("a", 6)), HANG]])
    async with scene.running():
        await asyncio.sleep(100 * 60)

        assert scene.names == ["a"]
        assert len(scene.api.list_requests) + len(scene.api.watch_requests) == 102


# --- the way out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "watches"),
    [([HANG], []), ([page(5)], [[HANG]]), ([page(5)], [[errors.TransportError("reset")]])],
    ids=["listing", "watching", "backing off"],
)
async def test_cancellation_ends_it_at_once_wherever_it_is(lists: list[float], watches: list[list[WatchStep]]) -> None:
    """And nothing is left open."""
    scene = Scene(lists, watches)
    task = asyncio.create_task(scene.reflector.run())
    await asyncio.sleep(0.5)
    assert not task.done()
    before = asyncio.get_running_loop().time()

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert asyncio.get_running_loop().time() == before
    assert scene.api.open_watches == 0


async def test_a_watch_is_closed_before_the_reflector_goes_on() -> None:
    """A stream that is left because of an event's content is not left open."""
    scene = Scene([page(5)], [[UNKNOWN, HANG]])
    async with scene.running():
        await asyncio.sleep(0.5)
        assert (len(scene.api.watch_requests), scene.api.open_watches) == (1, 0)

        await asyncio.sleep(5)
        assert (len(scene.api.watch_requests), scene.api.open_watches) == (2, 1)
    assert scene.api.open_watches == 0


# --- malformed objects -------------------------------------------------------------------------------------


def raw_event(kind: str, body: object) -> codec.WatchEnvelope:
    """Return a watch event with any object."""
    return codec.WatchEnvelope(type=kind, object=msgspec.Raw(codec.encode(body)))


def malformed_pod(of: str, **metadata: object) -> dict[str, object]:
    """Return a pod whose metadata does not decode."""
    return {"metadata": {"name": of, "namespace": "default", "uid": f"uid-{of}", "labels": 7, **metadata}}


async def test_an_object_whose_metadata_does_not_decode_is_left_out_and_counted() -> None:
    """Its last valid state stays in the store, and the other objects arrive."""
    listed = Page([pod("a", 1), pod("b", 2)], "5", "", left_out=2)
    scene = Scene([listed], [[raw_event("MODIFIED", malformed_pod("a")), event("ADDED", pod("c", 7)), HANG]])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["a", "b", "c"]
        assert [report for report in scene.metrics.reports if report.startswith("left")] == ["left out 2", "left out 1"]


@pytest.mark.parametrize("metadata", [{}, {"name": 7}, {"uid": 7}, {"resourceVersion": 7}])
async def test_a_malformed_deletion_removes_the_object(metadata: dict[str, object]) -> None:
    """By its key and its UID, as far as these can be read."""
    scene = Scene([page(5, pod("a", 1), pod("b", 2))], [[raw_event("DELETED", malformed_pod("a", **metadata)), HANG]])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["b"]
        assert scene.changes[-1] == "-a"


async def test_no_state_of_deleted_malformed_objects_is_retained() -> None:
    """However many are created and deleted."""
    metadata = {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "6"}
    scene = Scene([page(5)], [[raw_event(kind, {"metadata": metadata, "spec": 7}) for kind in ("ADDED", "DELETED")]])
    with capture_logs() as logs:
        async with scene.running():
            await asyncio.sleep(1)

    assert [line["event"] for line in logs].count("an object has malformed fields") == 1
    assert scene.reflector._malformed == {}


async def test_a_deletion_with_another_uid_removes_nothing() -> None:
    """It is the deletion of a namesake."""
    scene = Scene([page(5, pod("a", 1))], [[raw_event("DELETED", malformed_pod("a", uid="another's")), HANG]])
    async with scene.running():
        await asyncio.sleep(1)

        assert scene.names == ["a"]


async def test_malformed_fields_are_logged_once_and_the_others_are_stored() -> None:
    """Once until other fields are malformed, however often the object changes."""

    def changed(version: int, **parts: object) -> codec.WatchEnvelope:
        metadata = {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": str(version)}
        return raw_event("MODIFIED", {"metadata": metadata, **parts})

    events = [
        changed(6, spec=7, status={"phase": "Pending"}),
        changed(7, spec=7, status={"phase": "Running"}),
        changed(8, spec=7, status=8),
    ]
    scene = Scene([page(5)], [[*events, HANG]])
    with capture_logs() as logs:
        async with scene.running():
            await asyncio.sleep(1)

    [a] = scene.store
    assert (a.metadata.resource_version, a.status.phase) == ("8", "Pending")
    logged = [line["unreadable"] for line in logs if line["event"] == "an object has malformed fields"]
    assert [len(found) for found in logged] == [1, 2]
