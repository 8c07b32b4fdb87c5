"""Reading of the settings that a controller has published.

Guarantees: those of a class are read from the first of the given namespaces that has them, within a deadline for all
classes, and never replaced by another class's. Where they cannot be read, and for a value that cannot, the controller's
defaults are returned, with a line that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain import names
from controller.domain.settings import DEFAULTS, PublishedSettings, decode
from controller.kube import managers
from controller.kube.errors import ForbiddenError, MalformedReplyError, NotFoundError, StatusError
from controller.kube.resources import CONFIG_MAPS
from controller.kube.verbs import Getter
from controller.operations.text import one_line

_DEADLINE: Final = 5.0
"""Seconds after which the defaults are used."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings, and where they are from: a ConfigMap, or None for the defaults. `notes`: lines for the user."""

    settings: PublishedSettings = DEFAULTS
    config_map: str | None = None
    notes: tuple[str, ...] = ()


def places(namespace: str, home: str) -> tuple[str, ...]:
    """Return the namespaces in which to look: the command's, the credentials' own (`home`), the manifests'."""
    return tuple(dict.fromkeys((namespace, home, names.HOME)))


async def read(client: Getter, namespaces: Sequence[str]) -> Reading:
    """Read the settings of the controller without a class. Raises the KubeErrors of a cluster that does not answer."""
    return (await read_classes(client, namespaces, (None,)))[None]


async def read_classes(
    client: Getter, namespaces: Sequence[str], classes: Iterable[str | None]
) -> Mapping[str | None, Reading]:
    """Read the settings of these classes of controllers. Raises the KubeErrors of a cluster that does not answer."""
    until = asyncio.get_running_loop().time() + _DEADLINE
    return {of_class: await _read(client, namespaces, of_class, until) for of_class in classes}


async def _read(client: Getter, namespaces: Sequence[str], of_class: str | None, until: float) -> Reading:
    name = names.installation(of_class)
    refused: list[str] = []
    try:
        async with asyncio.timeout_at(until):
            for namespace in namespaces:
                try:
                    found = await client.get(CONFIG_MAPS, name, namespace=namespace)
                except NotFoundError:
                    continue
                except ForbiddenError:
                    refused.append(namespace)
                    continue
                if found.metadata.labels.get(names.MANAGED_BY) == managers.CONTROLLER:
                    where = f"ConfigMap {namespace}/{name}"
                    settings, problems = decode(found.data)
                    return Reading(settings, where, tuple(one_line(f"{where}: {problem}") for problem in problems))
    except (StatusError, MalformedReplyError) as error:
        return _defaults(f"ConfigMap {name} cannot be read: {error}")
    except TimeoutError:
        return _defaults(f"ConfigMap {name} was not read within {_DEADLINE:g} s")
    if refused:
        may_not = f"ConfigMap {name} may not be read in namespace {', '.join(refused)}"
        return _defaults(may_not, "; ask an administrator for the right to get it")
    return _defaults(f"no controller has published ConfigMap {name} in namespace {' or '.join(namespaces)}")


def _defaults(why: str, remedy: str = "") -> Reading:
    return Reading(notes=(one_line(f"{why}; the controller's defaults are assumed{remedy}"),))
