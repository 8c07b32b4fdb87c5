"""The error of a measurement that cannot be carried out."""


class BenchError(Exception):
    """A measurement cannot be carried out. The message says why, and what to do next."""
