"""Which proxy requests to a server go through, if any: what Go's clients would use (golang.org/x/net/http/httpproxy).

Guarantees: no I/O. A kubeconfig's `proxy-url` comes before the environment; what the environment names is never used
for `localhost` and loopback addresses. A proxy that cannot be used is refused with where it was named; a password in
its URL is never shown.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_USABLE: Final = ("http", "https")

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class ProxyError(Exception):
    """What was named is no proxy that requests could go through."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's URL, and who named it."""

    url: str
    named_by: str

    def __str__(self) -> str:
        """Name it for a person, without its password."""
        return f"the proxy {shown(self.url)} of {self.named_by}"


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that name proxies, and the hosts that need none."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""
    cgi: bool = False
    """Whether a web server runs us: then HTTP_PROXY may be a header that a stranger sent."""
    names: Mapping[str, str] | None = None
    """The variable that each scheme's proxy was found in."""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """Read the variables; upper case comes before lower case."""
        found = {name: variables[name] for name in _NAMES if variables.get(name)}
        first = {name.lower(): name for name in reversed(found)}
        return cls(
            http=found.get(first.get("http_proxy", ""), ""),
            https=found.get(first.get("https_proxy", ""), ""),
            no_proxy=found.get(first.get("no_proxy", ""), ""),
            cgi=bool(variables.get("REQUEST_METHOD")),
            names={"http": first.get("http_proxy", ""), "https": first.get("https_proxy", "")},
        )


_NAMES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def shown(url: str) -> str:
    """Return a URL as anybody may see it, without user and password; of what may be no URL, too."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme.rpartition('@')[2]}{slashes}{rest.rpartition('@')[2]}"


def choose(server: str, configured: str | None, environment: Environment) -> Proxy | None:
    """Return the proxy for a server's URL: the one a kubeconfig configures, else the environment's.

    Raises ProxyError.
    """
    if configured:
        return _usable(Proxy(configured, "the kubeconfig's proxy-url"))
    url = for_url(server, environment)
    if url is None:
        return None
    return _usable(Proxy(url, (environment.names or {}).get(urlsplit(server).scheme) or "the environment"))


def for_url(server: str, environment: Environment) -> str | None:
    """Return the URL of the environment's proxy for a server's URL. Raises ProxyError."""
    parts = urlsplit(server)
    proxy = _with_scheme({"http": environment.http, "https": environment.https}.get(parts.scheme, ""))
    if not proxy:
        return None
    if parts.scheme == "http" and environment.cgi:
        raise ProxyError("HTTP_PROXY is not used where REQUEST_METHOD is set, since a stranger may have sent it")
    place = _place(parts)
    return proxy if place is not None and _needs_proxy(*place, environment.no_proxy) else None


def _usable(proxy: Proxy) -> Proxy:
    try:
        parts = urlsplit(proxy.url)
    except ValueError:  # its words may quote the URL
        raise ProxyError(f"{proxy} is no valid URL: want http://HOST:PORT") from None
    if parts.scheme not in _USABLE:
        raise ProxyError(
            f"{proxy} is none that vmsim can use: want http://HOST:PORT or https://HOST:PORT; "
            "hosts in NO_PROXY need no proxy"
        )
    if not parts.hostname or _place(parts) is None:
        raise ProxyError(f"{proxy} has no valid host and port: want http://HOST:PORT")
    return proxy


def _with_scheme(text: str) -> str:
    """Return a proxy's URL; one without a scheme, or with no more than one, is a host."""
    if not text:
        return ""
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme and parts.netloc:
            return text
    return f"http://{text}"


def _place(parts: SplitResult) -> tuple[str, int] | None:
    """Return host and port of a URL; None if it has none."""
    try:
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    return (_ascii(host), port or _PORTS.get(parts.scheme, 0)) if host else None


def _needs_proxy(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    return not any(_spared(entry, host, address, port) for entry in _entries(no_proxy))


def _entries(no_proxy: str) -> Iterator[str]:
    return filter(None, (entry.strip().lower() for entry in no_proxy.split(",")))


def _spared(entry: str, host: str, address: Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY means this host: `*`, a network, an address, a domain; the last two with a port."""
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    name, only = _split_port(entry)
    if not name or (only and only != str(port)):
        return False
    wanted = _address(name) if "%" not in name else None
    if wanted is not None or address is not None:
        return address == wanted
    domain = _ascii(name.removeprefix("*") if name.startswith("*.") else name)
    return host.endswith(domain) if domain.startswith(".") else host == domain or host.endswith(f".{domain}")


def _split_port(entry: str) -> tuple[str, str]:
    """Split off a port, as Go's net.SplitHostPort: an IPv6 address has one only in brackets."""
    host, colon, port = entry.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return (host, port) if colon and ":" not in host and "[" not in entry else (entry, "")


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    address, slash, prefix = text.partition("/")
    if not slash or not prefix.isdecimal() or "%" in address:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _ascii(name: str) -> str:
    """Write a name with letters beyond ASCII as DNS does; one that has no such form stays as it is."""
    if name.isascii():
        return name
    dot = "." if name.startswith(".") else ""
    try:
        return dot + name.removeprefix(".").encode("idna").decode()
    except UnicodeError:
        return name
