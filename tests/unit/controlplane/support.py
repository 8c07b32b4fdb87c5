"""Stand-ins for the control plane's surroundings: programs, a Go toolchain, release servers, a reporter."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller.controlplane.layout import Layout
from controller.controlplane.report import Advance
from controller.controlplane.sources import Sources
from controller.controlplane.versions import DISTRIBUTIONS

VERSIONS = {binary.name: str(dist.version) for dist in DISTRIBUTIONS for binary in dist.binaries}


@dataclass(slots=True)
class RecordingReporter:
    """Records the output for the user."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Record a message."""
        self.said.append(text)

    def warn(self, text: str) -> None:
        """Record a warning."""
        self.warned.append(text)

    @contextmanager
    def task(self, title: str) -> Iterator[Advance]:
        """Record every step of a task."""

        def advance(done: int, total: int, detail: str) -> None:
            self.progress.append((title, done, total, detail))

        yield advance


def write_program(path: Path, output: str) -> Path:
    """Write a program that prints a text, whatever its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


def fill_cache(sources: Sources, *, without: str = "") -> None:
    """Put every binary into the cache, except one."""
    for distribution in DISTRIBUTIONS:
        for binary in distribution.binaries:
            if binary.name != without:
                write_program(sources.cache_of(distribution) / binary.name, VERSIONS[binary.name])


def lay_out(layout: Layout, scripts: Mapping[str, str]) -> None:
    """Lay a plane out whose components are shell scripts."""
    for name in ("bin", "logs", "pids"):
        (layout.workdir / name).mkdir(parents=True, exist_ok=True)
    components = []
    for name, script in scripts.items():
        program = layout.program(name)
        # Linked, because the kernel shows a script's interpreter instead of its program.
        program.symlink_to("/bin/sh")
        components.append({"name": name, "binary": str(program), "args": ["-c", script]})
    layout.kwok_config.write_text(yaml.safe_dump({"kind": "KwokctlConfiguration", "components": components}))


@dataclass(frozen=True, slots=True)
class FakeGo:
    """A `go` that compiles nothing and logs its calls."""

    path: Path
    log: Path

    def calls(self, command: str) -> list[str]:
        """Return the calls of one subcommand."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(command)]


_FAKE_GO = """#!/bin/sh
PATH=/usr/bin:/bin
echo "$@" >>'{log}'
case "$1" in
env)
    case "$2" in
    GOVERSION) echo go{version} ;;
    GOCACHE) {caches} ;;
    esac ;;
list)
    echo 'go: downloading example.org/module v1.0.0' >&2
    printf 'example.org/one\\nexample.org/two\\n' ;;
build)
    while [ "$1" != -o ]; do shift; done
    out="$2"
    echo example.org/one >&2
    {during_build}
    echo example.org/two >&2
    case "$(basename "$out")" in
{versions}
    esac
    printf '#!/bin/sh\\necho "%s"\\n' "$version" >"$out" ;;
esac
"""


def write_go(path: Path, *, version: str = "1.26.8", during_build: str = "", caches: str = ":") -> FakeGo:
    """Write a Go toolchain whose builds are programs that print the pinned versions.

    `caches` is a command that prints the directories of its caches; by default it prints nothing.
    """
    go = FakeGo(path, path.with_name("go.log"))
    versions = "\n".join(f"    {name}) version={v} ;;" for name, v in VERSIONS.items())
    text = _FAKE_GO.format(log=go.log, version=version, during_build=during_build, versions=versions, caches=caches)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return go


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without output to stderr."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


class TruncatingHandler(QuietHandler):
    """Announces the whole length of a file and sends half of it."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send half."""
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        self.close_connection = True


@dataclass(frozen=True, slots=True)
class ReleaseServer:
    """An HTTP server on loopback with a tree of files."""

    root: Path
    address: str

    def put(self, path: str, content: bytes) -> None:
        """Add a file."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@contextmanager
def serving(root: Path, handler: type[QuietHandler]) -> Iterator[ReleaseServer]:
    """Serve a directory on loopback while the context lasts."""
    root.mkdir()

    def handle(*args: Any) -> QuietHandler:
        return handler(*args, directory=str(root))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handle) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ReleaseServer(root, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
