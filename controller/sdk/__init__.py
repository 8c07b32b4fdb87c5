"""The synchronous Python API: virtual machines, pods, nodes and scenarios, for a REPL or a script."""
