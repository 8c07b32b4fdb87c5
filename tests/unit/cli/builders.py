"""Migrations, VMs and pods for the tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from controller.cli.main import main
from controller.domain import names
from controller.domain.objects import (
    MigrationSpec,
    MigrationStatus,
    VirtualMachine,
    VirtualMachineMigration,
    VMSpec,
    VMStatus,
)
from controller.kube.kinds import Pod, PodSpec, PodStatus
from controller.kube.meta import ObjectMeta, OwnerReference

CREATED = "2026-01-15T10:29:50Z"


def migration(
    vm: str = "vm-1", *, name: str = "", namespace: str = "default", created: str = CREATED, **changes: Any
) -> VirtualMachineMigration:
    """Return a migration; `changes` go into its status if the status has them, else into its spec."""
    status = {key: value for key, value in changes.items() if key in MigrationStatus.__struct_fields__}
    spec = {key: value for key, value in changes.items() if key not in status}
    return VirtualMachineMigration(
        metadata=ObjectMeta(name=name or f"{vm}-abcde", namespace=namespace, creation_timestamp=created),
        spec=MigrationSpec(vm_name=vm, **spec),
        status=MigrationStatus(**status),
    )


def vm(
    name: str, node: str | None, *, phase: str = "Running", running: bool = True, deleted: bool = False
) -> VirtualMachine:
    """Return a VM on a node."""
    return VirtualMachine(
        metadata=ObjectMeta(name=name, namespace="default", deletion_timestamp=CREATED if deleted else None),
        spec=VMSpec(running=running),
        status=VMStatus(phase=phase, node_name=node),
    )


def pod(of: str, node: str | None, *, phase: str = "Running", kind: str = names.VM_KIND) -> Pod:
    """Return a VM's pod on a node."""
    owner = OwnerReference(api_version=names.API_VERSION, kind=kind, name=of, controller=True)
    return Pod(
        metadata=ObjectMeta(name=f"virt-launcher-{of}-abcde", namespace="default", owner_references=(owner,)),
        spec=PodSpec(node_name=node),
        status=PodStatus(phase=phase),
    )


def drawn(renderable: Any, width: int = 200) -> list[str]:
    """Return the lines that a terminal of this width shows."""
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Run the command line; return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    return exit_.value.code, out, err
