"""The proxy is selected as by Go: the tables are those of golang.org/x/net/http/httpproxy."""

from __future__ import annotations

import traceback

import pytest

from controller.kube.proxy import Environment, Proxy, ProxyError, choose, for_url

PROXIES: list[tuple[Environment, str, str | None]] = [
    (Environment(http="127.0.0.1:8080"), "http://example.com", "http://127.0.0.1:8080"),
    (Environment(http="cache.corp.example.com:1234"), "http://example.com", "http://cache.corp.example.com:1234"),
    (Environment(http="cache.corp.example.com"), "http://example.com", "http://cache.corp.example.com"),
    (Environment(http="localhost"), "http://example.com", "http://localhost"),
    (Environment(http="https://cache.corp.example.com"), "http://example.com", "https://cache.corp.example.com"),
    (Environment(http="http://127.0.0.1:8080"), "http://example.com", "http://127.0.0.1:8080"),
    (Environment(http="https://127.0.0.1:8080"), "http://example.com", "https://127.0.0.1:8080"),
    (Environment(http="socks5://127.0.0.1"), "http://example.com", "socks5://127.0.0.1"),
    (Environment(http="foo://host"), "http://example.com", "foo://host"),
    (
        Environment(http="http.proxy.tld", https="secure.proxy.tld"),
        "http://insecure.tld/",
        "http://http.proxy.tld",
    ),
    (
        Environment(http="http.proxy.tld", https="secure.proxy.tld"),
        "https://secure.tld/",
        "http://secure.proxy.tld",
    ),
    (
        Environment(http="http.proxy.tld", https="https://secure.proxy.tld"),
        "https://secure.tld/",
        "https://secure.proxy.tld",
    ),
    (Environment(http="http.proxy.tld"), "https://secure.tld/", None),
    (Environment(http="http.proxy.tld"), "ftp://insecure.tld/", None),
    (Environment(https="https://secure.proxy.tld", cgi=True), "https://secure.tld/", "https://secure.proxy.tld"),
    (Environment(), "http://example.com", None),
    (Environment(no_proxy="example.com", http="proxy"), "http://example.com/", None),
    (Environment(no_proxy=".example.com", http="proxy"), "http://example.com/", "http://proxy"),
    (Environment(no_proxy="ample.com", http="proxy"), "http://example.com/", "http://proxy"),
    (Environment(no_proxy="example.com", http="proxy"), "http://foo.example.com/", None),
    (Environment(no_proxy=".foo.com", http="proxy"), "http://example.com/", "http://proxy"),
    (Environment(no_proxy=".示例.com", http="proxy"), "http://www.示例.com", None),
    (Environment(no_proxy="xn--fsq092h.com", http="proxy"), "http://www.示例.com", None),
    (Environment(no_proxy="示例.com", http="proxy"), "http://www.xn--fsq092h.com", None),
    (Environment(no_proxy="example.com", http="proxy"), "http://[1000::%25.example.com]:123", "http://proxy"),
    # Beyond Go's table: what is no URL of a server.
    (Environment(https="proxy"), "no URL at all", None),
    (Environment(https="proxy"), "https://", None),
    (Environment(https="proxy"), "https://far.example:port", None),
    (Environment(https="proxy"), "", None),
]


@pytest.mark.parametrize(("environment", "server", "expected"), PROXIES, ids=range(len(PROXIES)))
def test_the_environments_proxy_is_the_one_that_go_uses(
    environment: Environment, server: str, expected: str | None
) -> None:
    """Go's TestProxyForURL."""
    assert for_url(server, environment) == expected


def test_http_proxy_is_refused_in_a_cgi_program() -> None:
    """Go's issue 16405."""
    with pytest.raises(ProxyError, match="REQUEST_METHOD"):
        for_url("http://example.com", Environment(http="http://10.1.2.3:8080", cgi=True))


