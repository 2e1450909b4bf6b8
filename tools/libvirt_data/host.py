"""What a host has: devices, interfaces, secrets."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.interface import read_interface
from hostel.model.node_device import read_node_device
from hostel.model.node_device_capability import Removable, StorageCapability
from hostel.model.secret import read_secret
from libvirt_data.case import Case, Suite, Tree, same


def devices(tree: Tree) -> Iterator[Case]:
    """Documents of devices."""
    for call in tree.calls("nodedevxml2xmltest", "DO_TEST"):
        name = call.words[0]
        read, written = tree.path(f"nodedevschemadata/{name}.xml"), tree.path(f"nodedevxml2xmlout/{name}.xml")
        yield Case("nodedevxml2xml", name, read, written)


def device(case: Case) -> str:
    """A device as it is written; the sizes of blocks are found out by the host, and libvirt's test makes them up."""
    device = read_node_device(case.text())
    for capability in device.capabilities:
        if not isinstance(capability, StorageCapability):
            continue
        removable = next((each for each in capability.capabilities if isinstance(each, Removable)), None)
        if removable is None:
            capability.logical_block_size, capability.num_blocks = 512, (capability.size or 0) // 512
        elif removable.media_available:
            removable.logical_block_size, removable.num_blocks = 2048, removable.media_size // 2048
    return device.format()


def interface(case: Case) -> str:
    """An interface as it is written."""
    return read_interface(case.text()).format()


def secret(case: Case) -> str:
    """A secret as it is written."""
    return read_secret(case.text()).format()


SUITES = (
    Suite("nodedevxml2xml", devices, device),
    Suite("interfacexml2xml", same("interfacexml2xml", "interfacexml2xmltest", "interfaceschemadata"), interface),
    Suite("secretxml2xml", same("secretxml2xml", "secretxml2xmltest", "secretxml2xmlin"), secret),
)
