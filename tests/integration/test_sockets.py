"""Listening sockets are read from /proc, and loopback addresses are recognized."""

from __future__ import annotations

import os
import socket

import pytest

from tests.integration.sockets import ListeningSocket, listening_sockets, parse_listening

_HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, state: str, inode: int) -> str:
    """Return a line as the kernel prints it."""
    return f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"


def test_listening_ipv4_socket_is_read() -> None:
    """The kernel prints addresses as words in the machine's byte order."""
    table = _HEADER + row("0100007F:5B38", "0A", 11)

    assert parse_listening(table, little_endian=True) == {11: ("127.0.0.1", 23352)}


def test_listening_ipv6_socket_is_read() -> None:
    """Four words, each in the machine's byte order."""
    table = _HEADER + row("00000000000000000000000001000000:0050", "0A", 11)

    assert parse_listening(table, little_endian=True) == {11: ("::1", 80)}


def test_big_endian_machines_print_the_bytes_in_order() -> None:
    """The byte order is the machine's, not the network's."""
    table = _HEADER + row("7F000001:0050", "0A", 11)

    assert parse_listening(table, little_endian=False) == {11: ("127.0.0.1", 80)}


def test_connections_are_no_listening_sockets() -> None:
    """Only the state LISTEN counts."""
    table = _HEADER + row("0100007F:5B38", "01", 11)

    assert parse_listening(table, little_endian=True) == {}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_recognized(address: str) -> None:
    """In every form of the address."""
    assert ListeningSocket("etcd", address, 80).is_loopback


@pytest.mark.parametrize("address", ["10.0.0.1", "::", "::ffff:0.0.0.0"])
def test_other_addresses_are_not_loopback(address: str) -> None:
    """In particular the wildcard addresses (`::`, and in IPv4 form)."""
    assert not ListeningSocket("etcd", address, 80).is_loopback


def test_sockets_of_a_process_are_listed() -> None:
    """Of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        expected = ListeningSocket("test", *listener.getsockname())

        assert expected in listening_sockets({"test": os.getpid()})