NO_PROXY = (
    "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, "
    "2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64"
)
HOSTS = [
    ("localhost", False),
    ("127.0.0.1", False),
    ("127.0.0.2", False),
    ("[::1]", False),
    ("[::2]", True),
    ("192.168.1.1", False),
    ("192.168.1.2", True),
    ("192.168.1.3", False),
    ("192.168.1.4", True),
    ("10.0.0.2", False),
    ("[2001:db8::52:0:1]", False),
    ("[2001:db8::52:0:2]", True),
    ("[2001:db8::52:0:3]", False),
    ("[2002:db8:a::123]", False),
    ("[fe80::424b:c8be:1643:a1b6]", True),
    ("barbaz.net", True),
    ("www.barbaz.net", False),
    ("foobar.com", False),
    ("www.foobar.com", False),
    ("foofoobar.com", True),
    ("baz.com", True),
    ("localhost.net", True),
    ("local.localhost", True),
    ("barbarbaz.net", True),
    ("wildcard.io", True),
    ("nested.wildcard.io", False),
    ("awildcard.io", True),
    # Beyond Go's table: the same addresses in their other form.
    ("[::ffff:127.0.0.1]", False),
    ("[::ffff:192.168.1.1]", False),
    ("[::ffff:10.0.0.2]", False),
]


@pytest.mark.parametrize(("host", "by_proxy"), HOSTS, ids=[host for host, _ in HOSTS])
def test_some_hosts_need_no_proxy(host: str, by_proxy: bool) -> None:  # noqa: FBT001
    """Go's TestUseProxy."""
    environment = Environment(http="proxy", no_proxy=NO_PROXY)
    assert (for_url(f"http://{host}:80", environment) is not None) == by_proxy


@pytest.mark.parametrize("host", [host for host, _ in HOSTS])
def test_an_asterisk_is_every_host(host: str) -> None:
    """Go's TestAllNoProxy."""
    assert for_url(f"http://{host}:80", Environment(http="proxy", no_proxy="*")) is None


@pytest.mark.parametrize(
    "no_proxy", [":1", ":80", ",", "[", "[]:80", "/", "1.2.3.4/99", "a/b", "%", "[::1%lo]:80", " "]
)
def test_an_invalid_entry_of_no_proxy_is_ignored(no_proxy: str) -> None:
    """Go's TestInvalidNoProxy, and similar entries."""
    assert for_url("http://example.com:80", Environment(http="proxy", no_proxy=no_proxy)) == "http://proxy"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTPS_PROXY": "upper", "https_proxy": "lower"}, Proxy("http://upper", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "", "https_proxy": "lower"}, Proxy("http://lower", "https_proxy")),
        ({"HTTPS_PROXY": "p", "NO_PROXY": "other", "no_proxy": "far.example"}, Proxy("http://p", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "p", "NO_PROXY": "", "no_proxy": "far.example"}, None),
        ({"HTTPS_PROXY": "p", "no_proxy": "far.example:6443"}, None),
        ({"HTTPS_PROXY": "p", "no_proxy": "far.example:443"}, Proxy("http://p", "HTTPS_PROXY")),
        ({"ALL_PROXY": "p", "HTTP_PROXY": "p"}, None),
    ],
)
def test_upper_case_takes_precedence_over_lower_case(variables: dict[str, str], expected: Proxy | None) -> None:
    """Go's TestFromEnvironment; an empty variable counts as unset."""
    assert choose("https://far.example:6443", None, Environment.of(variables)) == expected


def test_a_kubeconfigs_proxy_is_used_for_loopback_too() -> None:
    """It is configured for this very server."""
    found = choose("https://127.0.0.1:6443", "http://p:1", Environment.of({"NO_PROXY": "*"}))
    assert found == Proxy("http://p:1", "the kubeconfig's proxy-url")


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret@p:x",
        "http://u:sec/secret@p:1",
        "http://u:a://secret@p:x",
        "socks5://u:secret@p:1",
        "u:secret@p:1",
        "u:secret@p://x",
        "http://u:secret\u2100@p:1",
        "http://u:secret@[::1",
        "http://u:secret@",
    ],
)
def test_the_error_of_an_unusable_proxy_shows_no_password(url: str) -> None:
    """Even if the text is no URL at all."""
    with pytest.raises(ProxyError) as caught:
        choose("https://far.example:6443", url, Environment())
    assert "the kubeconfig's proxy-url" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
