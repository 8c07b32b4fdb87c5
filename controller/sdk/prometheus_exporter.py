"""`ExporterState`, and the controller: `python prometheus_exporter.py` is `vmsim controller`.

Importable as `controller.sdk.prometheus_exporter` and, with this folder on PYTHONPATH, as `prometheus_exporter`.
"""

from __future__ import annotations

import sys

from controller.sdk._exporter import ExporterState

__all__ = ["ExporterState"]

if __name__ == "__main__":
    from controller.cli.entry import main

    main(["controller", *sys.argv[1:]])
