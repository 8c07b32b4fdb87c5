"""The pinned versions agree with the go.mod files, and versions compare as releases do."""

import re

import pytest

from controller.controlplane.versions import DISTRIBUTIONS, KUBERNETES, MINIMUM_GO, Distribution, Version

_distributions = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: d.name)


def go_mod(distribution: Distribution) -> str:
    """Return the text of a distribution's go.mod."""
    return (distribution.module_directory / "go.mod").read_text()


@_distributions
def test_go_mod_requires_the_pinned_version(distribution: Distribution) -> None:
    """So versions.py is the one place to read the version from."""
    required = re.findall(rf"^\s+{re.escape(distribution.module)} (\S+)", go_mod(distribution), re.MULTILINE)

    assert required == [str(distribution.version)]


@_distributions
def test_go_mod_names_every_binary_as_a_tool(distribution: Distribution) -> None:
    """So that `go mod tidy` keeps what the build needs."""
    tools = re.findall(r"^(?:tool |\t)([^\s()]+)$", go_mod(distribution), re.MULTILINE)

    assert sorted(tools) == sorted(binary.package for binary in distribution.binaries)


@_distributions
def test_go_mod_requires_no_newer_go_than_the_minimum(distribution: Distribution) -> None:
    """Every Go that is accepted can build it."""
    [(major, minor)] = re.findall(r"^go (\d+)\.(\d+)", go_mod(distribution), re.MULTILINE)

    assert (int(major), int(minor)) == MINIMUM_GO


def test_staging_modules_are_replaced_by_the_same_release() -> None:
    """Kubernetes and its libraries are released together."""
    replaced = set(re.findall(r"=> k8s\.io/\S+ v0\.(\d+\.\d+)$", go_mod(KUBERNETES), re.MULTILINE))

    assert replaced == {f"{KUBERNETES.version.minor}.{KUBERNETES.version.patch}"}


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Kubernetes v1.37.2", Version(1, 37, 2)),
        ("etcd Version: 3.7.3\nGit SHA: 1.2\nGo Version: go1.26.8", Version(3, 7, 3)),
        ("kwok version v0.8.0 go1.26.8 (linux/amd64)", Version(0, 8, 0)),
        ("Client Version: v1.37.1\nKustomize Version: v5.8.1", Version(1, 37, 1)),
        ("usage: etcd", None),
    ],
)
def test_version_is_found_in_a_programs_output(output: str, version: Version | None) -> None:
    """Every program prints it in its own form."""
    assert Version.find(output) == version


def test_patch_releases_share_a_minor() -> None:
    """Any patch release fits."""
    assert Version(1, 37, 0).same_minor(Version(1, 37, 2))


def test_minor_releases_do_not_share_a_minor() -> None:
    """Another minor release is another API."""
    assert not Version(1, 36, 2).same_minor(Version(1, 37, 2))


def test_distance_counts_minor_releases() -> None:
    """In either direction."""
    assert Version(1, 35, 0).minor_distance(Version(1, 37, 2)) == 2


def test_there_is_no_distance_across_major_releases() -> None:
    """They are not comparable."""
    assert Version(2, 37, 0).minor_distance(Version(1, 37, 2)) is None
