"""Reading of the settings that a controller has published.

Guarantees: read from the first of the given namespaces that has them, within a deadline. Where they cannot be read, and
for a value that cannot, the controller's defaults are returned, with a line that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
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


async def read(
    client: Getter, namespaces: Sequence[str], controller_classes: Collection[str | None] = (None,)
) -> Reading:
    """Read the settings of the controller of some VMs, by their classes; None is the controller without a class.

    If they have several classes, the defaults are returned. Raises the KubeErrors of a cluster that does not answer.
    """
    if len(controller_classes) > 1:
        return _defaults("the VMs have controllers of several classes")
    name = names.installation(next(iter(controller_classes), None))
    refused: list[str] = []
    try:
        async with asyncio.timeout(_DEADLINE):
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
        return _defaults(f"ConfigMap {name} may not be read in namespace {', '.join(refused)}")
    return _defaults(f"no controller has published ConfigMap {name} in namespace {' or '.join(namespaces)}")


def _defaults(why: str) -> Reading:
    return Reading(notes=(one_line(f"{why}; the controller's defaults are assumed"),))
