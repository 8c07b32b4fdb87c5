"""The record of a plane: the settings with which it was created, with which a later `up` compares its own."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from controller.controlplane.errors import InvalidSettingError
from controller.controlplane.kwokctl import COMPONENTS, ComponentArgs
from controller.controlplane.ports import Ports
from controller.controlplane.versions import DISTRIBUTIONS


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a plane that the user can choose, besides its nodes."""

    component_args: Mapping[str, Mapping[str, str]]
    audit_policy: Path | None

    @classmethod
    def of(cls, component_args: ComponentArgs, audit_policy: Path | None) -> Self:
        """Check settings as far as possible without starting a component. Raises InvalidSettingError."""
        for name in component_args:
            if name not in COMPONENTS:
                raise InvalidSettingError("component arguments", f"no component {name}, only {', '.join(COMPONENTS)}")
        if audit_policy and not audit_policy.is_file():
            raise InvalidSettingError("audit policy", f"there is no file {audit_policy}")
        return cls(component_args, audit_policy.absolute() if audit_policy else None)


@dataclass(frozen=True, slots=True)
class Record:
    """The versions, ports and settings with which a plane was created, and the schedulers that were added since."""

    versions: dict[str, str]
    ports: Ports
    component_args: dict[str, dict[str, str]]
    audit_policy_digest: str | None
    schedulers: dict[str, int] = field(default_factory=dict)
    """The ports of the additional schedulers, by their components."""

    @classmethod
    def of(cls, settings: Settings, ports: Ports) -> Self:
        """Return the record of a plane that is created now."""
        return cls(
            versions=pinned_versions(),
            ports=ports,
            component_args={name: dict(args) for name, args in settings.component_args.items()},
            audit_policy_digest=_digest(settings.audit_policy),
        )


def pinned_versions() -> dict[str, str]:
    """Return the versions that this release pins."""
    return {distribution.name: str(distribution.version) for distribution in DISTRIBUTIONS}


def differences(record: Record, settings: Settings) -> tuple[str, ...]:
    """Return how a plane differs from the requested settings; settings that were not requested may differ."""
    changes = [
        f"{name} {record.versions.get(name, 'missing')} instead of {version}"
        for name, version in pinned_versions().items()
        if record.versions.get(name) != version
    ]
    changes += [
        f"other arguments of {name}"
        for name, args in settings.component_args.items()
        if record.component_args.get(name) != dict(args)
    ]
    if settings.audit_policy and record.audit_policy_digest != _digest(settings.audit_policy):
        changes.append("another audit policy")
    return tuple(changes)


def _digest(policy: Path | None) -> str | None:
    return hashlib.sha256(policy.read_bytes()).hexdigest() if policy else None


def read(path: Path) -> Record | None:
    """Read a record; None if there is none, or this version cannot decode it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write(path: Path, record: Record) -> None:
    """Write a record, completely or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(path)
