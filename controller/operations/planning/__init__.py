"""The plan of a drain: which VMs leave, where each could go, when the nodes are empty, and what blocks it."""
