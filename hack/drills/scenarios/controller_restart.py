"""The controller is killed during migrations and started again: it must continue from any state."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from controller.domain.objects import Strategy
from controller.observe.history import ClusterState
from hack.drills.seeding import DesiredVM, roomy
from hack.drills.stage import Stage

_KILLS: Final = 4


class ControllerRestart:
    """Kills the controller with SIGKILL in different states of a migration, as the pod watch shows them."""

    name = "controller-restart-mid-migration"
    summary = f"Migrate all VMs, kill the controller up to {_KILLS} times while they move, and start it again."

    def fleet(self, rng: Random, vms: int, nodes: int) -> tuple[DesiredVM, ...]:
        """Leave free capacity for migrations."""
        return roomy(rng, vms, nodes)

    async def run(self, stage: Stage) -> None:
        """Kill it once in each state, in an order that the seed determines."""
        vms = sorted(stage.vms.values())
        stage.rng.shuffle(vms)
        states = list(self.states(stage).items())
        stage.rng.shuffle(states)
        kills = 0
        with stage.round(f"{len(vms)} migrations, the controller is killed meanwhile"):
            await stage.migrate(vms, reason="drill: the controller is killed")
            for name, is_reached in states[:_KILLS]:
                over = False

                def now(state: ClusterState, is_reached: Callable[[ClusterState], bool] = is_reached) -> bool:
                    nonlocal over
                    over = stage.settled(state)
                    return over or is_reached(state)

                if not await stage.until(now, f"the controller could be killed ({name})") or over:
                    break
                await stage.controller.kill()
                kills += 1
                stage.say(f"killed the controller while {name}")
                await stage.controller.start()
            await stage.settle("every migration had ended")
        if not kills:
            stage.complaints.append("the controller was never killed: no migration was seen in progress")

    def states(self, stage: Stage) -> dict[str, Callable[[ClusterState], bool]]:
        """Return the states in which to kill it, with a test for each; a VM that moves live always has a pod."""

        def some(of_vm: Callable[[ClusterState, str], bool]) -> Callable[[ClusterState], bool]:
            return lambda state: any(of_vm(state, uid) for uid in stage.vms)

        without_pod = some(lambda state, uid: not state.pods_of(uid))
        is_live = stage.strategy is Strategy.LIVE
        return {
            "a migration has begun": lambda state: any(m.moving for m in state.migrations.values()),
            "a source terminates": some(lambda state, uid: any(pod.terminating for pod in state.live(uid))),
            **({"memory is copied": _copies} if is_live else {"a VM has no pod": without_pod}),
            "a target starts": some(
                lambda state, uid: any(pod.phase == "Pending" and not pod.terminating for pod in state.live(uid))
            ),
        }


def _copies(state: ClusterState) -> bool:
    return any(migration.phase == "Running" for migration in state.migrations.values())
