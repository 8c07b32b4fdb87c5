"""Credentials are found where kubectl finds them, and each error names the cause."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import ConfigException

from controller.kube import credentials, errors
from controller.kube.authentication import Authentication
from controller.kube.client import Client
from controller.kube.contexts import Choice
from controller.kube.credentials import Credentials, Source
from controller.kube.resources import PODS
from controller.kube.transport import Request, Transport
from controller.serving.tls import Files
from tests.certificates import copy, self_signed
from tests.unit.kube.builders import (
    ApiServer,
    kubeconfig,
    listening,
    pod_body,
    reply,
    server_tls,
    status_body,
    stream,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a machine without any kubeconfig."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


@pytest.fixture
def api(secure: ApiServer) -> ApiServer:
    """Start a server with TLS, as credentials are for such servers alone."""
    return secure


@asynccontextmanager
async def certified(pair: Files, clients: Iterable[Files]) -> AsyncIterator[ApiServer]:
    """Start a server that requires one of these client certificates."""
    tls = server_tls(pair)
    tls.verify_mode = ssl.CERT_REQUIRED
    for client in clients:
        tls.load_verify_locations(client.certificate)
    async with listening(tls) as server:
        yield server


# --- sources ---------------------------------------------------------------------------------------------


def test_the_error_without_any_kubeconfig_names_every_source() -> None:
    """And the command that starts a local plane."""
    with pytest.raises(errors.CredentialsError) as caught:
        credentials.find(None)

    for word in ("--kubeconfig", "KUBECONFIG", ".kube/config", "vmsim up"):
        assert word in str(caught.value)


def test_sources_are_tried_in_kubectl_s_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag, then the environment, then the home directory."""
    (home / ".kube").mkdir()
    own = home / ".kube" / "config"
    own.write_text("{}")
    assert credentials.find(None) == Source(str(own))

    monkeypatch.setenv("KUBECONFIG", "/from/environment")
    assert credentials.find(None) == Source("/from/environment", listed=True)

    assert credentials.find("/from/flag") == Source("/from/flag")


async def test_a_kubeconfig_of_several_files_is_merged(home: Path, api: ApiServer) -> None:
    """KUBECONFIG may name more than one, as kubectl's may."""
    empty = home / "empty"
    empty.write_text("{apiVersion: v1, kind: Config}")
    full = kubeconfig(home / "full", api.url)

    loaded = await credentials.load(Source(f"{empty}:{full}", listed=True))

    assert loaded.configuration.host == api.url


async def test_the_first_files_current_context_wins(home: Path) -> None:
    """Otherwise another cluster than kubectl's would be changed."""
    first, second = kubeconfig(home / "a", "http://first"), kubeconfig(home / "b", "http://second")
    for both, host in ((f"{first}:{second}", "http://first"), (f"{second}:{first}", "http://second")):
        loaded = await credentials.load(Source(both, listed=True))
        assert loaded.configuration.host == host


async def test_missing_files_of_a_list_are_skipped(home: Path, api: ApiServer) -> None:
    """Empty names, too; a file listed twice counts once."""
    config = kubeconfig(home / "config", api.url)
    loaded = await credentials.load(Source(f":{home}/none::{config}:{config}:", listed=True))
    assert loaded.configuration.host == api.url


@pytest.mark.parametrize("listed", ["none", ":", "none:also-none", "~/config"])
async def test_a_list_without_an_existing_file_is_refused(home: Path, listed: str) -> None:
    """The service account or localhost does not replace it; like kubectl, `~` is a literal folder name."""
    kubeconfig(home / "config", "http://127.0.0.1:1")
    with pytest.raises(errors.CredentialsError, match="no file that KUBECONFIG names exists"):
        await Client.connect(Source(listed, listed=True))


