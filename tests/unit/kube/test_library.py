"""kubernetes-asyncio is loaded without its generated models; other programs get all of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(script: str) -> str:
    """Run a script in a process of its own, in which nothing was imported; return what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_load_leaves_no_module_of_the_library() -> None:
    """It imports no generated code."""
    script = """
        import sys
        from controller.kube import library
        library.load()
        print([name for name in sys.modules if name.startswith("kubernetes_asyncio")])
    """
    assert run(script) == "[]"


def test_credentials_and_requests_need_no_models() -> None:
    """Tokens, certificate files and connections are the library's own code."""
    script = """
        import asyncio, json, pathlib, sys, tempfile
        from controller.kube import errors
        from controller.kube.client import Client
        from controller.kube.credentials import Source

        async def main():
            with tempfile.TemporaryDirectory() as place:
                path = pathlib.Path(place, "config")
                path.write_text(json.dumps({
                    "apiVersion": "v1", "kind": "Config", "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                    "users": [{"name": "c", "user": {"token": "t"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
                }))
                async with await Client.connect(Source(str(path))) as client:
                    try:
                        await client.ready()
                    except errors.TransportError as error:
                        print(str(error).partition(":")[0])

        asyncio.run(main())
    """
    assert run(script) == "GET /readyz"


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_import_of_the_library_gets_all_of_it(order: str) -> None:
    """A program may use our Python API and the library."""
    script = f"""
        from controller.kube import library
        if {order == "after"}:
            library.load()
        import kubernetes_asyncio.client, kubernetes_asyncio.watch
        theirs = kubernetes_asyncio.client.Configuration
        assert isinstance(library.load().configuration(), theirs) == {order == "before"}
        print(kubernetes_asyncio.client.V1Pod.__name__, kubernetes_asyncio.client.CoreV1Api.__name__)
    """
    assert run(script) == "V1Pod CoreV1Api"
