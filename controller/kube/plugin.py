"""Exec credential plugins: programs named in a kubeconfig that print credentials (client.authentication.k8s.io).

Guarantees:

- A plugin gets the same environment and ExecCredential as from client-go, with the cluster if its entry asks for that.
- Its standard error is copied to ours at once.
- A non-interactive plugin has `DEADLINE` seconds; then its process group is killed. An interactive one may wait for the
  user at the terminal without limit. After `NOTICE` seconds, a line on standard error names the plugin in progress.
- A failure is a `PluginError` that names the command. It quotes the plugin's standard error, never its standard output.
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
"""Seconds that a non-interactive plugin may run."""
NOTICE: Final = 5.0
"""Seconds after which a line reports the plugin that is waited for."""
_REAP: Final = 1.0
"""Seconds to wait for the end of a killed plugin."""
_QUOTED: Final = 2000
"""Bytes, from its end, of a plugin's standard error that an error quotes."""
_EXTENSION: Final = "client.authentication.k8s.io/exec"


@dataclass(frozen=True, slots=True)
class Printed:
    """The credentials that a plugin printed: a token, a client certificate with its key (PEM), or both."""

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
    """Run a plugin for a cluster and return its credentials. Raises PluginError.

    `terminal` says whether standard input is a terminal; `deadline` and `notice` are in seconds.
    """
    interactive = _interactive(plugin, terminal=terminal)
    limit = None if interactive else deadline
    try:
        process = await _start(plugin, cluster, interactive=interactive)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PluginError(_failure(plugin, f"cannot be run: {reason}")) from error
    stderr = bytearray()
    waiting = asyncio.get_running_loop().call_later(notice, _print, _notice(plugin, limit))
    ended = False
    try:
        async with asyncio.timeout(limit):
            out, _, code = await asyncio.gather(_read(process.stdout), _copy(process.stderr, stderr), process.wait())
        ended = True
    except TimeoutError:
        raise PluginError(_failure(plugin, f"has not ended within {deadline:g} s", stderr)) from None
    finally:
        waiting.cancel()
        if not ended:
            await _end(process, group=not interactive)
    if code != 0:
        raise PluginError(_failure(plugin, f"ended with {code}", stderr))
    return _printed(plugin, out)


async def _start(plugin: Exec, cluster: Cluster, *, interactive: bool) -> asyncio.subprocess.Process:
    """Start a plugin. If the caller is cancelled meanwhile, kill the plugin at once. Raises OSError and ValueError."""
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
            start_new_session=not interactive,  # a process group, which can be killed as a whole
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # asyncio would kill the plugin alone, and wait for its children
        with suppress(OSError, ValueError):
            await _end(await starting, group=not interactive)
        raise


def _interactive(plugin: Exec, *, terminal: bool) -> bool:
    """Whether the plugin may prompt the user. Raises PluginError if it must and there is no terminal."""
    if plugin.interactive_mode == "Always" and not terminal:
        wrong = "has interactiveMode Always, and standard input is no terminal: run it at a terminal"
        raise PluginError(_failure(plugin, wrong))
    return terminal and plugin.interactive_mode != "Never"


def _information(plugin: Exec, cluster: Cluster, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster(plugin, cluster)
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}


def _cluster(plugin: Exec, cluster: Cluster) -> dict[str, Any]:
    """Return the cluster for an ExecCredential, with the CA file's contents and the kubeconfig's exec extension."""
    authority = "".join(cluster.certificate_authority_data.split())
    if cluster.certificate_authority:
        try:
            authority = base64.b64encode(Path(cluster.certificate_authority).read_bytes()).decode()
        except OSError as error:
            wrong = f"needs the cluster's certificate-authority, which cannot be read: {error}"
            raise PluginError(_failure(plugin, wrong)) from error
    fields: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": authority,
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": next((known.extension for known in cluster.extensions if known.name == _EXTENSION), None),
    }
    return {name: value for name, value in fields.items() if value}


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


def _failure(plugin: Exec, what: str, stderr: Iterable[int] = ()) -> str:
    quoted = " ".join(bytes(stderr).decode(errors="replace").split())
    hint = " ".join(plugin.install_hint.split())
    return f"credential plugin {plugin.command!r} {what}{f': {quoted}' if quoted else ''}{f' ({hint})' if hint else ''}"


def _notice(plugin: Exec, limit: float | None) -> str:
    bound = "" if limit is None else f", for at most {limit:g} s"
    return f"waiting for the kubeconfig's credential plugin {plugin.command!r}{bound}\n"


def _print(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)  # noqa: T201 - for the user, as the plugin's standard error


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read() if stream is not None else b""


async def _copy(stream: asyncio.StreamReader | None, tail: bytearray) -> None:
    """Copy a plugin's standard error to ours, and retain its last `_QUOTED` bytes in `tail`."""
    while stream is not None and (chunk := await stream.read(_QUOTED)):
        _print(chunk.decode(errors="replace"))
        tail += chunk
        del tail[:-_QUOTED]


async def _end(process: asyncio.subprocess.Process, *, group: bool) -> None:
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_REAP):
            await process.wait()
