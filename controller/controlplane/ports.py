"""Chooses the ports of a plane: free now, and in a range from which other programs choose none.

kwokctl chooses ports from 32767 downwards, and systems choose those of outgoing connections from 32768 (Linux) or
49152 (macOS) upwards. The search starts at a random port of a lower range, so that two planes that start together
seldom collide; a port that is taken between choice and use makes the caller retry.
"""

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass

_FIRST, _LAST = 20_000, 28_999


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port on which a plane listens."""

    etcd: int
    etcd_peer: int
    kube_apiserver: int
    kube_controller_manager: int
    kube_scheduler: int
    kwok_controller: int


def choose_ports() -> Ports:
    """Return six free ports."""
    free = _free_ports()
    return Ports(next(free), next(free), next(free), next(free), next(free), next(free))


def choose_port() -> int:
    """Return one free port."""
    return next(_free_ports())


def _free_ports() -> Iterator[int]:
    span = _LAST - _FIRST + 1
    start = secrets.randbelow(span)
    for offset in range(span):
        port = _FIRST + (start + offset) % span
        if is_free(port):
            yield port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Return whether a port is free on loopback and on all addresses."""
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - only probed, for a process that listens there
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, port))
                probe.listen(1)
            except OSError:
                return False
    return True
