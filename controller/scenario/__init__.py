"""Scenarios: nodes, VMs and their consumption over time, written in a file; checked, loaded, played, unloaded."""
