"""The domain document as the test driver reads it: names, sizes and defaults; devices are kept as they are written."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.drivers import document
from hostel.drivers.document import Node, Writer
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_TYPES: Final = ("test", "qemu", "kvm", "xen", "lxc", "vz", "vmware", "hyperv", "vbox", "bhyve")
_OS_TYPES: Final = ("hvm", "xen", "linux", "exe", "uml", "xenpvh")
_ORDER: Final = (
    "name", "uuid", "title", "description", "metadata", "memory", "currentMemory", "vcpu", "os", "features", "cpu",
    "clock", "on_poweroff", "on_reboot", "on_crash", "devices",
)  # fmt: skip
_ACTIONS: Final = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy"}
_BUSES: Final = {"vd": "virtio", "hd": "ide", "sd": "scsi", "fd": "fdc", "xv": "xen"}
_RESTARTING: Final = ("restart", "rename-restart")


class DomainDefinition(NamedTuple):
    """A domain's document.

    Attributes:
        max_memory: KiB.
        memory: KiB.
        shutdown_ends: whether the machine is off after the guest has shut down.
        reboot_ends: whether it is off after the guest has rebooted.
    """

    name: str
    uuid: str
    max_memory: int
    memory: int
    vcpus: int
    shutdown_ends: bool
    reboot_ends: bool
    root: Node

    def format(self, id: int = -1) -> str:
        """Write the document; with an ``id`` that of a running domain."""
        writer = Writer()
        attributes = {str(key): value for key, value in self.root.attrib.items()}
        if id != -1:
            attributes["id"] = str(id)
        writer.start("domain", **attributes)
        for child in self.root:
            writer.copy(child, open_tags=("devices",))
        writer.end()
        return writer.text()


def parse_domain(xml: str) -> DomainDefinition:
    """Parse a domain's document and complete it as the driver's defaults have it.

    Raises:
        VirtError: in libvirt's words.
    """
    root = document.parse(xml, "domain", "domain_definition")
    kind = root.get("type")
    if kind is None:
        raise _fault(ErrorCode.INTERNAL_ERROR, "missing domain type attribute")
    if kind not in _TYPES:
        raise _fault(ErrorCode.CONFIG_UNSUPPORTED, f"invalid domain type {kind}")
    name = document.text(root, "name")
    if not name:
        raise VirtError(ErrorCode.NO_NAME, "missing name information", domain=ErrorDomain.DOMAIN)
    if "/" in name:
        raise _fault(ErrorCode.XML_ERROR, f"name {name} cannot contain '/'")
    written = document.text(root, "uuid")
    if written is not None and document.canonical_uuid(written) is None:
        raise _fault(ErrorCode.INTERNAL_ERROR, "malformed uuid element")
    uuid = document.uuid(root, ErrorDomain.DOMAIN)
    max_memory = _memory(root, "memory")
    if not max_memory:
        raise _fault(ErrorCode.XML_ERROR, "Memory size must be specified via <memory> or in the <numa> configuration")
    memory = min(_memory(root, "currentMemory") or max_memory, max_memory)
    vcpus = _vcpus(root)
    _check_os(root)
    _complete(root, name, uuid, max_memory, memory)
    poweroff = document.text(root, "on_poweroff") or ""
    reboot = document.text(root, "on_reboot") or ""
    return DomainDefinition(
        name, uuid, max_memory, memory, vcpus, poweroff not in _RESTARTING, reboot not in _RESTARTING, root
    )


def _memory(root: Node, path: str) -> int:
    """A size in KiB, rounded up; 0 where there is none."""
    element = root.find(path)
    if element is None:
        return 0
    digits = (element.text or "").strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
        raise _fault(ErrorCode.XML_ERROR, f"Invalid value '{digits}' for element or attribute './{path}[1]'")
    if element.get("unit") is None:
        element.set("unit", "KiB")
    return -(-(document.size(root, path, ErrorDomain.DOMAIN) or 0) // 1024)


def _vcpus(root: Node) -> int:
    written = document.text(root, "vcpu/@current") or document.text(root, "vcpu") or "1"
    try:
        count = int(written)
    except ValueError:
        count = 0
    if count < 1:
        raise _fault(ErrorCode.XML_ERROR, f"vcpu count must be a number from 1 on, not '{written}'")
    return count


def _check_os(root: Node) -> None:
    kind = document.text(root, "os/type")
    if not kind:
        raise _fault(ErrorCode.XML_ERROR, "an os <type> must be specified")
    if kind not in _OS_TYPES:
        raise _fault(ErrorCode.CONFIG_UNSUPPORTED, f"unknown OS type '{kind}'")


def _complete(root: Node, name: str, uuid: str, max_memory: int, memory: int) -> None:
    if "id" in root.attrib:
        del root.attrib["id"]
    _set(root, "name", name)
    _set(root, "uuid", uuid)
    for tag, value in (("memory", max_memory), ("currentMemory", memory)):
        _set(root, tag, str(value)).set("unit", "KiB")
    vcpu = _child(root, "vcpu")
    vcpu.text = (vcpu.text or "1").strip()
    attributes = {"placement": "static", **{str(key): str(value) for key, value in vcpu.attrib.items()}}
    vcpu.attrib.clear()
    for key, given in attributes.items():
        vcpu.set(key, given)
    system = _child(root, "os")
    kind = _child(system, "type")
    if kind.get("arch") is None:
        kind.set("arch", "i686")
    if system.find("boot") is None:
        system.append(root.makeelement("boot", {"dev": "hd"}))
    clock = _child(root, "clock")
    if clock.get("offset") is None:
        clock.set("offset", "utc")
    for tag, action in _ACTIONS.items():
        element = _child(root, tag)
        element.text = (element.text or action).strip()
    for disk in _child(root, "devices").iterfind("disk"):
        _complete_disk(disk)
    root[:] = sorted(root, key=_position)


def _complete_disk(disk: Node) -> None:
    if disk.get("device") is None:
        disk.set("device", "disk")
    target = disk.find("target")
    if target is not None and target.get("bus") is None:
        bus = _BUSES.get(target.get("dev", "")[:2])
        if bus is not None:
            target.set("bus", bus)


def _position(child: Node) -> float:
    # What we do not know stands before the devices, where most of it belongs.
    return _ORDER.index(str(child.tag)) if child.tag in _ORDER else len(_ORDER) - 1.5


def _child(root: Node, tag: str) -> Node:
    found = root.find(tag)
    if found is None:
        found = root.makeelement(tag, {})
        root.append(found)
    return found


def _set(root: Node, tag: str, text: str) -> Node:
    element = _child(root, tag)
    element.text = text
    return element


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.DOMAIN)
