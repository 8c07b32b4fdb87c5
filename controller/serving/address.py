"""Parses listen addresses of the form `host:port`."""

from __future__ import annotations

from ipaddress import ip_address


class BindError(Exception):
    """The server cannot listen on the address. The message names the address and the reason."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`; `:8080` is every interface, `[::1]:8080` is IPv6. Raises BindError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the largest port
        raise BindError(
            f"{text!r} is not an address: use host:port, such as 127.0.0.1:8080, or 127.0.0.1:0 for a free port"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Return whether a host is reachable from this machine only; of names, only localhost counts as loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
