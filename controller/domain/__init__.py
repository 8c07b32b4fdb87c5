"""VMs, pods and the decisions about them, as values and pure functions: no I/O, no clock, no randomness of its own."""
