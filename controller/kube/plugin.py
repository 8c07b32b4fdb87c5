"""Credential plugins: programs named by a kubeconfig that print who we are (client.authentication.k8s.io).

Guarantees: a plugin is told what client-go would tell it, the cluster included where it wants that. What it says on
standard error reaches ours at once. One that nobody can answer has `DEADLINE` seconds and is then ended, with all that
it started; one that may ask the person at the terminal has as long as they need. Either way it is soon said what is
waited for. A failure is a `PluginError` that names the command, and quotes nothing of what it printed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from controller.kube.contexts import LINE_BREAK
from controller.kube.errors import PluginError
from controller.kube.kubeconfig import Cluster, Exec

DEADLINE: Final = 60.0
"""Seconds that a plugin has, unless it may ask a person."""
NOTICE: Final = 5.0
"""Seconds after which it is said that a plugin is waited for."""
_REAP: Final = 1.0
"""Seconds for the end of a plugin that was killed."""
_QUOTED: Final = 2000
"""Bytes of its last words in an error."""
_EXTENSION: Final = "client.authentication.k8s.io/exec"


@dataclass(frozen=True, slots=True)
class Printed:
    """What a plugin says we are: a token, a certificate with its key (PEM), or both."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class _Credential(msgspec.Struct, frozen=True, rename="camel"):
    kind: str
    api_version: str
    status: _Status | None = None


async def run(
    plugin: Exec, cluster: Cluster, *, terminal: bool, deadline: float = DEADLINE, notice: float = NOTICE
) -> Printed:
    """Run a plugin for a cluster; `terminal` says that a person sits at standard input. Raises PluginError."""
    interactive = _interactive(plugin, terminal=terminal)
    limit = None if interactive else deadline
    try:
        process = await _start(plugin, cluster, interactive=interactive)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PluginError(_failure(plugin, f"cannot be run: {reason}")) from error
    words = bytearray()
    waiting = asyncio.get_running_loop().call_later(notice, _say, _waiting_for(plugin, limit))
    ended = False
    try:
        async with asyncio.timeout(limit):
            out, _, code = await asyncio.gather(_read(process.stdout), _pass_on(process.stderr, words), process.wait())
        ended = True
    except TimeoutError:
        raise PluginError(_failure(plugin, f"has not ended within {deadline:g} s", words)) from None
    finally:
        waiting.cancel()
        if not ended:
            await _end(process, group=not interactive)
    if code != 0:
        raise PluginError(_failure(plugin, f"ended with {code}", words))
    return _printed(plugin, out)


async def _start(plugin: Exec, cluster: Cluster, *, interactive: bool) -> asyncio.subprocess.Process:
    """Start it; one whose start nobody waits for any more is ended at once. Raises OSError and ValueError."""
    information = json.dumps(_information(plugin, cluster, interactive=interactive))
    own = {variable["name"]: variable.get("value", "") for variable in plugin.env}
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env={**os.environ, **own, "KUBERNETES_EXEC_INFO": information},
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if interactive else asyncio.subprocess.PIPE,
            start_new_session=not interactive,  # a group that can be ended as a whole
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio would end the plugin alone, and wait for whatever it has started
        with suppress(OSError, ValueError):
            await _end(await starting, group=not interactive)
        raise


def _interactive(plugin: Exec, *, terminal: bool) -> bool:
    """Whether it may ask a person."""
    if plugin.interactive_mode == "Always" and not terminal:
        raise PluginError(_failure(plugin, "wants to ask a person, and standard input is no terminal"))
    return terminal and plugin.interactive_mode != "Never"


def _information(plugin: Exec, cluster: Cluster, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster(plugin, cluster)
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}


def _cluster(plugin: Exec, cluster: Cluster) -> dict[str, Any]:
    """Return where the cluster is: a certificate's file by what is in it, and what the kubeconfig has for plugins."""
    authority = "".join(cluster.certificate_authority_data.split())
    if cluster.certificate_authority:
        try:
            authority = base64.b64encode(Path(cluster.certificate_authority).read_bytes()).decode()
        except OSError as error:
            wrong = f"cannot be told the cluster's certificate-authority: {error}"
            raise PluginError(_failure(plugin, wrong)) from error
    told: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": authority,
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": next((known.extension for known in cluster.extensions if known.name == _EXTENSION), None),
    }
    return {name: value for name, value in told.items() if value}


def _printed(plugin: Exec, out: bytes) -> Printed:
    try:
        credential = msgspec.json.decode(out, type=_Credential)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PluginError(_failure(plugin, f"printed no ExecCredential: {error}")) from None
    if credential.kind != "ExecCredential" or credential.api_version != plugin.api_version:
        found = f"{credential.kind} of {credential.api_version}"
        raise PluginError(_failure(plugin, f"printed {found}; want ExecCredential of {plugin.api_version}"))
    status = credential.status or _Status()
    printed = Printed(status.token or "", status.client_certificate_data or "", status.client_key_data or "")
    if bool(printed.certificate) != bool(printed.key):
        raise PluginError(_failure(plugin, "printed one of clientCertificateData and clientKeyData, and not the other"))
    if not (printed.token or printed.certificate):
        raise PluginError(_failure(plugin, "printed neither a token nor a certificate"))
    if LINE_BREAK.search(printed.token.strip()):
        raise PluginError(_failure(plugin, "printed a token with a line break in it"))
    return printed


def _failure(plugin: Exec, what: str, words: Iterable[int] = ()) -> str:
    said = " ".join(bytes(words).decode(errors="replace").split())
    hint = " ".join(plugin.install_hint.split())
    return f"credential plugin {plugin.command!r} {what}{f': {said}' if said else ''}{f' ({hint})' if hint else ''}"


def _waiting_for(plugin: Exec, limit: float | None) -> str:
    bound = "" if limit is None else f", for at most {limit:g} s"
    return f"waiting for the kubeconfig's credential plugin {plugin.command!r}{bound}\n"


def _say(words: str) -> None:
    print(words, end="", file=sys.stderr, flush=True)  # noqa: T201 - to the person, as a plugin's own words


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read() if stream is not None else b""


async def _pass_on(stream: asyncio.StreamReader | None, words: bytearray) -> None:
    """Say what a plugin says, and keep the last of it."""
    while stream is not None and (chunk := await stream.read(_QUOTED)):
        _say(chunk.decode(errors="replace"))
        words += chunk
        del words[:-_QUOTED]


async def _end(process: asyncio.subprocess.Process, *, group: bool) -> None:
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP):
            await process.wait()
