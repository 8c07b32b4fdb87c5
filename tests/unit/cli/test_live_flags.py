"""The flags of `vmsim controller` for live migrations and for speed."""

from __future__ import annotations

import re

import pytest

from controller.cli import live_flags
from controller.domain.copying.policy import CopyingPolicy, WritableSet
from controller.domain.copying.texts import SETTINGS
from tests.unit.cli.builders import run

DEFAULTS = {flag.name: flag.default for flag in live_flags.FLAGS}


def test_without_a_flag_the_policy_is_the_default() -> None:
    """The texts of the help are those of the values."""
    assert live_flags.policy(**DEFAULTS) == CopyingPolicy()


def test_every_setting_has_a_flag_of_its_name() -> None:
    """And no flag is without a setting."""
    assert set(DEFAULTS) == {setting.key.replace("-", "_") for setting in SETTINGS.values()}


def test_a_flag_beats_the_default_of_its_setting_alone() -> None:
    """In the units of the policy: bytes a second, seconds."""
    given = {"bandwidth_per_migration": "64Mi", "writable_set": "256Mi", "allow_post_copy": True, "max_downtime": "1s"}
    assert live_flags.policy(**DEFAULTS | given) == CopyingPolicy(
        bandwidth_per_migration=64 * 2.0**20,
        writable_set=WritableSet(None, 256 * 2.0**20),
        allow_post_copy=True,
        max_downtime=1.0,
    )


@pytest.mark.parametrize(
    "given",
    [
        "--bandwidth-per-migration=-1",
        "--migration-bandwidth-per-node=0",
        "--dirty-rate=inf",
        "--writable-set=nan",
        "--dirty-rate-jitter=-0.1",
        "--completion-timeout-per-gib=2m",
        "--progress-timeout=-1",
        "--max-downtime=1h",
        "--speed=nan",
        "--speed=0",
        "--speed=inf",
        "--speed=1e3",
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_is_wanted(
    capsys: pytest.CaptureFixture[str], given: str
) -> None:
    """By the name of its flag, before anything else is looked at."""
    flag, _, value = given.partition("=")
    code, out, err = run(capsys, "controller", given)
    assert (code, out) == (2, "")
    assert re.search(rf"Invalid value for {flag}: '{value}' is not an? .*: want ", err)


def test_help_shows_the_flags_under_headings(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of live migrations are the last."""
    _, out, _ = run(capsys, "controller", "--help")
    headings = re.findall(r"^(\w.*):$", out, re.MULTILINE)
    assert headings == ["Options", "Virtual machines", "Migrations", "Live migrations"]
    assert "--dirty-rate-jitter" in out.partition("Live migrations:")[2]
