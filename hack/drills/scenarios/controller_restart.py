"""The controller is killed in the middle of migrations and started again: it must find its way from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from controller.observe.history import ClusterState
from hack.drills.seeding import Wish, roomy
from hack.drills.stage import Stage

_KILLS: Final = 4


class ControllerRestart:
    """Kills the controller with SIGKILL at moments that differ in what the pod watch shows of a moving VM."""

    name = "controller-restart-mid-migration"
    summary = f"Migrate all VMs, kill the controller up to {_KILLS} times while VMs are on the move, start it again."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[Wish, ...]:
        """Leave room to move."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Kill it at a moment of each kind, in an order of the seed's."""
        vms = sorted(stage.vms.values())
        stage.rng.shuffle(vms)
        kinds = list(self.moments(stage).items())
        stage.rng.shuffle(kinds)
        kills = 0
        with stage.round(f"{len(vms)} migrations, the controller is killed meanwhile"):
            await stage.migrate(vms, reason="drill: the controller is killed")
            for kind, moment in kinds[:_KILLS]:
                over = False

                def now(picture: ClusterState, moment: Callable[[ClusterState], bool] = moment) -> bool:
                    nonlocal over
                    over = stage.settled(picture)
                    return over or moment(picture)

                if not await stage.until(now, f"a moment to kill the controller came ({kind})") or over:
                    break
                await stage.controller.kill()
                kills += 1
                stage.say(f"killed while {kind}")
                await stage.controller.start()
            await stage.settle("every migration had ended")
        if not kills:
            stage.complaints.append("the controller was never killed: no migration was seen under way")

    def moments(self, stage: Stage) -> dict[str, Callable[[ClusterState], bool]]:
        """Return the kinds of moments at which to kill it."""

        def some(of_vm: Callable[[ClusterState, str], bool]) -> Callable[[ClusterState], bool]:
            return lambda picture: any(of_vm(picture, uid) for uid in stage.vms)

        return {
            "a migration has begun": lambda picture: any(m.moving for m in picture.migrations.values()),
            "a source terminates": some(lambda picture, uid: any(pod.terminating for pod in picture.live(uid))),
            "a VM has no pod": some(lambda picture, uid: not picture.pods_of(uid)),
            "a target starts": some(
                lambda picture, uid: any(pod.phase == "Pending" and not pod.terminating for pod in picture.live(uid))
            ),
        }
