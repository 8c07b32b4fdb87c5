"""At which speed a scenario is played."""

from __future__ import annotations

import pytest

from controller.domain.settings import PublishedSettings
from controller.domain.vm.policy import LauncherPolicy
from controller.operations.settings import Reading
from controller.scenario.errors import SpeedError
from controller.scenario.speed import of_play


def controller_at(speed: float, name: str = "vmsim-controller") -> Reading:
    """The published settings of a controller."""
    return Reading(PublishedSettings(LauncherPolicy(speed=speed)), f"ConfigMap default/{name}")


@pytest.mark.parametrize(
    ("asked", "file", "speeds", "played"),
    [
        (None, None, (), 1),
        (None, None, (1,), 1),
        (None, None, (10,), 10),
        (None, None, (1, 10), 10),
        (None, 144, (1,), 144),
        (None, 10, (10,), 10),
        (7, 144, (1, 1), 7),
        (10, 144, (10, 1), 10),
        (0.5, None, (0.5,), 0.5),
    ],
)
def test_a_play_has_the_speed_of_the_flag_then_the_file_then_the_controllers(
    asked: float | None, file: float | None, speeds: tuple[float, ...], played: float
) -> None:
    """A controller at speed 1 allows any."""
    assert of_play(asked, file, {str(number): controller_at(speed) for number, speed in enumerate(speeds)}) == played


def test_without_published_settings_the_controller_is_taken_to_run_at_speed_1() -> None:
    """Which allows any."""
    assert of_play(None, 144, {None: Reading()}) == 144


@pytest.mark.parametrize(
    ("asked", "file", "words"),
    [
        (7, 144, "the scenario would play at 7x (--speed), but the controller runs at 10x (ConfigMap default/blue)"),
        (None, 144, "the scenario would play at 144x (its file), but the controller runs at 10x"),
        (1, None, "the scenario would play at 1x (--speed), but the controller runs at 10x"),
    ],
)
def test_another_speed_than_the_controllers_is_refused_with_both(
    asked: float | None, file: float | None, words: str
) -> None:
    """And says how to have either."""
    with pytest.raises(SpeedError) as found:
        of_play(asked, file, {None: controller_at(1), "blue": controller_at(10, "blue")})
    assert words in str(found.value)
    assert "pass --speed 10, or start the controller with --speed " in str(found.value)


def test_controllers_of_two_speeds_cannot_play_one_scenario() -> None:
    """Whichever it chose would be wrong for the other."""
    with pytest.raises(SpeedError, match=r"play at 10x \(ConfigMap default/a\), but the controller runs at 20x"):
        of_play(None, None, {"a": controller_at(10, "a"), "b": controller_at(20, "b")})
