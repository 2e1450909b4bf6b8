"""What a host has: devices, interfaces, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hostel.drivers.nodedev import mdevctl
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


# The devices that libvirt's test has made up: their addresses and names.
_PARENTS = {"0000:00:02.0": "pci_0000_00_02_0", "matrix": "ap_matrix", "0.0.0052": "css_0_0_0052"}


def mediated(tree: Tree) -> Iterator[Case]:
    """Mediated devices and how ``mdevctl`` is told of them; the configuration it reads is put after the command."""
    program, folder = "nodedevmdevctltest", "nodedevmdevctldata"
    body = tree.source(program).text
    for found in re.finditer(r'DO_TEST_(CREATE|DEFINE|STOP|UNDEFINE|START)\("([^"]*)"\)', body):
        verb, name = found[1].lower(), found[2]
        written = tree.path(f"{folder}/{name}-{verb}.argv")
        config = tree.path(f"{folder}/{name}-{verb}.json")
        extra = {"verb": verb, "config": config.read_text().rstrip() if config.exists() else ""}
        yield Case("nodedevmdevctl", f"{verb} {name}", tree.path(f"nodedevschemadata/{name}.xml"), written, extra=extra)
    for found in re.finditer(r'DO_TEST_PARSE_JSON\("([^"]*)"\)', body):
        read, written = (tree.path(f"{folder}/{found[1]}{end}") for end in (".json", ".out.xml"))
        yield Case("nodedevmdevctl", found[1], read, written, extra={"verb": "list"})
    automatic = tree.path("nodedevschemadata/mdev_d069d019_36ea_4111_8f0a_8c9a70e21366.xml")
    for name, read in (("mdevctl-autostart", automatic), ("mdevctl-list-defined", automatic)):
        yield Case("nodedevmdevctl", name, read, tree.path(f"{folder}/{name}.argv"), extra={"verb": name})


def told(case: Case) -> str:
    """The command, and the configuration where it is not as it must be; or the devices of a list."""
    verb = case.extra["verb"]
    if verb == "list":
        return "".join(kept.device.format() for kept in mdevctl.read_list(case.text(), _PARENTS.get))
    if verb == "mdevctl-list-defined":
        return " ".join(mdevctl.LIST_DEFINED)
    device = read_node_device(case.text(), is_new=verb in ("create", "define"))
    if verb == "mdevctl-autostart":
        both = (mdevctl.autostart_command(device, autostart=autostart) for autostart in (True, False))
        return "\n".join(map(" ".join, both))
    if verb not in ("create", "define"):
        return " ".join(mdevctl.known_command(verb, device))
    parent = device.parent.name if device.parent is not None else None
    address = next(address for address, name in _PARENTS.items() if name == parent)
    command = " ".join(mdevctl.new_command("start" if verb == "create" else verb, device, address))
    config = mdevctl.configuration(device)
    return command if config == case.extra["config"] else f"{command}\n{config}"


SUITES = (
    Suite("nodedevxml2xml", devices, device),
    Suite("nodedevmdevctl", mediated, told),
    Suite("interfacexml2xml", same("interfacexml2xml", "interfacexml2xmltest", "interfaceschemadata"), interface),
    Suite("secretxml2xml", same("secretxml2xml", "secretxml2xmltest", "secretxml2xmlin"), secret),
)
