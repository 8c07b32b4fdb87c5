"""The synchronous Python API: virtual machines, pods, nodes and scenarios, for a person in a REPL or a script."""
