"""What of a VM's pod is simulated time, at a speed other than 1."""

from __future__ import annotations

import msgspec
import pytest

from controller.domain import names
from controller.domain.objects import VMSpec
from controller.domain.vm import boot, launcher, placement
from controller.domain.vm.placement import ANYWHERE
from controller.domain.vm.policy import SLOWEST, LauncherPolicy
from controller.kube.kinds import Pod, PodStatus
from controller.kube.meta import ObjectMeta
from controller.kube.scheduling import Toleration
from controller.kube.times import timestamp
from tests.unit.domain.builders import NOW, vm

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


def lost(key: str, seconds: int | None = None, operator: str = "Exists", effect: str = "NoExecute") -> Toleration:
    """A toleration of a node that is lost."""
    return Toleration(key, operator, "", effect, seconds)


@pytest.mark.parametrize(
    ("speed", "own", "pods"),
    [
        (1, (), ()),
        (1, (lost(NOT_READY, 60),), (lost(NOT_READY, 60),)),
        (10, (), (lost(NOT_READY, 30), lost(UNREACHABLE, 30))),
        (0.01, (), (lost(NOT_READY, 30_000), lost(UNREACHABLE, 30_000))),
        (100_000, (), (lost(NOT_READY, 1), lost(UNREACHABLE, 1))),
        (10, (lost(UNREACHABLE, 60),), (lost(UNREACHABLE, 6), lost(NOT_READY, 30))),
        (10, (lost(NOT_READY), lost(UNREACHABLE, 0)), (lost(NOT_READY), lost(UNREACHABLE, 0))),
        (10, (lost("", 50),), (lost("", 5),)),
        (10, (lost(NOT_READY, effect=""), lost(UNREACHABLE, operator="")), None),
        (
            10,
            (lost(NOT_READY, effect="NoSchedule"),),
            (lost(NOT_READY, effect="NoSchedule"), lost(NOT_READY, 30), lost(UNREACHABLE, 30)),
        ),
        (10, (lost("mine", 60),), (lost("mine", 60), lost(NOT_READY, 30), lost(UNREACHABLE, 30))),
        (0.01, (lost("", 2**63 - 1),), (lost("", 2**63 - 1),)),
    ],
)
def test_how_long_a_pod_stays_on_a_lost_node_is_simulated_time(
    speed: float, own: tuple[Toleration, ...], pods: tuple[Toleration, ...] | None
) -> None:
    """Written only at other speeds than 1, and where the API server would add it; a VM's own goes before it.

    With None, the pod's are the VM's.
    """
    found = placement.fields(VMSpec(tolerations=own), LauncherPolicy(tolerations=(), speed=speed), ANYWHERE)
    assert msgspec.convert(found["tolerations"], list[Toleration]) == list(own if pods is None else pods)


@pytest.mark.parametrize(
    ("speed", "recorded", "seconds"),
    [(1, "90s", 90), (10, "9s", 9), (0.01, "9000s", 9000), (7, "12.857142857s", 90 / 7), (100_000, "0.0009s", 0.0009)],
)
def test_a_pod_records_its_boot_time_in_real_seconds(speed: float, recorded: str, seconds: float) -> None:
    """So whoever reads it needs no speed, and a restart with another one changes no boot that has begun."""
    machine = vm(annotations={names.BOOT_TIME: "90s"})
    spec = launcher.requested(machine)
    body = launcher.manifest(machine, 0, spec, launcher.consumption(machine, spec).shares, LauncherPolicy(speed=speed))
    assert body["metadata"]["annotations"][names.BOOT_TIME] == recorded
    pod = msgspec.convert(body, Pod, strict=False)
    assert boot.of_pod(pod) == pytest.approx(seconds)


def test_the_longest_boot_at_the_lowest_speed_is_not_cut_short() -> None:
    """An hour takes a hundred."""
    annotations = boot.annotation(boot.BootTime(boot.LONGEST), SLOWEST)
    pod = Pod(metadata=ObjectMeta(annotations=annotations), status=PodStatus(start_time=timestamp(NOW)))
    assert boot.left(pod, NOW) == boot.LONGEST_OF_POD == 360_000
