"""Exec credential plugins run as under client-go, with a deadline and a notice while the client waits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import uvloop

from controller.kube import plugin
from controller.kube.errors import PluginError
from controller.kube.kubeconfig import Cluster, Exec, Extension
from controller.kube.plugin import Printed

V1 = "client.authentication.k8s.io/v1"
HERE = Cluster(server="https://a:1")


def script(text: str, **fields: Any) -> Exec:
    """Return a plugin that is a shell script."""
    return Exec(command="sh", args=("-c", text), api_version=V1, **fields)


def credential(status: Mapping[str, str] = MappingProxyType({"token": "t"})) -> str:
    """Return the output of a plugin."""
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": {**status}})


def printing(text: str) -> Exec:
    """Return a plugin that prints this output."""
    return script(f"printf '%s' '{text}'")


async def run(given: Exec, cluster: Cluster = HERE, **arguments: Any) -> Printed:
    """Run a plugin, by default without a terminal."""
    return await plugin.run(given, cluster, **{"terminal": False, "deadline": 10.0} | arguments)


async def received(given: Exec, folder: Path, cluster: Cluster = HERE, **arguments: Any) -> Any:
    """Return the ExecCredential that a plugin receives."""
    text = f"printf '%s' \"$KUBERNETES_EXEC_INFO\" >{folder}/received; printf '%s' '{credential()}'"
    fields = {name: getattr(given, name) for name in ("provide_cluster_info", "interactive_mode", "env")}
    await run(script(text, **fields), cluster, **arguments)
    return json.loads(await asyncio.to_thread((folder / "received").read_text))


# --- output ----------------------------------------------------------------------------------------------------------


async def test_a_token_and_a_certificate_are_taken() -> None:
    """Either of them, or both. An expiry is ignored: the API server answers 401 when it is over."""
    pair = {"clientCertificateData": "C", "clientKeyData": "K"}
    assert await run(printing(credential({"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}))) == Printed(
        "t"
    )
    assert await run(printing(credential(pair))) == Printed("", "C", "K")
    assert await run(printing(credential({"token": "t"} | pair))) == Printed("t", "C", "K")


async def test_printed_credentials_are_in_no_repr() -> None:
    """A repr may get into a log."""
    assert "secret" not in repr(Printed("secret", "secret", "secret"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "printed no ExecCredential"),
        ("secret", "printed no ExecCredential"),
        ('["secret"]', "printed no ExecCredential"),
        (credential({}), "neither a token nor a certificate"),
        (credential({"token": ""}), "neither a token nor a certificate"),
        (credential({"clientCertificateData": "secret"}), "one of clientCertificateData and clientKeyData"),
        (credential({"clientKeyData": "secret", "token": "secret"}), "one of clientCertificateData and clientKeyData"),
        (credential({"token": "secret\nHeader: x"}), "a token with a line break"),
        (credential({"token": "secret"}).replace("/v1", "/v1beta1"), f"ExecCredential of .*/v1beta1; want .* of {V1}"),
        (credential({"token": "secret"}).replace("ExecC", "C"), f"Credential of {V1}; want ExecCredential"),
    ],
    ids=range(10),
)
async def test_output_that_is_no_credential_is_refused(text: str, words: str) -> None:
    """The error does not quote it, as it may contain a secret."""
    with pytest.raises(PluginError, match=f"^credential plugin 'sh' .*{words}") as caught:
        await run(printing(text))
    assert "secret" not in str(caught.value)


# --- input -----------------------------------------------------------------------------------------------------------


async def test_a_plugin_gets_no_cluster_by_default(tmp_path: Path) -> None:
    """It does get whether it may prompt the user."""
    assert await received(Exec(), tmp_path) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }


async def test_a_plugin_with_provide_cluster_info_gets_the_cluster(tmp_path: Path) -> None:
    """With the contents of the CA file, and the extension for plugins with its numbers."""
    (tmp_path / "ca").write_text("of the cluster")
    config = {"audience": "a", "attempts": 3, "deep": [{"x": 1.5}]}
    cluster = Cluster(
        server="https://a:1",
        tls_server_name="b",
        certificate_authority=str(tmp_path / "ca"),
        proxy_url="http://p:1",
        disable_compression=True,
        extensions=(
            Extension("other", {"no": "no"}),
            Extension("client.authentication.k8s.io/exec", config),
        ),
    )
    asking = Exec(provide_cluster_info=True)
    assert (await received(asking, tmp_path, cluster))["spec"]["cluster"] == {
        "server": "https://a:1",
        "tls-server-name": "b",
        "certificate-authority-data": base64.b64encode(b"of the cluster").decode(),
        "proxy-url": "http://p:1",
        "disable-compression": True,
        "config": config,
    }
    folded = Cluster(server="https://a:1", certificate_authority_data="YQ\n==\n")
    assert (await received(asking, tmp_path, folded))["spec"]["cluster"]["certificate-authority-data"] == "YQ=="
    open_ = Cluster(server="https://a:1", insecure_skip_tls_verify=True)
    assert (await received(asking, tmp_path, open_))["spec"]["cluster"] == {
        "server": "https://a:1",
        "insecure-skip-tls-verify": True,
    }


async def test_a_plugin_is_not_run_when_the_ca_file_cannot_be_read(tmp_path: Path) -> None:
    """It could send its credentials to a server that it cannot verify."""
    cluster = Cluster(server="https://a:1", certificate_authority="/no/ca")
    with pytest.raises(PluginError, match=r"'sh' needs the cluster's certificate-authority, .* '/no/ca'"):
        await run(script(f"touch {tmp_path}/run", provide_cluster_info=True), cluster)
    assert not (tmp_path / "run").exists()


async def test_a_plugin_has_our_environment_and_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of its own takes precedence."""
    monkeypatch.setenv("OURS", "a")
    monkeypatch.setenv("BOTH", "b")
    own = ({"name": "BOTH", "value": "c"}, {"name": "EMPTY"})
    text = credential({"token": "$OURS-$BOTH-$EMPTY-"}).replace('"', '\\"')
    assert await run(script(f'printf "{text}"', env=own)) == Printed("a-c--")


