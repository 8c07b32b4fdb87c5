"""Drills: nodes are drained or deleted under VMs, and the pod watch's history shows that no VM was harmed."""
