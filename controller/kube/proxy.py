"""Selection of the HTTP proxy for a server, by the rules of Go's clients (golang.org/x/net/http/httpproxy).

Guarantees: no I/O. A kubeconfig's `proxy-url` takes precedence over the environment, whose proxy is never used for
`localhost` and loopback addresses. An unusable proxy raises an error that names the setting it comes from. A password
in a proxy's URL is never shown.
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
    """The configured proxy cannot be used."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's URL, and the setting that it comes from (`named_by`)."""

    url: str
    named_by: str

    def __str__(self) -> str:
        """Return text for messages, without user and password."""
        return f"the proxy {shown(self.url)} of {self.named_by}"


@dataclass(frozen=True, slots=True)
class Environment:
    """The proxy settings of an environment: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""
    cgi: bool = False
    """Whether this process is a CGI program: then HTTP_PROXY may hold the `Proxy` header of an untrusted request."""
    names: Mapping[str, str] | None = None
    """The variable that sets each scheme's proxy."""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """Read the variables; an upper-case name takes precedence over the lower-case one."""
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
    """Return a URL without user and password, safe to show. The text need not be a valid URL."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme.rpartition('@')[2]}{slashes}{rest.rpartition('@')[2]}"


def choose(server: str, configured: str | None, environment: Environment) -> Proxy | None:
    """Return the proxy for a server's URL: the kubeconfig's, else the environment's; None if neither sets one.

    Raises ProxyError.
    """
    if configured:
        return _usable(Proxy(configured, "the kubeconfig's proxy-url"))
    url = for_url(server, environment)
    if url is None:
        return None
    return _usable(Proxy(url, (environment.names or {}).get(urlsplit(server).scheme) or "the environment"))


def for_url(server: str, environment: Environment) -> str | None:
    """Return the URL of the environment's proxy for a server's URL; None if it needs none. Raises ProxyError."""
    parts = urlsplit(server)
    proxy = _with_scheme({"http": environment.http, "https": environment.https}.get(parts.scheme, ""))
    if not proxy:
        return None
    if parts.scheme == "http" and environment.cgi:
        raise ProxyError(
            "HTTP_PROXY is not used while REQUEST_METHOD is set, as a CGI request could have set it: unset one of them"
        )
    endpoint = _endpoint(parts)
    return proxy if endpoint is not None and _needs_proxy(*endpoint, environment.no_proxy) else None


def _usable(proxy: Proxy) -> Proxy:
    try:
        parts = urlsplit(proxy.url)
    except ValueError:  # the text of the error may quote the URL
        raise ProxyError(f"{proxy} is no valid URL: want http://HOST:PORT") from None
    if parts.scheme not in _USABLE:
        raise ProxyError(
            f"{proxy} has a scheme that vmsim does not support: want http://HOST:PORT or https://HOST:PORT, "
            "or list the server in NO_PROXY"
        )
    if not parts.hostname or _endpoint(parts) is None:
        raise ProxyError(f"{proxy} has no valid host and port: want http://HOST:PORT")
    return proxy


def _with_scheme(text: str) -> str:
    """Return a proxy's URL; text without both a scheme and a host is read as a host. Empty text stays empty."""
    if not text:
        return ""
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme and parts.netloc:
            return text
    return f"http://{text}"


def _endpoint(parts: SplitResult) -> tuple[str, int] | None:
    """Return the host and the port of a URL; None if it has no host or an invalid port."""
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
    return not any(_matches(entry, host, address, port) for entry in _entries(no_proxy))


def _entries(no_proxy: str) -> Iterator[str]:
    return filter(None, (entry.strip().lower() for entry in no_proxy.split(",")))


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY matches a host: `*`, a CIDR, or an address or domain with an optional port."""
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
    """Return host and port, split as by Go's net.SplitHostPort: an IPv6 address has a port only after brackets."""
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
    """Return a host name in its IDNA (ASCII) form; a name without such a form is returned unchanged."""
    if name.isascii():
        return name
    dot = "." if name.startswith(".") else ""
    try:
        return dot + name.removeprefix(".").encode("idna").decode()
    except UnicodeError:
        return name
