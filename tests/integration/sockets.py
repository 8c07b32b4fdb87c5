"""Lists the TCP sockets on which processes listen, from /proc alone."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True, slots=True, order=True)
class ListeningSocket:
    """A TCP socket on which a component accepts connections."""

    component: str
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        address = ipaddress.ip_address(self.address)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback


def listening_sockets(pids: Mapping[str, int]) -> list[ListeningSocket]:
    """Return the listening sockets of components (names to process ids), sorted."""
    found: set[ListeningSocket] = set()
    for component, pid in pids.items():
        inodes = _socket_inodes(pid)
        for table in ("tcp", "tcp6"):
            # The process's own table, since it may be in another network namespace.
            path = Path(f"/proc/{pid}/net/{table}")
            if path.exists():
                entries = parse_listening(path.read_text(), sys.byteorder == "little")
                found.update(
                    ListeningSocket(component, address, port)
                    for inode, (address, port) in entries.items()
                    if inode in inodes
                )
    return sorted(found)


def parse_listening(table: str, little_endian: bool) -> dict[int, tuple[str, int]]:  # noqa: FBT001 - named at every call site by its expression
    """Parse /proc/net/tcp or tcp6; return the address and port of each listening socket by its inode."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[9]): _endpoint(row[1], little_endian) for row in rows if row[3] == _LISTEN}


def _endpoint(text: str, little_endian: bool) -> tuple[str, int]:  # noqa: FBT001 - private, one call
    address, port = text.split(":")
    raw = bytes.fromhex(address)
    # The kernel prints each 32-bit word in the machine's byte order.
    words = [raw[index : index + 4] for index in range(0, len(raw), 4)]
    packed = b"".join(word[::-1] if little_endian else word for word in words)
    return str(ipaddress.ip_address(packed)), int(port, 16)


def _socket_inodes(pid: int) -> set[int]:
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = Path(entry.path).readlink().name
        except FileNotFoundError:
            continue  # it was closed meanwhile
        if target.startswith("socket:["):
            inodes.add(int(target[len("socket:[") : -1]))
    return inodes
