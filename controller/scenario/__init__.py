"""Scenario files: nodes, VMs and their consumption over time; checked, loaded, played and unloaded."""
