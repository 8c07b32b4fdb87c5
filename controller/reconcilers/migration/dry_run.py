"""Server-side dry runs: whether the API server would create a migration's target pod, before the source is deleted.

Guarantees: the dry run creates exactly the pod that the claim would lead to. A migration that is not refused sends one;
a refused one sends the next after `ASK_AGAIN` at the earliest. Bounded by the migrations that are pending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from controller.domain.migration import refusals
from controller.domain.migration.plan import Refused
from controller.domain.objects import Claim, VirtualMachine, VirtualMachineMigration
from controller.domain.vm import launcher
from controller.domain.vm.policy import LauncherPolicy
from controller.kube import errors
from controller.kube.kinds import Pod
from controller.kube.resources import PODS
from controller.kube.verbs import CREATE_DEADLINE
from controller.observe.caches import Caches
from controller.reconcilers.api import Api
from controller.reconcilers.sources import no_longer_pending

ASK_AGAIN: Final = 15.0
"""Seconds from a temporary refusal to the next dry run."""


class DryRuns:
    """Temporary refusals, by the migration's UID. `monotonic` is a clock in seconds."""

    def __init__(
        self,
        client: Api,
        policy: LauncherPolicy,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._policy = policy
        self._monotonic = monotonic
        self._refused: dict[str, tuple[float, Refused]] = {}

    def listen(self, caches: Mapping[str | None, Caches]) -> None:
        """Follow the migrations from now on."""
        for cache in caches.values():
            cache.migrations.listen(self._changed, name="DryRuns")

    def refused(self, item: VirtualMachineMigration) -> Refused | None:
        """Return the last refusal while it is too early for the next dry run, else None."""
        until, why = self._refused.get(item.metadata.uid, (0.0, None))
        return why if why is not None and self._monotonic() < until else None

    async def ask(
        self, item: VirtualMachineMigration, vm: VirtualMachine, claim: Claim, source: Pod | None, beside: Pod | None
    ) -> Refused | None:
        """Return why the API server would not create the target pod; None if it would.

        Raises KubeError for an error that is no answer about the pod: the client is not authorized, or does not lead.
        """
        try:
            await self._client.create(
                PODS,
                launcher.target(vm, claim, self._policy)
                if beside is None
                else launcher.live_target(vm, claim, beside, self._policy),
                namespace=vm.metadata.namespace,
                server_deadline=CREATE_DEADLINE,
                dry_run=True,
            )
        except errors.UnauthorizedError:
            raise
        except errors.StatusError as error:
            why = refusals.judge(error.code, error.message, source)
            pause = max(ASK_AGAIN, error.retry_after or 0.0)
        except errors.TransportError as error:
            why, pause = refusals.judge(None, str(error), source), ASK_AGAIN
        else:
            return None
        if why is not None and not why.for_good:
            self._refused[item.metadata.uid] = self._monotonic() + pause, why
        return why

    def _changed(self, old: VirtualMachineMigration | None, new: VirtualMachineMigration | None) -> None:
        """Drop the refusal of a migration that is no longer Pending."""
        for item in no_longer_pending(old, new):
            self._refused.pop(item.metadata.uid, None)
