"""Parses and checks the values of flags.

Guarantees: an invalid value is refused before any connection is made, by a typer.BadParameter that quotes it, names its
flag and says what is valid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import typer

from controller.domain import settings
from controller.domain.ratio import ReferenceNode
from controller.kube import naming, times
from controller.kube.scheduling import Toleration
from controller.serving.address import BindError, parse_address

T = TypeVar("T")

_LONGEST_CLASS: Final = 40
_KEY: Final = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE: Final = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_REQUIREMENT: Final = re.compile(
    rf"\s*(!\s*{_KEY}|{_KEY}(\s*(=|==|!=)\s*{_VALUE}|\s+(in|notin)\s*\(\s*{_VALUE}(\s*,\s*{_VALUE})*\s*\))?)\s*",
    re.ASCII,
)


def reference(cpu: str, memory: str) -> ReferenceNode:
    """Parse the size of the reference node."""
    return ReferenceNode(
        cpu=parsed("--reference-cpu", settings.parse_size, cpu),
        memory=parsed("--reference-memory", settings.parse_size, memory),
    )


def parsed(flag: str, parse: Callable[[str], T], text: str) -> T:
    """Return the value of a flag whose text the published settings use, too."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=flag) from error


def address(text: str) -> str:
    """Check an address to listen on."""
    try:
        parse_address(text)
    except BindError as error:
        raise typer.BadParameter(str(error), param_hint="--metrics-bind-address") from error
    return text


def certificate_files(certificate: str | None, key: str | None) -> tuple[Path, Path] | None:
    """Return the files of a certificate and of its key, which go together; None means no TLS."""
    if certificate and key:
        return Path(certificate), Path(key)
    if certificate or key:
        given, missing = ("--metrics-cert-file", "--metrics-key-file")[:: 1 if certificate else -1]
        raise typer.BadParameter(f"TLS takes both files: {missing} is not set", param_hint=given)
    return None


def namespaces(text: str) -> tuple[str, ...]:
    """Parse `a,b`; empty means all namespaces."""
    found = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    for name in found:
        if len(name) > naming.LONGEST_LABEL or not naming.DNS_LABEL.fullmatch(name):
            raise typer.BadParameter(f"{name!r} is not a valid namespace name", param_hint="--namespaces")
    return found


def watched(several: str, one: str | None) -> tuple[str, ...]:
    """Return the namespaces to watch, of --namespaces or of -n; empty means all namespaces."""
    if several and one:
        raise typer.BadParameter("cannot be combined with --namespaces", param_hint="--namespace")
    return namespaces(several or one or "")


def namespace(text: str | None) -> str | None:
    """Parse a namespace, which may be written `ns/NAME`, as for kubectl; None if it is not given."""
    if not text:
        return None
    kind, slash, name = text.partition("/")
    return name if slash and name and kind.lower() in ("ns", "namespace", "namespaces") else text


def request_timeout(text: str | None) -> float | None:
    """Parse a deadline in seconds: `90`, `1m30s`, `0` (returned as infinity); None if it is not given."""
    if not text:
        return None
    seconds = float(text) if text.isascii() and text.isdecimal() else times.parse_duration(text)
    if seconds is None:
        wanted = "want a number of seconds, or a duration such as 1s, 2m or 1h30m"
        raise typer.BadParameter(f"{text!r} is not a duration: {wanted}", param_hint="--request-timeout")
    return seconds or math.inf


def node_selector(text: str) -> Mapping[str, str]:
    """Parse `key=value,key=value`; empty means any node."""
    return parsed("--node-selector", settings.parse_selector, text)


def tolerations(text: str) -> tuple[Toleration, ...]:
    """Parse `key[=value][:effect],…`; empty means none."""
    return parsed("--tolerations", settings.parse_tolerations, text)


def speed(text: str) -> float:
    """Parse simulated seconds in a real one."""
    return parsed("--speed", settings.parse_speed, text)


def boot_time(text: str) -> float:
    """Parse a boot time, such as `90s` or `1m30s`, to seconds."""
    return parsed("--boot-time", settings.parse_boot_time, text)


def within(text: str) -> float | None:
    """Parse the time that a plan may take, such as `4h` or `90m`, to seconds; None if it is not given."""
    if not text:
        return None
    seconds = times.parse_duration(text)
    if not seconds:
        raise typer.BadParameter(f"{text!r} is not a time: want a duration such as 30m or 4h", param_hint="--within")
    return seconds


def controller_class(text: str) -> str | None:
    """Check a class's name, which becomes a label and part of the lease's name; None means the default class."""
    if not text:
        return None
    if len(text) > _LONGEST_CLASS or not naming.DNS_LABEL.fullmatch(text):
        wanted = f"want at most {_LONGEST_CLASS} lower-case letters, digits and dashes, such as blue"
        raise typer.BadParameter(f"{text!r} is not a valid class: {wanted}", param_hint="--controller-class")
    return text


def label_selector(text: str) -> str:
    """Check a label selector: `a=b,c!=d,e in (f,g),!h`. The API server would refuse every list with an invalid one."""
    rest = text
    while rest:
        match = _REQUIREMENT.match(rest)
        end = match.end() if match else 0
        if match is None or rest[end : end + 1] not in ("", ",") or rest[end:] == ",":
            wanted = "want labels such as env=test,tier in (a,b),!legacy"
            raise typer.BadParameter(f"{text!r} is not a label selector: {wanted}", param_hint="--selector")
        rest = rest[end + 1 :]
    return text
