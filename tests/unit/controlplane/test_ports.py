"""Ports are free, distinct, and away from those that others hand out."""

import dataclasses
import socket

from controller.controlplane.ports import choose_ports, is_free


def test_ports_are_distinct_and_below_those_kwokctl_and_systems_hand_out() -> None:
    """Nobody else looks for free ports there."""
    ports = dataclasses.astuple(choose_ports())

    assert len(set(ports)) == 6
    assert all(20_000 <= port < 29_000 for port in ports)


def test_port_that_is_listened_on_is_not_free() -> None:
    """Loopback is enough to be in the way."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])


def test_port_that_is_listened_on_at_all_addresses_is_not_free() -> None:
    """So are all addresses."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])