@pytest.mark.parametrize(
    ("mode", "terminal", "interactive"),
    [
        ("Never", True, False),
        ("Never", False, False),
        ("IfAvailable", True, True),
        ("IfAvailable", False, False),
        ("", True, True),
        ("Always", True, True),
    ],
)
async def test_a_plugin_is_interactive_only_if_its_mode_and_the_terminal_allow_it(
    tmp_path: Path,
    mode: str,
    terminal: bool,  # noqa: FBT001
    interactive: bool,  # noqa: FBT001
) -> None:
    """By `interactiveMode`."""
    found = await received(Exec(interactive_mode=mode), tmp_path, terminal=terminal)
    assert found["spec"]["interactive"] is interactive


async def test_a_plugin_of_mode_always_needs_a_terminal() -> None:
    """There would be no user to answer."""
    with pytest.raises(PluginError, match="'sh' has interactiveMode Always, and standard input is no terminal"):
        await run(script("exit 0", interactive_mode="Always"))


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_plugins_standard_error_is_copied_at_once_and_quoted_in_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it ends: the user may have to enter a code elsewhere."""
    done = tmp_path / "done"
    text = f"echo enter 1234 >&2; while ! test -e {done}; do sleep 0.02; done; exit 7"
    running = asyncio.create_task(run(script(text, install_hint="get it\nhere")))
    said = ""
    while "enter 1234" not in said:
        await asyncio.sleep(0.02)
        said += capsys.readouterr().err
    await asyncio.to_thread(done.touch)
    with pytest.raises(PluginError) as caught:
        await running
    assert str(caught.value) == "credential plugin 'sh' ended with 7: enter 1234 (get it here)"


async def test_the_end_of_a_long_standard_error_is_quoted() -> None:
    """The end has the reason."""
    with pytest.raises(PluginError, match=r"the reason$") as caught:
        await run(
            script("i=0; while test $i -lt 9000; do echo word$i; i=$((i+1)); done >&2; echo the reason >&2; exit 1")
        )
    assert len(str(caught.value)) < 2100


@pytest.mark.parametrize("command", ["no-such-plugin", "/etc/passwd", "a\0b", ""])
async def test_a_command_that_cannot_be_run_is_named(command: str) -> None:
    """With its install hint."""
    with pytest.raises(PluginError, match=r"cannot be run: .* \(get it here\)") as caught:
        await run(Exec(command=command, api_version=V1, install_hint="get it here"))
    assert repr(command) in str(caught.value)


async def process_ended(path: Path) -> None:
    """Wait until the process whose ID is in a file has ended."""
    number = int(await asyncio.to_thread(path.read_text))
    for _ in range(500):
        try:
            state = await asyncio.to_thread(Path(f"/proc/{number}/stat").read_text)
        except FileNotFoundError:
            return
        if state.rpartition(")")[2].split()[0] == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(number)


async def test_a_plugin_that_hangs_is_killed_with_its_children(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notice comes first; the error names the plugin and quotes its standard error."""
    text = f"sleep 3600 & echo $! >{tmp_path}/child; echo asking far.example >&2; wait"
    with pytest.raises(PluginError, match=r"'sh' has not ended within 4 s: asking far\.example"):
        await run(script(text), deadline=4.0, notice=0.1)
    assert "waiting for the kubeconfig's credential plugin 'sh', for at most 4 s\n" in capsys.readouterr().err
    await process_ended(tmp_path / "child")


