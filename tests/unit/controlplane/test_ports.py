"""Ports are free, distinct, and outside the ranges from which other programs choose."""

import dataclasses
import socket

from controller.controlplane.ports import choose_port, choose_ports, is_free


def test_ports_are_distinct_and_below_those_that_kwokctl_and_systems_choose() -> None:
    """No other program chooses ports there."""
    ports = dataclasses.astuple(choose_ports())

    assert len(set(ports)) == 6
    assert all(20_000 <= port < 29_000 for port in ports)


def test_a_single_port_is_chosen_from_the_same_range() -> None:
    """An additional scheduler gets its own."""
    assert 20_000 <= choose_port() < 29_000


def test_a_port_with_a_listener_on_loopback_is_not_free() -> None:
    """A listener on one address is enough."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])


def test_a_port_with_a_listener_on_all_addresses_is_not_free() -> None:
    """They include loopback."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()

        assert not is_free(listener.getsockname()[1])
