"""A name becomes one segment of the path; a name that cannot be one is refused before a request is sent."""

from __future__ import annotations

import pytest
from yarl import URL

from controller.kube.client import Client
from controller.kube.errors import InvalidNameError
from controller.kube.resources import NODES, PODS
from tests.unit.kube.builders import ApiServer, reply

INVALID = ["", ".", "..", "../../x", "a/b", "a%2fb"]


@pytest.mark.parametrize("name", INVALID)
def test_a_name_that_would_change_the_path_is_refused(name: str) -> None:
    """Of an object or a namespace; the message quotes it."""
    with pytest.raises(InvalidNameError, match="cannot be a name") as caught:
        NODES.path(name=name)
    assert repr(name) in str(caught.value)
    with pytest.raises(InvalidNameError):
        PODS.path(name, "a")


@pytest.mark.parametrize("name", ["a?watch=true", "a#b", "a b", "é", "a\r\nX-Header: 1", "..."])
def test_any_other_name_is_one_segment_of_the_path(name: str) -> None:
    """It is neither a query, a fragment nor a second line, also in the URL of the transport."""
    url = URL(f"http://host{PODS.path('default', name)}", encoded=False)
    assert url.parts == ("/", "api", "v1", "namespaces", "default", "pods", name)
    assert (url.query_string, url.fragment) == ("", "")


async def test_no_request_is_sent_for_an_invalid_name(api: ApiServer, client: Client) -> None:
    """`vmsim migrate ../nodes` reads no nodes."""
    with pytest.raises(InvalidNameError):
        await client.get(PODS, "../nodes", namespace="default")
    assert api.seen == []


async def test_the_server_receives_the_name_unchanged(api: ApiServer, client: Client) -> None:
    """It is quoted once and unquoted once."""
    api.handler = reply({"metadata": {"name": "a?b#c d"}})
    await client.get(NODES, "a?b#c d")
    [seen] = api.seen
    assert seen.path == "/api/v1/nodes/a?b#c d"
