"""`make manifests`: writes the API server's own schema of a pod's placement into the CRD of the VM.

Guarantees: of the CRD only the lines between the two marks change, and the same document gives the same lines; the
result is a structural schema that writes no default into a VM; a keyword that this module does not know is an error.
The document is OpenAPI v3, `/openapi/v3/api/v1`, of a control plane that is started for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from controller.controlplane.errors import ControlPlaneError
from controller.controlplane.plane import ControlPlane

Schema: TypeAlias = dict[str, Any]

CRD: Final = Path(__file__).resolve().parents[1] / "manifests" / "crds" / "virtualmachines.yaml"
DOCUMENT: Final = "/openapi/v3/api/v1"
FIELDS: Final = (
    "schedulerName",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "priorityClassName",
)
"""The fields of a pod's spec that a VM's spec has, too."""
_INDENT: Final = 16
_MARGIN: Final = " " * _INDENT
BEGIN: Final = (
    f"{_MARGIN}# BEGIN placement: `make manifests` writes these lines. The texts are Kubernetes', see NOTICE.\n"
)
END: Final = f"{_MARGIN}# END placement\n"

_WIDTH: Final = 120
_SHORT: Final = 60
"""Longer texts get lines of their own."""
_DEADLINE: Final = 30.0
_CORE: Final = "io.k8s.api.core.v1."
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_KEPT: Final = (
    "type",
    "format",
    "description",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "additionalProperties",
    "items",
    "properties",
)
"""The keywords of the result, in their order there."""
_DROPPED: Final = frozenset(("$ref", "allOf", "default", "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy"))
"""References are inlined. A default would be written into every VM; the patch keywords mean nothing in a CRD."""
_ADDED: Final[Mapping[tuple[str, str], Schema]] = {
    (f"{_CORE}PodSpec", "schedulerName"): {"maxLength": 253},  # not checked by the server; messages repeat it
    (f"{_CORE}PodSpec", "priorityClassName"): {"maxLength": 253},
    (f"{_CORE}NodeSelector", "nodeSelectorTerms"): {"minItems": 1},
    (f"{_CORE}PreferredSchedulingTerm", "weight"): {"minimum": 1, "maximum": 100},
    (f"{_CORE}WeightedPodAffinityTerm", "weight"): {"minimum": 1, "maximum": 100},
    (f"{_CORE}PodAffinityTerm", "topologyKey"): {"minLength": 1},
    (f"{_CORE}TopologySpreadConstraint", "topologyKey"): {"minLength": 1},
    (f"{_CORE}TopologySpreadConstraint", "maxSkew"): {"minimum": 1},
    (f"{_CORE}TopologySpreadConstraint", "minDomains"): {"minimum": 1},
    (f"{_META}LabelSelectorRequirement", "operator"): {"enum": ["DoesNotExist", "Exists", "In", "NotIn"]},
}
"""What the server checks when a pod is created but does not say in its document, by schema and property."""


class SchemaError(Exception):
    """The document has not the shape that this module knows, or the CRD has not the marks."""


def placement(document: Mapping[str, Any]) -> dict[str, Schema]:
    """Return the structural schema of each field, by name, from an OpenAPI v3 document. Raises SchemaError."""
    schemas = document["components"]["schemas"]
    pod = _inlined(f"{_CORE}PodSpec", {"$ref": f"{_CORE}PodSpec"}, schemas, only=FIELDS)
    return {name: pod["properties"][name] for name in FIELDS}


def _inlined(at: str, part: Schema, schemas: Mapping[str, Schema], *, only: tuple[str, ...] | None = None) -> Schema:
    """Return a schema without references; its own keywords win over those of the schema that it refers to."""
    whole: Schema = {}
    for reference in (part, *part.get("allOf", ())):
        if "$ref" in reference:
            name = reference["$ref"].rpartition("/")[2]
            whole |= _inlined(name, schemas[name], schemas, only=only)
    if unknown := part.keys() - _DROPPED - set(_KEPT):
        raise SchemaError(f"{at}: {', '.join(sorted(unknown))}: keep or drop it in {__name__}")
    whole |= {word: value for word, value in part.items() if word not in _DROPPED}
    for word in ("items", "additionalProperties"):
        if word in part:
            whole[word] = _inlined(f"{at}[]", part[word], schemas)
    if "properties" in part:
        whole["properties"] = {
            name: _ordered(_inlined(f"{at}.{name}", below, schemas) | _ADDED.get((at, name), {}))
            for name, below in part["properties"].items()
            if only is None or name in only
        }
    return _ordered(whole)


def _ordered(schema: Schema) -> Schema:
    return {word: schema[word] for word in _KEPT if word in schema}


class _Dumper(yaml.SafeDumper):
    """Writes as the rest of the CRD is written: no aliases, lists of words on one line, long texts folded."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > _SHORT else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _words(dumper: _Dumper, words: list[str]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", words, flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _words)


def block(fields: Mapping[str, Schema]) -> str:
    """Return the lines of the CRD that define these properties."""
    lines = yaml.dump(dict(fields), Dumper=_Dumper, sort_keys=False, width=_WIDTH - _INDENT, allow_unicode=True)
    return textwrap.indent(lines, _MARGIN)


def written(crd: str, lines: str) -> str:
    """Return the CRD with these lines between its marks. Raises SchemaError."""
    before, begin, rest = crd.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SchemaError(f"{CRD.name} has not both marks, {BEGIN.strip()!r} and {END.strip()!r}")
    return before + begin + lines + end + after


def fetched(kubectl: Path, kubeconfig: Path) -> Any:
    """Return the document of a cluster. Raises CalledProcessError, TimeoutExpired."""
    command = [str(kubectl), "--kubeconfig", str(kubeconfig), "get", "--raw", DOCUMENT]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=_DEADLINE).stdout)


def main() -> int:
    """Start a control plane, read its document, write the CRD; return the exit code."""
    try:
        with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder), nodes=0) as plane:
            document = fetched(plane.kubectl, plane.kubeconfig)
        before = CRD.read_text(encoding="utf-8")
        after = written(before, block(placement(document)))
    except (ControlPlaneError, SchemaError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if after == before:
        print(f"{CRD.name}: up to date")
        return 0
    CRD.write_text(after, encoding="utf-8")
    print(f"{CRD.name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
