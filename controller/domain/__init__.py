"""VMs, pods and what to do about them, as values and pure functions: no I/O, no clock, no randomness of its own."""
