"""The verdict on a failed dry run: never, not now, or no obstacle once the source is deleted."""

from __future__ import annotations

import pytest

from controller.domain.migration.phases import Reason
from controller.domain.migration.plan import Refused
from controller.domain.migration.refusals import judge
from controller.kube.kinds import Container, ContainerResources, Pod, PodSpec, PodStatus, Requests
from controller.kube.meta import ObjectMeta

HEAD = 'pods "virt-launcher-a-xyz" is forbidden: '


def source(cpu: str = "2", memory: str = "4Gi", limit: str | None = None, phase: str = "Running") -> Pod:
    """The pod that is deleted first."""
    resources = ContainerResources(Requests(cpu, memory), Requests(cpu=limit))
    return Pod(ObjectMeta(), PodSpec(containers=(Container(resources=resources),)), PodStatus(phase=phase))


def exceeded(requested: str, used: str, limited: str) -> str:
    """The API server's message about a quota."""
    return f"exceeded quota: q, requested: {requested}, used: {used}, limited: {limited}"


def quota(requested: str, used: str, limited: str, pod: Pod | None = None) -> Refused | None:
    """Judge an exceeded quota."""
    return judge(403, HEAD + exceeded(requested, used, limited), pod or source())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "admission webhook denied the request"),
        (422, "Pod is invalid: spec.containers[0].resources.requests: must be less than or equal to cpu limit"),
        (403, HEAD + "violates PodSecurity"),
        (403, HEAD + "no PriorityClass with name gold was found"),
        (403, HEAD + "failed quota: q: must specify limits.cpu for: compute"),
    ],
)
def test_a_permanent_refusal_has_the_servers_message(code: int, message: str) -> None:
    """A user has to change something."""
    found = judge(code, message, source())
    assert found == Refused(Reason.TARGET_REFUSED, f"The target pod would be refused: {message}", for_good=True)


@pytest.mark.parametrize("code", [404, 409, 429, 500, 503, 504, None])
def test_an_error_that_is_not_about_the_pod_is_a_temporary_refusal(code: int | None) -> None:
    """A webhook that is down may return."""
    found = judge(code, "failed calling webhook", source())
    assert found is not None
    assert (found.reason, found.for_good) == (Reason.TARGET_REFUSED, False)
    assert "failed calling webhook" in found.message


def test_a_quota_without_a_counted_usage_is_a_temporary_refusal() -> None:
    """The quota controller counts it some moments after its creation."""
    message = f"{HEAD}status unknown for quota: q, resources: requests.cpu"
    assert judge(403, message, source()) == Refused(
        Reason.QUOTA_EXCEEDED, f"Whether the target pod may be created is unknown: {message}", for_good=False
    )


def test_a_quota_is_judged_without_the_source() -> None:
    """9 of 10 in use, 2 of them by the source: a target of 2 fits, and one of 3."""
    assert quota("requests.cpu=2", "requests.cpu=9", "requests.cpu=10") is None
    assert quota("requests.cpu=3", "requests.cpu=9", "requests.cpu=10") is None
    assert quota("requests.cpu=3001m", "requests.cpu=9", "requests.cpu=10") is not None


@pytest.mark.parametrize(
    "figures",
    [
        ("memory=4Gi", "memory=8Gi", "memory=8Gi"),
        ("requests.memory=4Gi", "requests.memory=8Gi", "requests.memory=8Gi"),
        ("cpu=2", "cpu=2", "cpu=2"),
        ("pods=1", "pods=1", "pods=1"),
        ("count/pods=1", "count/pods=7", "count/pods=7"),
        ("limits.cpu=3", "limits.cpu=3", "limits.cpu=3"),
        ("cpu=2,memory=4Gi,pods=1", "cpu=2,memory=4Gi,pods=1", "cpu=2,memory=4Gi,pods=1"),
    ],
)
def test_a_target_of_the_sources_size_fits_in_a_full_quota(figures: tuple[str, str, str]) -> None:
    """For each resource that a quota may count."""
    assert quota(*figures, source(limit="3")) is None


def test_one_exceeded_resource_is_a_temporary_refusal() -> None:
    """The message names the quota."""
    found = quota("cpu=2,memory=9Gi", "cpu=2,memory=8Gi", "cpu=2,memory=8Gi")
    assert found is not None
    assert (found.reason, found.for_good) == (Reason.QUOTA_EXCEEDED, False)
    assert "exceeded quota: q" in found.message


def test_the_target_has_to_fit_in_every_quota() -> None:
    """Each is judged by itself."""
    fits = exceeded("pods=1", "pods=1", "pods=1")
    full = exceeded("requests.storage=1", "requests.storage=1", "requests.storage=1")
    assert judge(403, f"{HEAD}[{fits}, {fits}]", source()) is None
    assert judge(403, f"{HEAD}[{fits}, {full}]", source()) is not None


@pytest.mark.parametrize("pod", [None, source(phase="Failed")])
def test_a_source_that_no_quota_counts_frees_nothing(pod: Pod | None) -> None:
    """It has ended, or does not exist."""
    assert judge(403, HEAD + exceeded("pods=1", "pods=1", "pods=1"), pod) is not None


@pytest.mark.parametrize("figures", [("cpu=many", "cpu=1", "cpu=1"), ("cpu=1", "pods=1", "cpu=1"), ("cpu", "1", "1")])
def test_malformed_figures_are_a_refusal(figures: tuple[str, str, str]) -> None:
    """The VM keeps running."""
    assert quota(*figures) is not None
