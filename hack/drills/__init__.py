"""Drills: rehearsals of what happens to VMs when nodes are drained or lost, and proof that none was harmed."""
