"""Writes the administrator's credentials to a self-contained kubeconfig.

Guarantees: the file is new, only its owner may read it, and it refers to no other file.
"""

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from controller.controlplane.errors import FileTakenError

_FILES = ("certificate-authority", "client-certificate", "client-key")


def refuse_existing(path: Path) -> None:
    """Raise FileTakenError if the path exists."""
    if path.exists() or path.is_symlink():
        raise FileTakenError(path)


def write(path: Path, kubeconfig: Path) -> None:
    """Write a copy of a kubeconfig with the certificates and keys that it names embedded. Raises FileTakenError."""
    document = yaml.safe_load(kubeconfig.read_text())
    for entry in document["clusters"]:
        _embed(entry["cluster"])
    for entry in document["users"]:
        _embed(entry["user"])
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileTakenError(path) from None
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(document, file)


def _embed(entry: dict[str, Any]) -> None:
    for name in _FILES:
        if name in entry:
            entry[f"{name}-data"] = base64.b64encode(Path(entry.pop(name)).read_bytes()).decode()
