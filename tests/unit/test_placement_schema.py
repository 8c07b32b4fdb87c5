"""The schema that a CRD gets is the document's, without references, defaults and patch keywords."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest
import yaml

from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import codec
from hack.placement_schema import BEGIN, CRD, END, FIELDS, SchemaError, block, placement, written

CORE: Final = "io.k8s.api.core.v1."
PLAIN: Final = {"type": "string", "description": "A name."}
DOCUMENT: Final[Any] = {
    "components": {
        "schemas": {
            f"{CORE}PodSpec": {
                "type": "object",
                "required": ["containers"],
                "properties": {
                    **{name: {**PLAIN} for name in FIELDS},
                    "hostIPC": {"type": "boolean", "oneOf": []},
                    "affinity": {
                        "description": "The field's own.",
                        "default": {},
                        "allOf": [{"$ref": f"#/components/schemas/{CORE}Affinity"}],
                    },
                    "tolerations": {
                        "description": "A list.",
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["key"],
                        "x-kubernetes-patch-merge-key": "key",
                        "x-kubernetes-patch-strategy": "merge",
                        "items": {"$ref": f"#/components/schemas/{CORE}Toleration"},
                    },
                },
            },
            f"{CORE}Affinity": {
                "description": "The type's.",
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "properties": {
                    "weights": {
                        "type": "object",
                        "description": "Of keys.",
                        "additionalProperties": {"type": "integer", "default": 0},
                    }
                },
            },
            f"{CORE}Toleration": {
                "description": "An element.",
                "type": "object",
                "required": ["key"],
                "properties": {"key": {"type": "string", "default": "", "description": "A key.", "enum": ["a", "b"]}},
            },
        }
    }
}


def filled(schema: Any) -> Any:
    """Return a value that has every field of a schema."""
    match schema["type"]:
        case "array":
            return [filled(schema["items"])]
        case "integer":
            return schema.get("minimum", 1)
        case "string":
            return schema.get("enum", ["x"])[0]
        case _ if "additionalProperties" in schema:
            return {"x": filled(schema["additionalProperties"])}
        case _:
            return {name: filled(below) for name, below in schema["properties"].items()}


def spec_of(crd: str) -> Any:
    """Return the schema of a VM's spec."""
    return yaml.safe_load(crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def changed(field: str, **keywords: Any) -> Any:
    """Return the document with other keywords of a field."""
    document = copy.deepcopy(DOCUMENT)
    document["components"]["schemas"][f"{CORE}PodSpec"]["properties"][field] |= keywords
    return document


def test_the_fields_of_placement_alone_are_taken() -> None:
    """In the order of their list."""
    assert tuple(placement(DOCUMENT)) == FIELDS


def test_a_reference_is_replaced_by_its_schema() -> None:
    """The field's own description wins; defaults are dropped at every depth."""
    assert placement(DOCUMENT)["affinity"] == {
        "type": "object",
        "description": "The field's own.",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "weights": {"type": "object", "description": "Of keys.", "additionalProperties": {"type": "integer"}}
        },
    }


def test_the_type_of_a_list_is_kept() -> None:
    """Only the patch keywords are dropped."""
    assert placement(DOCUMENT)["tolerations"] == {
        "type": "array",
        "description": "A list.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
        "items": {
            "type": "object",
            "description": "An element.",
            "required": ["key"],
            "properties": {"key": {"type": "string", "description": "A key.", "enum": ["a", "b"]}},
        },
    }


def test_what_the_server_checks_elsewhere_is_added() -> None:
    """The length of a name."""
    assert placement(DOCUMENT)["schedulerName"] == {**PLAIN, "maxLength": 253}


def test_an_unknown_keyword_is_an_error() -> None:
    """It names the field and the keyword, since nobody has decided whether a CRD keeps it."""
    with pytest.raises(SchemaError, match=r"PodSpec\.nodeSelector: not, oneOf: "):
        placement(changed("nodeSelector", oneOf=[], **{"not": {}}))


@pytest.mark.parametrize(
    "text",
    [
        "Short: a text.",
        "long " * 60 + "end",
        'One.\n\nPossible values:\n - `"a"` is one\n - `"b"`',
        "Yes",
        "ends with a space ",
    ],
)
def test_every_text_is_read_as_it_was_written(text: str) -> None:
    """As YAML it may be plain, folded or literal."""
    fields = placement(changed("schedulerName", description=text))
    assert yaml.safe_load(block(fields)) == fields


def test_the_lines_outside_of_the_marks_stay() -> None:
    """Byte by byte; what was between them goes."""
    crd = f"a: 1 # why\n{BEGIN}old: 1\n{END}\n\nb:   2\n"
    assert written(crd, "new: 1\n") == f"a: 1 # why\n{BEGIN}new: 1\n{END}\n\nb:   2\n"


@pytest.mark.parametrize("crd", ["", f"{BEGIN}", f"{END}", f"{END}{BEGIN}"])
def test_a_crd_without_both_marks_is_an_error(crd: str) -> None:
    """Nothing is written anywhere else."""
    with pytest.raises(SchemaError, match="has not both marks"):
        written(crd, "new: 1\n")


def test_the_block_is_part_of_the_vms_spec() -> None:
    """Its indentation makes the fields properties of spec."""
    spec = spec_of(written(CRD.read_text(), block(placement(DOCUMENT))))
    assert list(spec["properties"]) == ["resources", "running", *FIELDS]


def test_the_controller_knows_every_field_of_the_schema() -> None:
    """What it decodes and encodes again is complete, so that no field of a VM is lost on the way to its pod."""
    properties = spec_of(CRD.read_text())["properties"]
    spec = {name: filled(properties[name]) for name in FIELDS}
    vm = {"metadata": {"name": "x"}, "spec": spec}
    decoded = codec.decode_object(codec.encode(vm), VIRTUAL_MACHINES.type)
    encoded = json.loads(codec.encode(decoded.spec))
    assert {name: encoded[name] for name in FIELDS} == spec
