"""The custom resources, as typed constants."""

from __future__ import annotations

from controller.domain import names
from controller.domain.objects import VirtualMachine, VirtualMachineMigration
from controller.kube.resources import Resource

VIRTUAL_MACHINES = Resource(names.GROUP, names.VERSION, names.VM_PLURAL, VirtualMachine)
MIGRATIONS = Resource(names.GROUP, names.VERSION, names.MIGRATION_PLURAL, VirtualMachineMigration)
