"""Builds binaries from the pinned Go modules and reports progress. Guarantees: an interrupted build leaves no files.

An interrupted build continues where it stopped, by Go's own build cache, which this module never clears. `go list`
names the packages that are not in that cache, and `go build -v` names each one that it compiles.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.controlplane.program_errors import GoMissingError
from controller.controlplane.report import Reporter
from controller.controlplane.stream import OnProgress, run
from controller.controlplane.versions import MINIMUM_GO, Binary, Distribution

_PROBE_TIMEOUT = 10.0
_LIST_TIMEOUT = 1800.0  # it downloads the modules
_BUILD_TIMEOUT = 3600.0
_GO_VERSION = re.compile(r"\bgo(\d+)\.(\d+)")


def find_go(search_path: str, beside: Path, titles: str) -> Path:
    """Return a Go toolchain that is new enough: the one on PATH, or the one of this virtualenv.

    Raises GoMissingError, which names what was to be built (`titles`).
    """
    seen = []
    for candidate in (shutil.which("go", path=search_path), shutil.which("go", path=str(beside))):
        if candidate is None:
            continue
        version = _version(Path(candidate))
        if version and version >= MINIMUM_GO:
            return Path(candidate).absolute()
        seen.append(f"{candidate} {'.'.join(map(str, version)) if version else 'that does not run'}")
    raise GoMissingError(titles, MINIMUM_GO, tuple(seen))


def _version(go: Path) -> tuple[int, int] | None:
    match = _GO_VERSION.search(_env(go, "GOVERSION"))
    return (int(match[1]), int(match[2])) if match else None


def caches_of(go: Path) -> tuple[Path, ...]:
    """Return the directories of Go's build cache and module cache, as far as `go env` names them."""
    return tuple(Path(line) for line in _env(go, "GOCACHE", "GOMODCACHE").splitlines() if line.startswith("/"))


def _env(go: Path, *names: str) -> str:
    """Return Go's settings of these names, one a line; an empty text if Go does not run."""
    try:
        result = subprocess.run(
            [go, "env", *names],
            env=go_environment(os.environ),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_PROBE_TIMEOUT,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return ""
    return result.stdout


def go_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for Go.

    GOPROXY, GOCACHE and the like stay the user's. Settings that would change the result are overridden: a platform
    to cross-compile for, a workspace around this repository, another toolchain than the chosen one.
    """
    kept = {name: value for name, value in base.items() if name not in ("GOOS", "GOARCH")}
    return {**kept, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}


@dataclass(frozen=True, slots=True)
class GoBuild:
    """Builds one distribution's binaries into a workspace that the caller removes.

    `note` receives the progress, for other processes that wait for the build.
    """

    distribution: Distribution
    go: Path
    workspace: Path
    report: Reporter
    note: Callable[[str], None]

    def run(self, binaries: Sequence[Binary]) -> Iterator[Binary]:
        """Build binaries, and yield each as soon as it is complete. Raises GoCommandError."""
        stale = self._stale_packages(binaries)
        done: set[str] = set()
        with self.report.task(f"building {self.distribution.title} with {self.go}") as advance:
            for binary in binaries:

                def show(line: str | None, target: str = binary.name) -> None:
                    if line in stale:
                        done.add(line)
                    advance(len(done), len(stale), f"packages ({target})")
                    self.note(f"building {target}, {len(done)} of {len(stale)} packages")

                self._go(["build", "-v", "-o", str(self.workspace / binary.name)], [binary], show, _BUILD_TIMEOUT)
                done.add(binary.package)  # linking a program whose packages are all compiled prints nothing
                yield binary

    def _stale_packages(self, binaries: Sequence[Binary]) -> frozenset[str]:
        """Return the packages that are not compiled yet; Go downloads the modules for that."""
        downloads = 0
        with self.report.task(f"listing the packages to compile for {self.distribution.title}") as advance:

            def show(line: str | None) -> None:
                nonlocal downloads
                downloads += bool(line and line.startswith("go: downloading"))
                if downloads:
                    advance(0, 0, f"{downloads} modules downloaded")
                    self.note(f"downloading modules, {downloads} so far")

            template = "{{if .Stale}}{{.ImportPath}}{{end}}"
            output = self._go(["list", "-deps", "-f", template], binaries, show, _LIST_TIMEOUT)
        return frozenset(output.split())

    def _go(self, command: Sequence[str], binaries: Sequence[Binary], on_progress: OnProgress, timeout: float) -> str:
        # Both commands get the same flags, since a package's staleness depends on them.
        flags = ["-trimpath", "-ldflags", self.distribution.ldflags]
        return run(
            [str(self.go), *command, *flags, *(binary.package for binary in binaries)],
            cwd=self.distribution.module_directory,
            env={**go_environment(os.environ), "GOTMPDIR": str(self.workspace)},
            scratch=self.workspace,
            on_progress=on_progress,
            timeout=timeout,
        )
