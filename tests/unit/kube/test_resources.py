"""Names become one segment of a path, or nothing is asked for."""

from __future__ import annotations

import pytest
from yarl import URL

from controller.kube.client import Client
from controller.kube.errors import InvalidNameError
from controller.kube.resources import NODES, PODS
from tests.unit.kube.builders import ApiServer, reply

ODD = ["", ".", "..", "../../x", "a/b", "a%2fb"]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    """Whether an object's or a namespace's; the message quotes it."""
    with pytest.raises(InvalidNameError, match="cannot be a name") as caught:
        NODES.path(name=name)
    assert repr(name) in str(caught.value)
    with pytest.raises(InvalidNameError):
        PODS.path(name, "a")


@pytest.mark.parametrize("name", ["a?watch=true", "a#b", "a b", "é", "a\r\nX-Header: 1", "..."])
def test_any_other_name_stays_what_it_is(name: str) -> None:
    """Neither a query, nor a fragment, nor a second line; as the transport reads the URL, too."""
    url = URL(f"http://host{PODS.path('default', name)}", encoded=False)
    assert url.parts == ("/", "api", "v1", "namespaces", "default", "pods", name)
    assert (url.query_string, url.fragment) == ("", "")


async def test_nothing_is_sent_for_a_name_that_cannot_be(api: ApiServer, client: Client) -> None:
    """`vmsim migrate ../nodes` reads no nodes."""
    with pytest.raises(InvalidNameError):
        await client.get(PODS, "../nodes", namespace="default")
    assert api.seen == []


async def test_the_server_gets_the_name_as_it_was_given(api: ApiServer, client: Client) -> None:
    """Quoted once, unquoted once."""
    api.handler = reply({"metadata": {"name": "a?b#c d"}})
    await client.get(NODES, "a?b#c d")
    [seen] = api.seen
    assert seen.path == "/api/v1/nodes/a?b#c d"
