"""Wheels of the packages that are installed here: installing them downloads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from zipfile import ZipFile

# Written by the installer.
_OF_THE_INSTALLER = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"})


def installed() -> dict[str, Distribution]:
    """Return the packages of this environment by their names."""
    return {normal(one.metadata["Name"]): one for one in distributions()}


def repack(distribution: Distribution, folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Write the wheel that a distribution was installed from, but for its digests; return its path.

    `without` has prefixes of the files that are left out.
    """
    stem = f"{normal(distribution.metadata['Name'])}-{distribution.version}"
    wheel = folder / f"{stem}-{_tags(distribution)}.whl"
    names = []
    with ZipFile(wheel, "w") as archive:
        for path, name in _files(distribution, stem):
            if not name.startswith(without):
                archive.write(path, name)  # with its mode: programs stay programs
                names.append(name)
        (information,) = {name.partition("/")[0] for name in names if name.endswith(".dist-info/METADATA")}
        record = f"{information}/RECORD"
        archive.writestr(record, "".join(f"{name},,\n" for name in [*names, record]))
    return wheel


def _files(distribution: Distribution, stem: str) -> Iterator[tuple[Path, str]]:
    """Yield each file of a wheel, and its name there."""
    generated = {entry.name for entry in distribution.entry_points.select(group="console_scripts")}
    for file in distribution.files or ():
        path, name = Path(str(file.locate())), str(file)
        if name.endswith(".pyc") or (".dist-info/" in name and path.name in _OF_THE_INSTALLER):
            continue
        if not name.startswith("../"):
            yield path, name
        elif path.parent.name == "bin" and path.name not in generated:
            yield path, f"{stem}.data/scripts/{path.name}"
        elif path.parent.name != "bin":
            yield path, f"{stem}.data/data/{name.lstrip('./')}"


def normal(name: str) -> str:
    """Return a package's name in the form that a wheel's file name has."""
    return name.lower().replace("-", "_").replace(".", "_")


def _tags(distribution: Distribution) -> str:
    """Return the tags of a wheel's file name: its interpreters, ABIs and platforms."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(": ")[2].split("-") for line in lines if line.startswith("Tag: ")]
    return "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
