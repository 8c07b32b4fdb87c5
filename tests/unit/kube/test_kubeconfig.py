"""Kubeconfigs: parsing, merging of several files, and selection of a context.

tests/integration/test_kubeconfig.py compares the results with kubectl's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.kube import kubeconfig
from controller.kube.contexts import Choice, choose, headers
from controller.kube.kubeconfig import Config, Context, InvalidKubeconfigError, merged, parse

TWO: dict[str, Any] = {
    "current-context": "a",
    "clusters": [
        {"name": "ca", "cluster": {"server": "https://a:1"}},
        {"name": "cb", "cluster": {"server": "https://b:1"}},
    ],
    "users": [{"name": "ua", "user": {"token": "ta"}}, {"name": "ub", "user": {"token": "tb"}}],
    "contexts": [
        {"name": "a", "context": {"cluster": "ca", "user": "ua", "namespace": "na"}},
        {"name": "b", "context": {"cluster": "cb", "user": "ub"}},
        {"name": "no-user", "context": {"cluster": "ca", "user": "gone"}},
        {"name": "no-cluster", "context": {"cluster": "gone", "user": "ua"}},
        {"name": "empty", "context": {}},
    ],
}


def config(**changes: Any) -> Config:
    """Return a kubeconfig of two clusters, two users and some contexts, changed."""
    return parse(json.dumps(TWO | changes).encode())


def user(**fields: Any) -> Config:
    """Return a kubeconfig whose user has these fields."""
    return config(users=[{"name": "ua", "user": fields}])


def cluster(**fields: Any) -> Config:
    """Return a kubeconfig whose cluster has these fields."""
    return config(clusters=[{"name": "ca", "cluster": {"server": "https://a:1"} | fields}])


# --- one context -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), ("https://a:1", "ta", "na")),
        (Choice(context="b"), ("https://b:1", "tb", "default")),
        (Choice(cluster="cb"), ("https://b:1", "ta", "na")),
        (Choice(user="ub"), ("https://a:1", "tb", "na")),
        (Choice(namespace="other"), ("https://a:1", "ta", "other")),
        (Choice(context="b", cluster="ca", user="ua", namespace="x"), ("https://a:1", "ta", "x")),
        (Choice(context="no-user", user="ub"), ("https://a:1", "tb", "default")),
        (Choice(context="no-cluster", cluster="cb"), ("https://b:1", "ta", "default")),
        (Choice(context="empty", cluster="ca"), ("https://a:1", "", "default")),
    ],
)
def test_each_flag_overrides_one_field_of_the_context(choice: Choice, expected: tuple[str, str, str]) -> None:
    """It changes no other field."""
    chosen = choose(config(), choice)
    assert (chosen.cluster.server, chosen.user.token, chosen.namespace) == expected


@pytest.mark.parametrize(
    "choice",
    [Choice(), Choice(context="b"), Choice(cluster="cb"), Choice(user="ub", namespace="x"), Choice(context="a")],
)
def test_a_reload_selects_the_same_names_again(choice: Choice) -> None:
    """Even if the current context, or the entry of the context, has changed."""
    first = choose(config(), choice)
    contexts = [{"name": name, "context": {"cluster": "cb", "user": "ub"}} for name in ("a", "b", "z")]
    again = choose(config(**{"current-context": "z", "contexts": contexts}), first.names)
    assert (again.cluster, again.user, again.names) == (first.cluster, first.user, first.names)


def test_a_reload_without_a_user_stays_anonymous() -> None:
    """Even if the context names a user by then, or another context is current."""
    for anonymous in (Choice(context="empty", cluster="ca"), Choice(cluster="ca")):
        names = choose(config(**({} if anonymous.context else {"current-context": ""})), anonymous).names
        contexts = [{"name": name, "context": {"cluster": "ca", "user": "ua"}} for name in ("a", "empty")]
        assert choose(config(contexts=contexts), names).user == kubeconfig.User()


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"contexts": []}, "context 'a'"),
        ({"clusters": []}, "cluster 'ca'"),
        ({"users": []}, "user 'ua'"),
    ],
)
def test_a_selected_entry_that_no_longer_exists_is_named(changes: dict[str, Any], missing: str) -> None:
    """The error does not blame a flag."""
    names = choose(config(), Choice()).names
    with pytest.raises(InvalidKubeconfigError) as caught:
        choose(config(**changes), names)
    assert str(caught.value) == f"what was chosen at the start names {missing}, which is not there; there is none"


def test_cluster_and_user_do_without_a_context() -> None:
    """As in kubectl."""
    chosen = choose(config(**{"current-context": "", "contexts": []}), Choice(cluster="cb", user="ua"))
    assert (chosen.cluster.server, chosen.user.token) == ("https://b:1", "ta")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (
            Choice(context="x"),
            "--context names context 'x', which is not there; there are a, b, empty, no-cluster, no-user",
        ),
        (Choice(cluster="x"), "--cluster names cluster 'x', which is not there; there are ca, cb"),
        (Choice(user="x"), "--user names user 'x', which is not there; there are ua, ub"),
        (Choice(context="no-user"), "context 'no-user' names user 'gone', which is not there; there are ua, ub"),
        (
            Choice(context="no-cluster"),
            "context 'no-cluster' names cluster 'gone', which is not there; there are ca, cb",
        ),
        (Choice(context="empty"), "context 'empty' names no cluster"),
    ],
)
def test_a_missing_entry_is_named_with_the_existing_ones(choice: Choice, words: str) -> None:
    """And with the flag or context that names it."""
    with pytest.raises(InvalidKubeconfigError) as caught:
        choose(config(), choice)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"current-context": "x"}, "current-context names context 'x', which is not there"),
        ({"current-context": ""}, "it selects no context; there are a, b, .*--context"),
        ({"current-context": "", "contexts": []}, "it selects no context, and there is none in it"),
        ({"users": []}, "context 'a' names user 'ua', which is not there; there is none"),
    ],
)
def test_a_kubeconfig_that_selects_no_context_is_refused(changes: dict[str, Any], words: str) -> None:
    """Localhost does not replace it."""
    with pytest.raises(InvalidKubeconfigError, match=words):
        choose(config(**changes), Choice())


@pytest.mark.parametrize(
    "given",
    [
        cluster(server=""),
        cluster(**{"certificate-authority": "/a", "certificate-authority-data": "YQ=="}),
        cluster(**{"certificate-authority": "/a", "insecure-skip-tls-verify": True}),
        cluster(**{"certificate-authority-data": "YQ==", "insecure-skip-tls-verify": True}),
        user(token="t", username="u", password="p"),  # noqa: S106
        user(**{"client-certificate": "/a"}),
        user(**{"client-certificate": "/a", "client-certificate-data": "YQ==", "client-key": "/a"}),
        user(**{"client-certificate": "/a", "client-key": "/a", "client-key-data": "YQ=="}),
        user(**{"as-uid": "1"}),
        user(**{"as-groups": ["system:masters"]}),
        user(**{"as-user-extra": {"a": ["b"]}}),
        user(exec={"apiVersion": "v1"}),
        user(exec={"command": "x"}),
        user(exec={"command": "x", "apiVersion": "v1", "env": [{"value": "v"}]}),
        user(exec={"command": "x", "apiVersion": "v1", "interactiveMode": "never"}),
        user(exec={"command": "x", "apiVersion": "client.authentication.k8s.io/v1"}),
        user(exec={"command": "x", "apiVersion": "v1"}, **{"auth-provider": {"name": "oidc"}}),
        user(**{"auth-provider": {"name": "azure"}}),
        user(token="two\nlines"),  # noqa: S106
        user(**{"as": "two\r\nlines"}),
    ],
    ids=range(20),
)
def test_a_kubeconfig_that_client_go_refuses_is_refused(given: Config) -> None:
    """So are values that no header can carry."""
    with pytest.raises(InvalidKubeconfigError, match=r"'ua'|'ca'"):
        choose(given, Choice())


def test_an_entry_that_is_not_selected_may_be_invalid() -> None:
    """Only the selected entries are validated."""
    both = [{"name": "ua", "user": {}}, {"name": "ub", "user": {"as-uid": "1"}}]
    assert choose(config(users=both), Choice()).user == kubeconfig.User()


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("127.0.0.1:6443", "http://127.0.0.1:6443"),
        ("https://a", "https://a"),
        ("http://a", "http://a"),
        ("HTTPS://A", "https://A"),
    ],
)
def test_a_server_without_a_scheme_is_http(server: str, url: str) -> None:
    """As client-go completes it."""
    assert choose(cluster(server=server), Choice()).cluster.server == url


def test_for_a_server_without_tls_only_impersonation_stays() -> None:
    """All credentials are left out."""
    given = config(
        clusters=[{"name": "ca", "cluster": {"server": "http://a:1"}}],
        users=[
            {
                "name": "ua",
                "user": {
                    "token": "t",
                    "tokenFile": "/t",
                    "client-certificate": "/c",
                    "client-key": "/k",
                    "as": "jane",
                    "as-uid": "1",
                    "as-groups": ["g"],
                    "as-user-extra": {"a": ["b"]},
                },
            }
        ],
    )
    assert choose(given, Choice()).user == kubeconfig.User(
        impersonate="jane", impersonate_uid="1", impersonate_groups=("g",), impersonate_extra={"a": ("b",)}
    )


def test_impersonation_becomes_headers() -> None:
    """Special characters of an extra key are percent-encoded; without impersonation there is no header."""
    assert headers(choose(user(token="t"), Choice())) == ()  # noqa: S106
    assert headers(choose(user(**{"as": "jane", "as-user-extra": {"a b%": ["c", "d"]}}), Choice())) == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Extra-a%20b%25", "c"),
        ("Impersonate-Extra-a%20b%25", "d"),
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("0x1F", 31),
        ("0777", 511),
        ("0899", 899),
        ("0b11", 3),
        ("1_000", 1000),
    ],
)
def test_a_number_in_an_extension_is_retained(text: str, number: float) -> None:
    """Credential plugins may get it."""
    found = parse(f"clusters: [{{name: c, cluster: {{extensions: [{{name: e, extension: {{a: {text}}}}}]}}}}]".encode())
    assert found.clusters["c"].extensions == (kubeconfig.Extension("e", {"a": number}),)


# --- several files ---------------------------------------------------------------------------------------------------


def test_entries_of_one_name_are_never_merged() -> None:
    """The first file's entry counts, its missing fields included."""
    first = parse(b"contexts: [{name: a, context: {cluster: x}}]")
    second = parse(b"contexts: [{name: a, context: {cluster: z, namespace: m}}, {name: b}]\ncurrent-context: a")
    both = merged([first, second])
    assert both.contexts == {"a": Context(cluster="x"), "b": Context()}
    assert both.current_context == "a"


