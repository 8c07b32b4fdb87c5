"""What ends a benchmark before its time."""


class BenchError(Exception):
    """A measurement cannot be carried out. The message says why, and what to do."""
