"""The flags of `vmsim controller` for live migrations: how they copy memory, and KubeVirt's limits of a move."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Annotated, Any, Final

import typer

from controller.cli import flags
from controller.domain.copying.policy import CopyingPolicy
from controller.domain.copying.texts import SETTINGS

_option: Final = partial(typer.Option, rich_help_panel="Live migrations")


def _flags(  # the signature declares the flags
    *,
    bandwidth_per_migration: Annotated[
        str,
        _option(
            envvar="VMSIM_BANDWIDTH_PER_MIGRATION",
            metavar="QUANTITY",
            help="Bytes a second that one migration may copy, at most, such as 64Mi. 0: no limit.",
        ),
    ] = "0",
    migration_bandwidth_per_node: Annotated[
        str,
        _option(
            envvar="VMSIM_MIGRATION_BANDWIDTH_PER_NODE",
            metavar="QUANTITY",
            help="Bytes a second of a node's link, for all migrations away from it together, and again for all to it.",
        ),
    ] = "1250M",
    dirty_rate: Annotated[
        str,
        _option(
            envvar="VMSIM_DIRTY_RATE", metavar="QUANTITY", help="Bytes a second that a guest writes to its memory."
        ),
    ] = "10Mi",
    writable_set: Annotated[
        str,
        _option(
            envvar="VMSIM_WRITABLE_SET",
            metavar="PERCENT|QUANTITY",
            help="Memory that a guest writes to again and again: a share of its memory in use, or bytes such as 256Mi.",
        ),
    ] = "3%",
    dirty_rate_jitter: Annotated[
        str,
        _option(
            envvar="VMSIM_DIRTY_RATE_JITTER",
            metavar="SIGMA",
            help="How much the dirty rate differs from round to round, from 0 to 1: sigma of a lognormal factor.",
        ),
    ] = "0.15",
    allow_auto_converge: Annotated[
        bool,
        _option(
            "--allow-auto-converge/--no-allow-auto-converge",
            envvar="VMSIM_ALLOW_AUTO_CONVERGE",
            help="Slow a guest down that writes faster than is copied.",
        ),
    ] = False,
    allow_post_copy: Annotated[
        bool,
        _option(
            "--allow-post-copy/--no-allow-post-copy",
            envvar="VMSIM_ALLOW_POST_COPY",
            help="At the completion timeout, hand over first, copy the rest then; needs --allow-workload-disruption.",
        ),
    ] = False,
    allow_workload_disruption: Annotated[
        bool,
        _option(
            "--allow-workload-disruption/--no-allow-workload-disruption",
            envvar="VMSIM_ALLOW_WORKLOAD_DISRUPTION",
            help="At the completion timeout, pause the guest instead of aborting its migration.",
        ),
    ] = False,
    completion_timeout_per_gib: Annotated[
        str,
        _option(
            envvar="VMSIM_COMPLETION_TIMEOUT_PER_GIB",
            metavar="SECONDS",
            help="Simulated seconds that copying may take for each GB of the VM's memory. 0: no limit.",
        ),
    ] = "150",
    progress_timeout: Annotated[
        str,
        _option(
            envvar="VMSIM_PROGRESS_TIMEOUT",
            metavar="SECONDS",
            help="Simulated seconds without progress after which a migration is aborted. 0: no limit.",
        ),
    ] = "150",
    max_downtime: Annotated[
        str,
        _option(
            envvar="VMSIM_MAX_DOWNTIME",
            metavar="DURATION",
            help="How long a guest may stand still, at most, while the last of its memory is copied.",
        ),
    ] = "300ms",
) -> None: ...


FLAGS: Final = tuple(inspect.signature(_flags, eval_str=True).parameters.values())


def policy(**values: Any) -> CopyingPolicy:
    """Return what the flags say. Raises typer.BadParameter, which names the flag."""
    given = {name: values[each.key.replace("-", "_")] for name, each in SETTINGS.items()}
    return CopyingPolicy(
        **{
            name: flags.parsed(f"--{SETTINGS[name].key}", SETTINGS[name].parse, value)
            if isinstance(value, str)
            else value
            for name, value in given.items()
        }
    )
