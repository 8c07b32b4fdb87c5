"""`VM` and `Node`, the values that the Python API takes.

Importable as `controller.sdk.node` and, with this folder on PYTHONPATH, as `node`: the classes are the same ones.
"""

from __future__ import annotations

from controller.sdk._fleet import VM, Node

__all__ = ["VM", "Node"]
