"""Creating, reading and deleting VMs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.domain import names
from controller.domain.resources import VIRTUAL_MACHINES
from controller.kube import errors as kube
from controller.operations import vms
from controller.operations.errors import CRDOutdatedError, NoSuchVMError, VMExistsError
from tests.model.staged import Staged

REQUEST = vms.VMRequest("vm-1", "default", cpu="0.1", memory="0.20")


def test_a_vm_that_uses_what_it_requests_has_no_annotations() -> None:
    """The spec says it all."""
    assert vms.manifest(REQUEST)["metadata"] == {"name": "vm-1", "namespace": "default"}
    assert vms.manifest(REQUEST)["spec"] == {"resources": {"cpu": "0.1", "memory": "0.20"}, "running": True}


def test_each_consumption_is_an_annotation_of_its_own() -> None:
    """One may follow the spec while the other does not."""
    body = vms.manifest(vms.VMRequest("vm-1", "default", cpu="0.1", memory="0.20", memory_consumption="0.05"))
    assert body["metadata"]["annotations"] == {names.MEMORY_CONSUMPTION: "0.05"}


def test_a_vm_has_the_labels_annotations_and_placement_of_its_template() -> None:
    """Beside its consumption."""
    template = vms.Template({"app": "web"}, {"note": "x"}, {"nodeSelector": {"zone": "a"}})
    body = vms.manifest(replace(REQUEST, cpu_consumption="0.05"), template)
    assert body["metadata"]["labels"] == {"app": "web"}
    assert body["metadata"]["annotations"] == {"note": "x", names.CPU_CONSUMPTION: "0.05"}
    assert body["spec"] == {**vms.manifest(REQUEST)["spec"], "nodeSelector": {"zone": "a"}}


async def test_a_name_that_is_taken_is_an_error_of_its_own(cluster: Staged) -> None:
    """The VM that has it stays as it is."""
    cluster.vm(phase="Running")
    before = dict(cluster.objects)
    with pytest.raises(VMExistsError, match="there is a VM vm-1 in namespace default already: delete it first"):
        await vms.create(cluster, REQUEST)
    assert cluster.objects == before


async def test_a_crd_of_an_older_release_is_an_error_and_no_field_is_lost(cluster: Staged) -> None:
    """It names the field and the remedy; a VM without the field is created."""
    cluster.unknown = frozenset({"affinity", "nodeSelector"})
    placed = vms.Template(placement={"nodeSelector": {"zone": "a"}})
    with pytest.raises(CRDOutdatedError, match=r"of an older release, without spec\.nodeSelector: run `vmsim install`"):
        await vms.create(cluster, REQUEST, placed)
    assert not cluster.names(VIRTUAL_MACHINES)
    await vms.create(cluster, REQUEST)
    assert cluster.names(VIRTUAL_MACHINES) == ["vm-1"]


async def test_a_resource_that_is_not_there_is_no_vm_that_is_not_there(cluster: Staged) -> None:
    """What to do about it is something else."""
    cluster.failures["get virtualmachines"] = kube.NotFoundError(404, "", "404 page not found")
    with pytest.raises(kube.NotFoundError):
        await vms.get(cluster, "default", "vm-1")


async def test_deleting_what_is_not_there_is_an_error(cluster: Staged) -> None:
    """As with kubectl."""
    with pytest.raises(NoSuchVMError):
        await vms.delete(cluster, "default", "vm-1")


async def test_a_newer_vm_of_the_same_name_is_not_deleted(cluster: Staged) -> None:
    """The delete names the VM that was found."""
    cluster.vm()
    found = await vms.get(cluster, "default", "vm-1")
    cluster.remove(VIRTUAL_MACHINES, "default/vm-1")
    cluster.vm()
    assert await vms._all(cluster, [found]) == [False]
    assert cluster.names(VIRTUAL_MACHINES) == ["vm-1"]


async def test_all_vms_are_deleted_and_counted(cluster: Staged) -> None:
    """However many there are."""
    for number in range(40):
        cluster.vm(f"vm-{number}")
    assert await vms.delete_all(cluster, "default") == 40
    assert cluster.names(VIRTUAL_MACHINES) == []


async def test_one_vm_that_cannot_be_deleted_does_not_stop_the_others(cluster: Staged) -> None:
    """Its error is raised at the end."""
    for number in range(40):
        cluster.vm(f"vm-{number}")
    cluster.failures["delete virtualmachines/vm-3"] = kube.ForbiddenError(403, "Forbidden", "not this one")
    with pytest.raises(kube.ForbiddenError, match="not this one"):
        await vms.delete_all(cluster, "default")
    assert cluster.names(VIRTUAL_MACHINES) == ["vm-3"]


async def test_a_list_has_every_field_but_the_bookkeeping(cluster: Staged) -> None:
    """As kubectl prints it."""
    cluster.put(VIRTUAL_MACHINES.plural, "default/vm-1", metadata={"managedFields": [{}]}, spec={"new": 1}, status={})
    [shown] = await vms.list_as_shown(cluster, "default")
    assert shown["spec"] == {"new": 1}
    assert "managedFields" not in shown["metadata"]
