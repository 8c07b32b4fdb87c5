"""Merged kubeconfigs equal kubectl's: kubectl reads each case, too. No cluster is needed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.controlplane.binaries import find_kubectl
from controller.controlplane.plane import default_sources
from controller.kube import credentials
from controller.kube.credentials import Source
from controller.kube.errors import CredentialsError
from controller.kube.kubeconfig import Config

A = (
    "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
    "clusters: [{name: c, cluster: {server: 'https://a', tls-server-name: x}}, {name: only-a, cluster: {}}]\n"
    "users: [{name: u, user: {token: ta}}]\n"
    "contexts: [{name: a, context: {cluster: c, user: u}}, {name: same, context: {cluster: c}}]\n"
)
B = (
    "current-context: b\n"
    "clusters: [{name: c, cluster: {server: 'https://b', insecure-skip-tls-verify: true}}, {name: only-b}]\n"
    "users: [{name: u, user: {username: me, password: p}},"
    " {name: v, user: {as: jane, as-groups: [g, h], as-uid: '1'}}]\n"
    "contexts: [{name: b, context: {cluster: c, user: u}}, {name: same, context: {cluster: x, namespace: my}}]\n"
)
NO_CURRENT = "clusters: [{name: d, cluster: {server: 'https://d', proxy-url: 'http://p:1', disable-compression: true}}]"
PLUGIN = (
    "users: [{name: w, user: {exec: {command: x, args: [a, b], env: [{name: k, value: v}], apiVersion: "
    "client.authentication.k8s.io/v1, interactiveMode: Never, installHint: h, provideClusterInfo: true}}},"
    " {name: o, user: {auth-provider: {name: oidc, config: {a: b}}, as: x, as-user-extra: {k: [v, w]}}}]"
)

GOOD: dict[str, dict[str, str]] = {
    "one file": {"a": A},
    "two files": {"a": A, "b": B},
    "two files, the other way round": {"b": B, "a": A},
    "the second has the only current context": {"n": NO_CURRENT, "b": B},
    "an empty current context sets none": {"n": "current-context: ''", "b": B},
    "a null current context sets none": {"n": "current-context:", "b": B},
    "three files": {"n": NO_CURRENT, "a": A, "b": B},
    "a plugin": {"p": PLUGIN},
    "what is for plugins": {
        "e": "clusters: [{name: c, cluster: {extensions: [{name: client.authentication.k8s.io/exec, extension: "
        "{a: [b, 3, 1.5, 1e3, 0x1F, 0777, 1_000], c: {d: 12:30, e: yes}}}, {name: other, extension: {f: g}}]}}]"
    },
    "empty file": {"e": "", "a": A},
    "blank file": {"e": "  \n\n", "a": A},
    "comments": {"e": "# nothing\n", "a": A},
    "null": {"e": "null", "a": A},
    "no document": {"e": "---\n", "a": A},
    "lists that are null": {"e": "clusters: null\nusers:\ncontexts: ~", "a": A},
    "entries that are null": {"e": "clusters: [{name: c, cluster: null}]\nusers: [null]", "a": A},
    "a name is missing": {"e": "clusters: [{cluster: {server: x}}]"},
    "a second document is not read": {"e": "current-context: e\n---\n: : :\n- x", "a": A},
    "a key that is there twice": {"e": "current-context: e\ncurrent-context: f"},
    "a name like a date": {"e": "current-context: 2026-01-01"},
    "names like a time, and other numbers that are none": {
        "e": "current-context: 12:30\nclusters: [{name: 1.2.3.4}, {name: 1e}, {name: 0b2}, {name: 0x}, {name: '1'}]"
    },
    "a name in quotes": {"e": "current-context: '007'"},
    "byte-order mark and CRLF": {"e": "\ufeffcurrent-context: e\r\n"},
    "unknown fields": {"e": "colour: red\ncurrent-context: e\nclusters: [{name: c, age: 7, cluster: {x: y}}]"},
    "case of a field's name": {"e": "Current-Context: e", "b": B},
    "JSON": {"e": json.dumps({"current-context": "e", "users": [{"name": "j", "user": {"token": "t"}}]})},
    "base64 over lines": {"e": 'clusters: [{name: c, cluster: {certificate-authority-data: "aGVs\\nbG8="}}]'},
    "anchors": {"e": "x: &x {server: s}\nclusters: [{name: c, cluster: *x}, {name: d, cluster: {<<: *x}}]"},
}
BAD: dict[str, dict[str, str]] = {
    "a word": {"a": A, "bad": "hello"},
    "a list": {"bad": "[1, 2]", "a": A},
    "no YAML": {"bad": "a: ["},
    "a tab": {"bad": "a:\n\t- b"},
    "another kind": {"bad": "kind: Pod"},
    "a list of objects": {"bad": "apiVersion: v1\nkind: List"},
    "another version": {"bad": "apiVersion: v2\nkind: Config"},
    "clusters are an object": {"bad": "clusters: {a: b}"},
    "a server is a number": {"bad": "clusters: [{name: a, cluster: {server: 7}}]"},
    "a token is a number": {"bad": "users: [{name: a, user: {token: 12345}}]"},
    "a current context is a truth": {"bad": "current-context: yes"},
    "a namespace is a truth": {"bad": "contexts: [{name: a, context: {namespace: n}}]"},
    "a token is a number with an exponent": {"bad": "users: [{name: a, user: {token: 12345e67}}]"},
    "a token is a number in hexadecimal": {"bad": "users: [{name: a, user: {token: 0x1F}}]"},
    "a truth is a string": {"bad": "clusters: [{name: a, cluster: {insecure-skip-tls-verify: 'true'}}]"},
    "a name that is there twice": {"bad": "users: [{name: a}, {name: a}]"},
    "no base64": {"bad": 'clusters: [{name: a, cluster: {certificate-authority-data: "%"}}]'},
    "base64 with a blank": {"bad": "users: [{name: a, user: {client-key-data: 'aGVs bG8='}}]"},
    "an entry that is not selected": {"bad": "contexts: [{name: z, context: []}]", "a": A},
}


def kubectl(folder: Path, paths: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real kubectl."""
    sources = default_sources()
    return subprocess.run(
        [find_kubectl(sources.search_path, sources.beside), "config", "view", "--raw", "-o", "json", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": paths},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def written(folder: Path, files: dict[str, str]) -> str:
    """Write files, each in a folder of its own; return KUBECONFIG."""
    for name, text in files.items():
        (folder / name).mkdir()
        (folder / name / "config").write_bytes(text.encode())
    return os.pathsep.join(str(folder / name / "config") for name in files)


def as_kubectl_prints(config: Config) -> dict[str, Any]:
    """Return a kubeconfig as kubectl prints it, without empty fields."""
    merged = {
        "clusters": {name: msgspec.to_builtins(entry) for name, entry in config.clusters.items()},
        "users": {name: msgspec.to_builtins(entry) for name, entry in config.users.items()},
        "contexts": {name: msgspec.to_builtins(entry) for name, entry in config.contexts.items()},
        "current-context": config.current_context,
    }
    return {key: _plain(value) for key, value in merged.items()}


def parsed(text: str) -> dict[str, Any]:
    """Return the output of kubectl by name, without empty fields."""
    merged = json.loads(text)
    lists = {"clusters": "cluster", "users": "user", "contexts": "context"}
    found: dict[str, Any] = {
        key: {entry["name"]: _plain(entry[field]) for entry in merged[key] or ()} for key, field in lists.items()
    }
    return found | {"current-context": merged["current-context"]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: found for key, item in value.items() if (found := _plain(item)) not in (None, "", [], False)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.replace("\n", "") if isinstance(value, str) else value


@pytest.mark.parametrize("files", GOOD.values(), ids=GOOD.keys())
def test_several_files_merge_as_in_kubectl(tmp_path: Path, files: dict[str, str]) -> None:
    """Every entry, and the current context."""
    paths = written(tmp_path, files)
    done = kubectl(tmp_path, paths)
    assert done.returncode == 0, done.stderr
    assert as_kubectl_prints(credentials.read(Source(paths, listed=True))) == parsed(done.stdout)


@pytest.mark.parametrize("files", BAD.values(), ids=BAD.keys())
def test_a_file_that_kubectl_refuses_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    """Both name the file."""
    paths, bad = written(tmp_path, files), str(tmp_path / "bad" / "config")
    done = kubectl(tmp_path, paths)
    assert done.returncode != 0
    assert bad in done.stderr
    with pytest.raises(CredentialsError, match=f"cannot use {bad}: "):
        credentials.read(Source(paths, listed=True))


@pytest.mark.parametrize("paths", [":{a}", "{a}:", "{none}:{a}:{none}", "{a}:{b}:{a}", "{b}::{a}"])
def test_unusual_lists_of_files_are_read_as_by_kubectl(tmp_path: Path, paths: str) -> None:
    """Empty names, missing files, and a file twice."""
    written(tmp_path, {"a": A, "b": B})
    listed = paths.format(a=tmp_path / "a" / "config", b=tmp_path / "b" / "config", none=tmp_path / "none")
    done = kubectl(tmp_path, listed)
    assert as_kubectl_prints(credentials.read(Source(listed, listed=True))) == parsed(done.stdout)


def test_relative_paths_resolve_as_in_kubectl(tmp_path: Path) -> None:
    """Each from the folder of its own file, although both have the same name there."""
    files = {
        name: f"clusters: [{{name: {name}, cluster: {{server: s, certificate-authority: ca}}}}]\n"
        f"users: [{{name: {name}, user: {{client-certificate: ../{name}/ca, client-key: ./ca}}}}]\n"
        for name in ("a", "b")
    }
    paths = written(tmp_path, files)
    for name in files:
        (tmp_path / name / "ca").write_text(f"of {name}")
    merged = parsed(kubectl(tmp_path, paths, "--flatten").stdout)
    config = credentials.read(Source(paths, listed=True))
    for name in files:
        read = [
            config.clusters[name].certificate_authority,
            config.users[name].client_certificate,
            config.users[name].client_key,
        ]
        user = merged["users"][name]
        assert [base64.b64encode(Path(path).read_bytes()).decode() for path in read] == [
            merged["clusters"][name]["certificate-authority-data"],
            user["client-certificate-data"],
            user["client-key-data"],
        ]


def test_the_flag_is_one_file_that_must_exist(tmp_path: Path) -> None:
    """A list of two is no file."""
    paths = written(tmp_path, {"a": A, "b": B})
    done = kubectl(tmp_path, "", "--merge", "--kubeconfig", paths)
    assert parsed(done.stdout)["current-context"] == ""
    with pytest.raises(CredentialsError, match="does not exist"):
        credentials.read(Source(paths))