def test_paths_are_made_absolute() -> None:
    """A command only if it has a slash: others are looked up on PATH."""
    found = kubeconfig.resolved(
        config(
            clusters=[{"name": "c", "cluster": {"certificate-authority": "../ca"}}],
            users=[
                {"name": "u", "user": {"client-certificate": "c", "client-key": "/k", "tokenFile": "./t"}},
                {"name": "v", "user": {"exec": {"command": "bin/x"}}},
                {"name": "w", "user": {"exec": {"command": "x"}}},
            ],
        ),
        "/a/b",
    )
    assert found.clusters["c"].certificate_authority == "/a/ca"
    paths = found.users["u"]
    assert (paths.client_certificate, paths.client_key, paths.token_file) == ("/a/b/c", "/k", "/a/b/t")
    plugins = [found.users[name].exec for name in ("v", "w")]
    assert [plugin.command for plugin in plugins if plugin is not None] == ["/a/b/bin/x", "x"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: &a [*a]", "it is nested too deeply"), ("a: !!int ''", "it is no YAML"), ("a: !!bool x", "it is no YAML")],
)
def test_yaml_that_its_parser_does_not_expect_is_refused(text: str, words: str) -> None:
    """Whatever error the parser raises."""
    with pytest.raises(InvalidKubeconfigError, match=words):
        parse(text.encode())