async def test_every_broken_file_of_a_list_is_named(home: Path, api: ApiServer) -> None:
    """Even if the other files are enough."""
    (home / "a").write_text("a: [")
    (home / "b").write_text("clusters: x")
    good = kubeconfig(home / "good", api.url)
    with pytest.raises(errors.CredentialsError, match=r"cannot use .*/a: .*; cannot use .*/b: "):
        await Client.connect(Source(f"{good}:{home}/a:{home}/b", listed=True))


async def test_the_flag_names_one_file(home: Path, api: ApiServer) -> None:
    """Its name may contain the separator of KUBECONFIG."""
    config = kubeconfig(home / "a:b", api.url)
    assert (await credentials.load(Source(str(config)))).configuration.host == api.url


async def test_relative_paths_belong_to_the_folder_of_their_file(home: Path, api: ApiServer) -> None:
    """Neither to the working directory nor to the first file's folder; a plugin's path, too."""
    (home / "x").mkdir()
    (home / "x" / "token").write_text("from-file")
    (home / "x" / "plugin").write_text(
        '#!/bin/sh\necho \'{"apiVersion": "v1", "kind": "ExecCredential", "status": {"token": "from-plugin"}}\'\n'
    )
    (home / "x" / "plugin").chmod(0o755)
    for user, token in (
        ({"tokenFile": "token"}, "from-file"),
        ({"exec": {"apiVersion": "v1", "command": "./plugin"}}, "from-plugin"),
    ):
        kubeconfig(home / "x" / "config", api.url, user)
        (home / "empty").write_text("")
        loaded = await credentials.load(Source(f"{home}/empty:{home}/x/config", listed=True))
        assert loaded.configuration.api_key["BearerToken"] == f"Bearer {token}"


async def test_a_token_takes_precedence_over_a_plugin(home: Path, api: ApiServer) -> None:
    """The plugin does not run at all."""
    user = {"token": "t", "exec": {"apiVersion": "v1", "command": "no-such-plugin"}}
    loaded = await credentials.load(Source(str(kubeconfig(home / "config", api.url, user))))
    assert loaded.configuration.api_key["BearerToken"] == "Bearer t"


@pytest.mark.parametrize(("there", "token"), [(True, "from-file"), (False, "t")])
async def test_a_token_file_precedes_a_token(home: Path, api: ApiServer, there: bool, token: str) -> None:  # noqa: FBT001
    """If it exists, as in client-go."""
    if there:
        (home / "token").write_text("from-file")
    user = {"token": "t", "tokenFile": "token"}
    loaded = await credentials.load(Source(str(kubeconfig(home / "config", api.url, user))))
    assert loaded.configuration.api_key["BearerToken"] == f"Bearer {token}"


async def test_a_context_may_be_anonymous(home: Path) -> None:
    """Over TLS, too."""
    config = json.loads(kubeconfig(home / "config", "https://127.0.0.1:1").read_text())
    del config["contexts"][0]["context"]["user"]
    (home / "config").write_text(json.dumps(config))
    async with await Client.connect(Source(str(home / "config"))):
        pass


def test_a_context_of_a_service_account_is_refused() -> None:
    """It is not silently ignored."""
    with pytest.raises(errors.CredentialsError, match="there is no context 'x'"):
        credentials.namespace(Source(None, choice=Choice(context="x")))


def test_the_namespace_flag_takes_precedence(home: Path) -> None:
    """Over the context's, and the pod's own."""
    config = kubeconfig(home / "config", "http://127.0.0.1:1")
    for path in (str(config), None):
        assert credentials.namespace(Source(path, choice=Choice(namespace="mine"))) == "mine"


@pytest.mark.parametrize(("context", "namespace"), [({"namespace": "mine"}, "mine"), ({}, "default")])
def test_the_namespace_is_the_current_contexts(home: Path, context: dict[str, str], namespace: str) -> None:
    """As kubectl has it; `default` where the context names none."""
    config = json.loads(kubeconfig(home / "config", "http://127.0.0.1:1").read_text())
    config["contexts"][0]["context"] |= context
    (home / "config").write_text(json.dumps(config))

    assert credentials.namespace(Source(str(home / "config"))) == namespace


