"""`VMManager`: create, read, list, wait for, move and delete VirtualMachines.

Importable as `controller.sdk.vm_manager` and, with this folder on PYTHONPATH, as `vm_manager`.
"""

from __future__ import annotations

from controller.sdk._moves import MigrationResult
from controller.sdk._status import Condition, VMStatus
from controller.sdk._vm_manager import VMManager

__all__ = ["Condition", "MigrationResult", "VMManager", "VMStatus"]