async def test_the_child_that_keeps_a_plugins_output_open_is_killed(tmp_path: Path) -> None:
    """Even if the plugin itself has ended."""
    text = f"sleep 3600 & echo $! >{tmp_path}/child; exit 0"
    with pytest.raises(PluginError, match="has not ended"):
        await run(script(text), deadline=4.0)
    await process_ended(tmp_path / "child")


async def test_a_plugin_is_killed_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    """For example when the process stops."""
    running = asyncio.create_task(run(script(f"echo $$ >{tmp_path}/own; sleep 3600")))
    while not ((tmp_path / "own").exists() and (tmp_path / "own").read_text()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await process_ended(tmp_path / "own")


async def test_a_plugin_is_killed_when_its_caller_is_cancelled_during_the_start() -> None:
    """At any moment; asyncio alone would wait for the plugin's children."""
    for steps in range(24):
        running = asyncio.create_task(run(script("sleep 3600; true")))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=10)
        assert done, steps
        assert running.cancelled()


async def test_an_interactive_plugin_has_no_deadline_and_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    """The user may take as long as needed."""
    slow = script(f"sleep 0.4; printf '%s' '{credential()}'")
    assert await run(slow, terminal=True, deadline=0.1, notice=0.05) == Printed("t")
    assert capsys.readouterr().err == "waiting for the kubeconfig's credential plugin 'sh'\n"


async def test_a_quick_plugin_causes_no_notice() -> None:
    """Nor a late one: its timer is cancelled."""
    await run(printing(credential()))
    loop: Any = asyncio.get_running_loop()
    assert all(timer.cancelled() for timer in loop._scheduled)


def test_plugins_run_and_end_alike_on_the_controllers_event_loop(tmp_path: Path) -> None:
    """It differs from the event loop of these tests."""

    async def both() -> None:
        assert await run(printing(credential())) == Printed("t")
        with pytest.raises(PluginError, match="has not ended within"):
            await run(script(f"sleep 3600 & echo $! >{tmp_path}/child; wait"), deadline=4.0)
        await process_ended(tmp_path / "child")

    uvloop.run(both())


def test_the_deadline_is_a_minute_at_most_and_the_notice_ten_seconds() -> None:
    """For a non-interactive plugin."""
    assert plugin.DEADLINE <= 60
    assert plugin.NOTICE <= 10
