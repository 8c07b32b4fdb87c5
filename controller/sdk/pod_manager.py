"""`PodManager`: VMs by their launcher pods.

Importable as `controller.sdk.pod_manager` and, with this folder on PYTHONPATH, as `pod_manager`.
"""

from __future__ import annotations

from controller.sdk._moves import MigrationResult
from controller.sdk._pod_manager import PodManager

__all__ = ["MigrationResult", "PodManager"]
