"""The settings of a controller that tools must know, and their text in a ConfigMap: one key for each.

Guarantees: pure; decoding returns the settings that were encoded. A key is named as the flag is and written as the flag
takes it. A missing key stands for the default, so that the settings of an older controller are complete; a key of a
later release is ignored. A value that cannot be read costs only itself, and is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar

from controller.domain.copying.policy import DEFAULT_COPYING, CopyingPolicy
from controller.domain.copying.texts import SETTINGS, parse_number
from controller.domain.migration.limits import Limits
from controller.domain.objects import Strategy
from controller.domain.ratio import ReferenceNode
from controller.domain.vm import boot
from controller.domain.vm.policy import FASTEST, SLOWEST, LauncherPolicy
from controller.kube.quantity import binary_quantity, decimal_text, parse_quantity
from controller.kube.scheduling import Toleration
from controller.kube.times import duration_text

T = TypeVar("T")

_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_LARGEST_SIZE: Final = parse_quantity("1Ei")
"""Cores or bytes of a reference node: the sums over a fleet stay exact."""
_REFERENCE_CPU: Final = "reference-cpu"
_REFERENCE_MEMORY: Final = "reference-memory"
_NODE_SELECTOR: Final = "node-selector"
_TOLERATIONS: Final = "tolerations"
_BOOT_TIME: Final = "boot-time"
_SPEED: Final = "speed"
_STRATEGY: Final = "migration-strategy"
_PER_CLUSTER: Final = "parallel-migrations-per-cluster"
_PER_NODE: Final = "parallel-outbound-migrations-per-node"
_VERSION: Final = "version"


@dataclass(frozen=True, slots=True)
class PublishedSettings:
    """The settings of a controller; by default those of one without flags. An unknown `version` is empty."""

    policy: LauncherPolicy = field(default_factory=LauncherPolicy)
    limits: Limits = field(default_factory=Limits)
    strategy: Strategy = Strategy.RECREATE
    live: CopyingPolicy = DEFAULT_COPYING
    version: str = ""


DEFAULTS: Final = PublishedSettings()


def encode(settings: PublishedSettings) -> dict[str, str]:
    """Return the data of the ConfigMap."""
    policy, limits = settings.policy, settings.limits
    return {
        _REFERENCE_CPU: f"{policy.reference.cpu:f}",
        _REFERENCE_MEMORY: binary_quantity(policy.reference.memory),
        _NODE_SELECTOR: selector_text(policy.node_selector),
        _TOLERATIONS: tolerations_text(policy.tolerations),
        _BOOT_TIME: duration_text(policy.boot_time),
        _SPEED: decimal_text(policy.speed),
        _PER_CLUSTER: str(limits.cluster),
        _PER_NODE: str(limits.outbound),
        _STRATEGY: settings.strategy.value,
        **{each.key: each.text(getattr(settings.live, name)) for name, each in SETTINGS.items()},
        _VERSION: settings.version,
    }


def decode(data: Mapping[str, str]) -> tuple[PublishedSettings, tuple[str, ...]]:
    """Return the settings in a ConfigMap's data, and a line for each value that cannot be read."""
    problems: list[str] = []

    def read(key: str, parse: Callable[[str], T], default: T) -> T:
        try:
            return parse(data[key]) if key in data else default
        except ValueError as error:
            problems.append(f"{key}: {error}; its default is used")
            return default

    policy, limits = DEFAULTS.policy, DEFAULTS.limits
    reference = ReferenceNode(
        cpu=read(_REFERENCE_CPU, parse_size, policy.reference.cpu),
        memory=read(_REFERENCE_MEMORY, parse_size, policy.reference.memory),
    )
    settings = PublishedSettings(
        policy=LauncherPolicy(
            reference=reference,
            node_selector=read(_NODE_SELECTOR, parse_selector, policy.node_selector),
            tolerations=read(_TOLERATIONS, parse_tolerations, policy.tolerations),
            boot_time=read(_BOOT_TIME, parse_boot_time, policy.boot_time),
            speed=read(_SPEED, parse_speed, policy.speed),
        ),
        limits=Limits(
            cluster=read(_PER_CLUSTER, _count, limits.cluster),
            outbound=read(_PER_NODE, _count, limits.outbound),
        ),
        strategy=read(_STRATEGY, _strategy, DEFAULTS.strategy),
        live=CopyingPolicy(
            **{name: read(each.key, each.parse, getattr(DEFAULTS.live, name)) for name, each in SETTINGS.items()}
        ),
        version=data.get(_VERSION, ""),
    )
    return settings, tuple(problems)


# --- the text of a value, which is that of its flag, too ---------------------------------------------------------


def parse_size(text: str) -> Decimal:
    """Parse the CPU or the memory of the reference node: cores or bytes. Raises ValueError."""
    size = parse_quantity(text)
    if not 0 < size <= _LARGEST_SIZE:
        raise ValueError(f"{text!r} is not a node size: want more than 0, and at most 1Ei")
    return size


def parse_selector(text: str) -> Mapping[str, str]:
    """Parse `key=value,key=value`; empty means any node. Raises ValueError."""
    selector: dict[str, str] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise ValueError(f"{part!r} is not of the form key=value")
        selector[key] = value
    return selector


def selector_text(selector: Mapping[str, str]) -> str:
    """Return the text of a node selector."""
    return ",".join(f"{key}={value}" for key, value in selector.items())


def parse_tolerations(text: str) -> tuple[Toleration, ...]:
    """Parse `key[=value][:effect],…`; empty means none. Raises ValueError."""
    found = []
    for part in _parts(text):
        taint, colon, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        if not key or (colon and effect not in _EFFECTS):
            wanted = f"want KEY[=VALUE][:EFFECT], with an effect of {', '.join(_EFFECTS)}"
            raise ValueError(f"{part!r} is not a taint: {wanted}")
        found.append(Toleration(key, "Equal" if equals else "Exists", value, effect))
    return tuple(found)


def tolerations_text(tolerations: Iterable[Toleration]) -> str:
    """Return the text of tolerations that `parse_tolerations` returned."""
    return ",".join(
        f"{one.key}{f'={one.value}' if one.operator == 'Equal' else ''}{f':{one.effect}' if one.effect else ''}"
        for one in tolerations
    )


def parse_boot_time(text: str) -> float:
    """Parse a duration, such as `90s` or `1m30s`, to seconds. Raises ValueError."""
    seconds = boot.parse(text)
    if seconds is None:
        raise ValueError(f"{text!r} is not a boot time: {boot.WANTED}")
    return seconds


def parse_speed(text: str) -> float:
    """Parse simulated seconds in a real one. Raises ValueError."""
    speed = parse_number(text)
    if speed is None or not SLOWEST <= speed <= FASTEST:
        raise ValueError(f"{text!r} is not a speed: want a number from {SLOWEST} to {FASTEST}, such as 10 or 0.5")
    return speed


def _parts(text: str) -> Iterable[str]:
    return filter(None, (part.strip() for part in text.split(",")))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is not a limit: want a whole number, 0 for no limit")
    return int(text)


def _strategy(text: str) -> Strategy:
    try:
        return Strategy(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a strategy: want {' or '.join(Strategy)}") from None
