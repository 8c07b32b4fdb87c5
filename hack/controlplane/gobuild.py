"""Builds binaries from the pinned Go modules, with progress, and leaves nothing behind when interrupted.

Go's own build cache makes a build that was interrupted go on where it stopped; nothing here ever clears it.
`go list` tells which packages are not in that cache, and `go build -v` names each one that it compiles.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hack.controlplane.errors import GoMissingError
from hack.controlplane.report import Reporter
from hack.controlplane.stream import run
from hack.controlplane.versions import MINIMUM_GO, Binary, Distribution

_PROBE_TIMEOUT = 10.0
_DOWNLOAD_TIMEOUT = 1800.0
_BUILD_TIMEOUT = 3600.0
_GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)")


def find_go(search_path: str, beside: Path) -> Path:
    """Return a Go that is new enough: the one on PATH, or the one of this virtualenv."""
    seen = []
    for candidate in (shutil.which("go", path=search_path), shutil.which("go", path=str(beside))):
        if candidate is None:
            continue
        version = _version(Path(candidate))
        if version and version >= MINIMUM_GO:
            return Path(candidate).absolute()
        seen.append(f"{candidate} {'.'.join(map(str, version)) if version else 'that does not run'}")
    raise GoMissingError(MINIMUM_GO, tuple(seen))


def _version(go: Path) -> tuple[int, int] | None:
    try:
        result = subprocess.run(
            [go, "env", "GOVERSION"],
            env=_environment(None),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_PROBE_TIMEOUT,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    match = _GO_VERSION.search(result.stdout)
    return (int(match[1]), int(match[2])) if match else None


def build(
    distribution: Distribution,
    binaries: Sequence[Binary],
    workspace: Path,
    go: Path,
    report: Reporter,
    note: Callable[[str], None],
) -> Iterator[Binary]:
    """Build binaries into a directory, and yield each as soon as it is there.

    `note` is told now and then how far the build is, for others who wait for it.
    """
    title = f"building {distribution.name} {distribution.version} with {go}"
    stale = _stale_packages(distribution, binaries, workspace, go, report, note)
    done: set[str] = set()
    with report.task(title) as advance:
        for binary in binaries:

            def show(line: str | None, target: str = binary.name) -> None:
                if line in stale:
                    done.add(line)
                advance(len(done), len(stale), f"packages ({target})")
                note(f"building {target}, {len(done)} of {len(stale)} packages")

            run(
                [str(go), "build", *_flags(distribution), "-v", "-o", str(workspace / binary.name), binary.package],
                cwd=distribution.module_directory,
                env=_environment(workspace),
                scratch=workspace,
                on_progress=show,
                timeout=_BUILD_TIMEOUT,
            )
            done.add(binary.package)  # linking a program whose packages are all compiled prints nothing
            yield binary


def _stale_packages(
    distribution: Distribution,
    binaries: Sequence[Binary],
    workspace: Path,
    go: Path,
    report: Reporter,
    note: Callable[[str], None],
) -> frozenset[str]:
    """Return the packages that are yet to be compiled; downloads the modules on the way."""
    downloads = 0
    with report.task(f"looking up what {distribution.name} {distribution.version} needs compiled") as advance:

        def show(line: str | None) -> None:
            nonlocal downloads
            if line and line.startswith("go: downloading"):
                downloads += 1
            if downloads:
                advance(0, 0, f"{downloads} modules downloaded")
                note(f"downloading modules, {downloads} so far")

        output = run(
            [
                str(go),
                "list",
                *_flags(distribution),
                "-deps",
                "-f",
                "{{if .Stale}}{{.ImportPath}}{{end}}",
                *(binary.package for binary in binaries),
            ],
            cwd=distribution.module_directory,
            env=_environment(workspace),
            scratch=workspace,
            on_progress=show,
            timeout=_DOWNLOAD_TIMEOUT,
        )
    return frozenset(output.split())


def _flags(distribution: Distribution) -> list[str]:
    return ["-trimpath", "-ldflags", distribution.ldflags]


def _environment(scratch: Path | None) -> dict[str, str]:
    # GOPROXY, GOCACHE and the like are the user's. What would change the result is not: a target to
    # cross-compile for, a workspace around this repository, another toolchain than the one chosen.
    environment = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH")}
    environment |= {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
    if scratch:
        environment["GOTMPDIR"] = str(scratch)
    return environment
