"""A plane's record is read as it was written, and is compared with the requested settings."""

import dataclasses
import json
from pathlib import Path

import pytest

from controller.controlplane import record
from controller.controlplane.errors import InvalidSettingError
from controller.controlplane.ports import Ports
from controller.controlplane.record import Record, Settings, differences

PORTS = Ports(1, 2, 3, 4, 5, 6)
ARGS = {"kube-apiserver": {"v": "4"}}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Return an audit policy."""
    path = tmp_path / "policy.yaml"
    path.write_text("kind: Policy\n")
    return path


def test_record_is_read_as_it_was_written(tmp_path: Path, policy: Path) -> None:
    """Ports and settings survive a reboot."""
    written = Record.of(Settings.of(ARGS, policy), PORTS)

    record.write(tmp_path / "plane.json", written)

    assert record.read(tmp_path / "plane.json") == written


def test_a_record_of_an_earlier_release_has_no_schedulers(tmp_path: Path) -> None:
    """An upgrade of vmsim does not cost the plane's objects."""
    content = dataclasses.asdict(Record.of(Settings.of(ARGS, None), PORTS))
    del content["schedulers"]
    (tmp_path / "plane.json").write_text(json.dumps(content))

    assert record.read(tmp_path / "plane.json") == Record.of(Settings.of(ARGS, None), PORTS)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]"])
def test_damaged_record_is_none(tmp_path: Path, content: bytes) -> None:
    """The plane is then created again, as after an interrupted start."""
    (tmp_path / "plane.json").write_bytes(content)

    assert record.read(tmp_path / "plane.json") is None


def test_missing_record_is_none(tmp_path: Path) -> None:
    """Then there is no plane."""
    assert record.read(tmp_path / "plane.json") is None


def test_same_settings_make_no_difference(policy: Path) -> None:
    """`up` can be repeated."""
    settings = Settings.of(ARGS, policy)

    assert differences(Record.of(settings, PORTS), settings) == ()


def test_settings_that_are_not_requested_make_no_difference(policy: Path) -> None:
    """`up` without flags keeps a plane that was created with some."""
    made = Record.of(Settings.of(ARGS, policy), PORTS)

    assert differences(made, Settings.of({}, None)) == ()


def test_other_arguments_make_a_difference() -> None:
    """They take effect only when a component starts."""
    made = Record.of(Settings.of(ARGS, None), PORTS)

    changes = differences(made, Settings.of({"kube-apiserver": {"v": "5"}}, None))

    assert changes == ("other arguments of kube-apiserver",)


def test_changed_audit_policy_makes_a_difference(policy: Path) -> None:
    """The content counts, not the name."""
    settings = Settings.of({}, policy)
    made = Record.of(settings, PORTS)
    policy.write_text("kind: AnotherPolicy\n")

    assert differences(made, settings) == ("another audit policy",)


def test_other_version_makes_a_difference() -> None:
    """Both versions are named."""
    settings = Settings.of({}, None)
    made = Record.of(settings, PORTS)
    older = dataclasses.replace(made, versions={**made.versions, "etcd": "v3.6.0"})

    assert differences(older, settings) == ("etcd v3.6.0 instead of v3.7.3",)


def test_unknown_component_is_refused() -> None:
    """kwokctl would ignore it silently."""
    with pytest.raises(InvalidSettingError, match="no component kubelet"):
        Settings.of({"kubelet": {}}, None)


def test_missing_audit_policy_is_refused(tmp_path: Path) -> None:
    """kwokctl would fail after it has begun."""
    with pytest.raises(InvalidSettingError, match="no file"):
        Settings.of({}, tmp_path / "nowhere.yaml")