def test_the_namespace_of_a_broken_kubeconfig_is_a_credentials_error(home: Path) -> None:
    """Whichever error kubernetes-asyncio raises."""
    (home / "broken").write_text("[]")
    with pytest.raises(errors.CredentialsError, match=r"cannot use .*broken"):
        credentials.namespace(Source(str(home / "broken")))


# --- errors ----------------------------------------------------------------------------------------------


def without(*path: str | int) -> str:
    """Return a valid kubeconfig without one of its parts."""
    config: dict[str, Any] = {
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "test", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    *parents, last = path
    part: Any = config
    for name in parents:
        part = part[name]
    del part[last]
    return json.dumps(config)


BROKEN = {
    "broken YAML": "a: [",
    "tab in YAML": "a:\n\t- b",
    "empty": "",
    "a word": "hello",
    "a list": "[1, 2]",
    "no current context": without("current-context"),
    "no contexts": without("contexts"),
    "missing context": without("contexts", 0),
    "missing cluster": without("clusters", 0),
    "context without a cluster": without("contexts", 0, "context", "cluster"),
    "clusters are a word": '{"current-context": "a", "clusters": "x"}',
    "context is a word": '{"current-context": "a", "contexts": [{"name": "a", "context": "x"}]}',
    "server is a number": without("users").replace('"https://127.0.0.1:1"', "7"),
    "certificate is no base64": without("users").replace('"server"', '"certificate-authority-data": "%", "server"'),
    "certificate file is missing": without("users").replace('"server"', '"certificate-authority": "/no", "server"'),
    "certificate is no certificate": without("current-context").replace(
        '"server"', '"certificate-authority-data": "aGVsbG8=", "server"'
    )[:-1]
    + ', "current-context": "test"}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_kubeconfig_is_refused_by_name(home: Path, text: str) -> None:
    """The message names the file for every defect."""
    path = home / "broken"
    path.write_text(text)

    with pytest.raises(errors.CredentialsError, match=str(path)):
        await Client.connect(Source(str(path)))


async def test_the_error_of_a_missing_kubeconfig_says_that_it_does_not_exist(home: Path) -> None:
    """No other source replaces it, and the message does not speak of its contents."""
    with pytest.raises(errors.CredentialsError, match=f"{home}/none.*does not exist"):
        await Client.connect(Source(f"{home}/none"))


async def test_a_directory_is_no_kubeconfig(home: Path) -> None:
    """Nor is a file of bytes."""
    with pytest.raises(errors.CredentialsError, match=str(home)):
        await Client.connect(Source(str(home)))
    (home / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.CredentialsError, match="bytes"):
        await Client.connect(Source(str(home / "bytes")))


async def test_an_exec_plugin_that_fails_is_quoted(home: Path) -> None:
    """Its standard error has the reason."""
    plugin = {"exec": {"apiVersion": "v1", "command": "sh", "args": ["-c", "echo log in first >&2; exit 3"]}}
    plugin["exec"]["interactiveMode"] = "Never"
    path = kubeconfig(home / "config", "https://127.0.0.1:1", plugin)

    with pytest.raises(errors.CredentialsError, match="log in first"):
        await Client.connect(Source(str(path)))


async def test_a_missing_exec_plugin_is_named(home: Path) -> None:
    """It may just not be installed."""
    plugin = {"exec": {"apiVersion": "v1", "command": "no-such-plugin"}}
    path = kubeconfig(home / "config", "https://127.0.0.1:1", plugin)

    with pytest.raises(errors.CredentialsError, match="no-such-plugin"):
        await Client.connect(Source(str(path)))


# --- without TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "127.0.0.1:1", "HTTP://127.0.0.1:1"])
@pytest.mark.parametrize(
    "user",
    [
        {"token": "t"},
        {"tokenFile": "token"},
        {"username": "u", "password": "p"},
        {"exec": {"apiVersion": "v1", "command": "no-such-plugin"}},
        {"auth-provider": {"name": "oidc", "config": {"id-token": "a.e30.b"}}},
        {"client-certificate": "no-such-file", "client-key": "no-such-file"},
    ],
    ids=["token", "token file", "password", "plugin", "auth-provider", "certificate"],
)
async def test_no_credential_is_sent_over_plain_http(home: Path, server: str, user: dict[str, Any]) -> None:
    """As in kubectl, which does not even run a plugin; impersonation headers are sent."""
    (home / "token").write_text("t")
    source = Source(str(kubeconfig(home / "config", server, user | {"as": "jane"})))
    loaded = await credentials.load(source)
    assert (loaded.configuration.api_key, loaded.configuration.cert_file) == ({}, None)
    assert loaded.headers == (("Impersonate-User", "jane"),)


async def test_a_request_over_plain_http_carries_no_token(home: Path) -> None:
    """Whatever the kubeconfig says."""
    async with await Client.connect(Source(str(kubeconfig(home / "config", "http://127.0.0.1:1")))) as client:
        assert await client._authentication.headers() == {}


# --- while running ---------------------------------------------------------------------------------------


async def test_after_401_the_rotated_token_is_used(api: ApiServer, client: Client, config: Path) -> None:
    """The refused request fails; the next one carries the token that the kubeconfig has by then."""
    kubeconfig(config, api.url, {"token": "second"})
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    with pytest.raises(errors.UnauthorizedError):
        await client.get(PODS, "a", namespace="default")

    api.handler = reply(pod_body("a"))
    await client.get(PODS, "a", namespace="default")

    assert [seen.headers["Authorization"] for seen in api.seen] == ["Bearer first", "Bearer second"]


async def test_a_refused_watch_rereads_the_credentials_too(api: ApiServer, client: Client, config: Path) -> None:
    """A reflector recovers by itself."""
    kubeconfig(config, api.url, {"token": "second"})
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    with pytest.raises(errors.UnauthorizedError):
        await anext(client.watch(PODS, resource_version="1", life=300))

    api.handler = reply({})
    await client.ready()

    assert api.seen[-1].headers["Authorization"] == "Bearer second"


async def test_credentials_are_reloaded_at_most_once_in_ten_seconds(
    api: ApiServer, client: Client, config: Path
) -> None:
    """Exec plugins are expensive."""
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    for token in ("second", "third"):
        kubeconfig(config, api.url, {"token": token})
        with pytest.raises(errors.UnauthorizedError):
            await client.ready()

    with pytest.raises(errors.UnauthorizedError):
        await client.ready()

    assert api.seen[-1].headers["Authorization"] == "Bearer second"


async def test_a_failed_reload_leaves_the_old_token_in_use(api: ApiServer, client: Client, config: Path) -> None:
    """The caller gets the 401."""
    await asyncio.to_thread(config.unlink)
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    with pytest.raises(errors.UnauthorizedError):
        await client.ready()

    api.handler = reply({})
    await client.ready()

    assert api.seen[-1].headers["Authorization"] == "Bearer first"


def two_clusters(path: Path, here: str, other: str, current: str, token: str) -> Path:
    """Write a kubeconfig of two contexts, `here` and `other`, of which one is current."""
    tls = {"insecure-skip-tls-verify": True}
    config = {
        "current-context": current,
        "clusters": [
            {"name": "here", "cluster": {"server": here} | tls},
            {"name": "other", "cluster": {"server": other} | tls},
        ],
        "users": [{"name": "here", "user": {"token": token}}, {"name": "other", "user": {"token": "others"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in ("here", "other")],
    }
    path.write_text(json.dumps(config))
    return path


async def refused_then_accepted(api: ApiServer, client: Client) -> str:
    """Have one request refused; return the Authorization header of the next one."""
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    with pytest.raises(errors.UnauthorizedError):
        await client.ready()
    api.handler = reply({})
    await client.ready()
    return api.seen[-1].headers["Authorization"]


async def test_a_reload_ignores_a_new_current_context(api: ApiServer, home: Path) -> None:
    """The token of another context is for another cluster."""
    path = two_clusters(home / "two", api.url, "https://127.0.0.1:1", "here", "first")
    async with await Client.connect(Source(str(path))) as client:
        two_clusters(path, api.url, "https://127.0.0.1:1", "other", "second")
        assert await refused_then_accepted(api, client) == "Bearer second"


async def test_a_reload_refuses_a_cluster_entry_that_names_another_server(
    api: ApiServer, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This is logged, and the reload is retried."""
    path = two_clusters(home / "two", api.url, "https://127.0.0.1:1", "here", "first")
    async with await Client.connect(Source(str(path))) as client:
        two_clusters(path, "https://u:secret@127.0.0.1:2", api.url, "here", "second")
        assert await refused_then_accepted(api, client) == "Bearer first"
        logged = capsys.readouterr().out
        assert f"cluster 'here' was {api.url} at the start and is https://127.0.0.1:2 now" in logged
        assert "secret" not in logged

        client._authentication._renewed_at = float("-inf")
        two_clusters(path, api.url, "https://127.0.0.1:1", "other", "third")
        assert await refused_then_accepted(api, client) == "Bearer third"


@pytest.mark.parametrize("by", ["plugin", "files"])
async def test_a_renewed_client_certificate_is_presented(home: Path, pair: Files, by: str) -> None:
    """On every connection, those of watches included: each keeps the certificate it was opened with."""
    pairs = [await asyncio.to_thread(self_signed, home, name) for name in ("first", "second")]
    text = """printf '{"apiVersion": "v1", "kind": "ExecCredential", "status": {"clientCertificateData": "%s", """
    text += (
        '''"clientKeyData": "%s"}}' "$(sed 's/$/\\\\n/' crt | tr -d '\\n')" "$(sed 's/$/\\\\n/' key | tr -d '\\n')"'''
    )
    shown = Files(home / "crt", home / "key")
    user: dict[str, Any] = {"client-certificate": str(shown.certificate), "client-key": str(shown.key)}
    if by == "plugin":
        user = {"exec": {"apiVersion": "v1", "command": "sh", "args": ["-c", f"cd {home}; {text}"]}}
    async with certified(pair, pairs) as api:
        copy(pairs[0], shown)
        async with await Client.connect(Source(str(kubeconfig(home / "config", api.url, user)))) as client:
            seen = [await certificate_subject(api, client)]
            watch = client.watch(PODS, resource_version="1", life=300)
            api.handler = stream(60.0)
            assert await anext(watch) == []
            copy(pairs[1], shown)
            api.handler = reply(status_body(401, "Unauthorized"), status=401)
            with pytest.raises(errors.UnauthorizedError):
                await client.ready()
            with pytest.raises(errors.TransportError):
                await anext(watch)
            seen.append(await certificate_subject(api, client))
    assert seen == ["first", "second"]


async def certificate_subject(api: ApiServer, client: Client) -> str:
    """Return the subject of the client certificate of a request."""
    names: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert")
        names.extend(value for part in certificate["subject"] for _, value in part)
        return web.json_response({})

    api.handler = answer
    await client.ready()
    return names[0]


async def test_an_unchanged_client_certificate_reopens_no_connection(home: Path, pair: Files) -> None:
    """A 401 may have other reasons, and watches would restart for nothing."""
    mine = await asyncio.to_thread(self_signed, home, "first")
    user = {"client-certificate": str(mine.certificate), "client-key": str(mine.key)}
    async with (
        certified(pair, [mine]) as api,
        await Client.connect(Source(str(kubeconfig(home / "config", api.url, user)))) as client,
    ):
        before = client._transport._sessions
        api.handler = reply(status_body(401, "Unauthorized"), status=401)
        with pytest.raises(errors.UnauthorizedError):
            await client.ready()
        assert client._transport._sessions is before
        assert not before.requests.closed


async def test_a_plugin_may_take_longer_than_a_request(home: Path, api: ApiServer) -> None:
    """The request ends at its deadline; the next one uses the plugin's credentials."""
    (home / "token").write_text("first")
    async with await Client.connect(Source(str(slow_plugin(home, api.url)))) as client:
        (home / "token").write_text("second")
        await give_up_on(client, api, home)
        (home / "go").touch()
        assert client._authentication._renewing is not None
        await client._authentication._renewing
        api.handler = reply({})
        await client.ready()
    assert api.seen[-1].headers["Authorization"] == "Bearer second"


async def test_closing_a_client_kills_its_plugin(home: Path, api: ApiServer) -> None:
    """It does not wait for it."""
    (home / "token").write_text("first")
    async with await Client.connect(Source(str(slow_plugin(home, api.url)))) as client:
        await give_up_on(client, api, home)
    assert client._authentication._renewing is not None
    assert client._authentication._renewing.cancelled()


def slow_plugin(home: Path, url: str) -> Path:
    """Write a kubeconfig whose plugin creates the file `runs` and then waits for the file `go`, which exists."""
    (home / "go").touch()
    status = '{"apiVersion": "v1", "kind": "ExecCredential", "status": {"token": "%s"}}'
    text = f"cd {home}; touch runs; while ! test -e go; do sleep 0.02; done; printf '{status}' \"$(cat token)\""
    user = {"exec": {"apiVersion": "v1", "command": "sh", "args": ["-c", text], "interactiveMode": "Never"}}
    return kubeconfig(home / "config", url, user)


async def give_up_on(client: Client, api: ApiServer, home: Path) -> None:
    """Have a request refused, and cancel it while the plugin runs, as its deadline does."""
    (home / "go").unlink()
    (home / "runs").unlink()
    api.handler = reply(status_body(401, "Unauthorized"), status=401)
    asking = asyncio.create_task(client.ready())
    while not (home / "runs").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_token_file_may_end_in_a_newline(home: Path, api: ApiServer) -> None:
    """As editors write it, and as kubectl reads it."""
    (home / "token").write_text("from-file\n")
    source = Source(str(kubeconfig(home / "config", api.url, {"tokenFile": str(home / "token")})))

    async with await Client.connect(source) as client:
        await client.ready()

    assert api.seen[0].headers["Authorization"] == "Bearer from-file"


def connected(configuration: Configuration) -> Client:
    """Return a client of a library configuration."""
    transport = Transport(configuration)
    return Client(transport, Authentication(Credentials(configuration, Source(None)), transport))


@pytest.mark.parametrize("error", [ConfigException("Token file exists but empty."), ValueError("no"), OSError("no")])
async def test_a_token_that_cannot_be_refreshed_fails_only_the_request(api: ApiServer, error: Exception) -> None:
    """It is a KubeError, which callers retry."""

    def refresh(_: Configuration) -> None:
        raise error

    configuration = Configuration(host=api.url, api_key={"BearerToken": "Bearer first"})
    configuration.refresh_api_key_hook = refresh
    async with connected(configuration) as client:
        with pytest.raises(errors.KubeError):
            await client.ready()
        with pytest.raises(errors.KubeError):
            await anext(client.watch(PODS, resource_version="1", life=300))

    assert api.seen == []


async def test_a_token_refresh_that_hangs_ends_at_the_requests_deadline(api: ApiServer) -> None:
    """The deadline covers the steps before the request, too."""

    async def hang(_: Configuration) -> None:
        await asyncio.sleep(3600)

    configuration = Configuration(host=api.url, api_key={"BearerToken": "Bearer first"})
    configuration.refresh_api_key_hook = hang
    async with connected(configuration) as client:
        with pytest.raises(errors.TransportError):
            await client._send(Request("GET", "/readyz"), deadline=0.05)
