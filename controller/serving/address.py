"""Where a server listens, as a person writes it: `host:port`."""

from __future__ import annotations

from ipaddress import ip_address


class BindError(Exception):
    """The address cannot be listened on. The message names it and says why."""


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` (`:8080` means every interface, `[::1]:8080` an IPv6 one). Raises BindError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the largest port
        raise BindError(
            f"{text!r} is no address: want host:port, such as 127.0.0.1:8080, or 127.0.0.1:0 for a free port"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host; a name other than localhost counts as reachable by others."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
