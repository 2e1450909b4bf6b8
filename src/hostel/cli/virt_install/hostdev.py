"""``--hostdev``: a device of the host that the machine gets, by the name the host's list has or by its address."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import ON_OFF, TEXT, Given, Hook, Sub, SubOptions, at, number
from hostel.codec import xmltext
from hostel.errors import ErrorCode, UsageError, VirtError

_USB: Final = re.compile(r"(?P<bus>\d{1,3})\.(?P<device>\d{1,3})")
_IDS: Final = re.compile(r"(?P<vendor>(?:0x)?[0-9a-fA-F]{1,4}):(?P<product>(?:0x)?[0-9a-fA-F]{1,4})")
_PCI: Final = re.compile(
    r"(?:(?P<domain>[0-9a-fA-F]{1,4}):)?(?P<bus>[0-9a-fA-F]{1,2}):(?P<slot>[0-9a-fA-F]{1,2})\.(?P<function>[0-7])"
)
_PLACE: Final = ("domain", "bus", "slot", "function")
# What a device of a container is, and the element that names it.
_CONTAINER: Final = {"net": "interface", "misc": "char", "storage": "block"}
# Mediated devices by their type: the model they are in the machine, and whether libvirt takes them from the host.
_MEDIATED: Final = (
    (re.compile(r"vfio_ccw-io"), "vfio-ccw", "no"),
    (re.compile(r"vfio_ap-passthrough"), "vfio-ap", "no"),
    (re.compile(r"nvidia-[0-9]{2}.*|i915-GVTg_V[0-9]_[0-9].*"), "vfio-pci", "yes"),
)

HOSTDEV: Final = SubOptions(
    "--hostdev",
    (
        *ADDRESSES,
        BOOT_ORDER,
        at("type"),
        Sub("name"),
        at("driver.name", TEXT, "driver_name"),
        at("rom.bar", ON_OFF, "rom_bar"),
    ),
    ("name",),
    owner="hostdev",
)


class Device:
    """A device of the host, as its document describes it."""

    def __init__(self, xml: str) -> None:
        root: Any = xmltext.parse(xml, "device")
        self._root = root
        self.name: str = root.findtext("name") or ""
        self.parent: str | None = root.findtext("parent")
        capability = root.find("capability")
        self.type: str = "" if capability is None else capability.get("type", "")

    def text(self, path: str) -> str | None:
        """The text of an element of its capability."""
        found = self._root.findtext(f"capability/{path}")
        return None if found is None else str(found)

    def identity(self, path: str) -> str | None:
        """The ``id`` of an element of its capability."""
        element = self._root.find(f"capability/{path}")
        return None if element is None else element.get("id")

    @property
    def uuid(self) -> str:
        """The UUID of a mediated device, which its name has where the document does not."""
        return self.text("uuid") or self.name.removeprefix("mdev_").replace("_", "-")

    @property
    def node(self) -> str | None:
        """The path of its file in ``/dev``, best one that stays the same."""
        paths = [node.text or "" for node in self._root.iterfind("devnode")]
        stable = [path for path in paths if path.split("/")[-2:-1] == ["by-path"]]
        return (stable or paths or [None])[0]


def _all(host: Host) -> list[Device]:
    driver = host.connection.node_device
    found = []
    for ref in driver.connect_list_all_node_devices():
        try:
            found.append(Device(driver.node_device_get_xml_desc(ref)))
        except VirtError as error:
            if error.code is not ErrorCode.NO_NODE_DEVICE:  # it was unplugged meanwhile
                raise
    return found


def render_node(host: Host) -> str | None:
    """The first device of the host that renders; None where there is none."""
    for device in _all(host):
        if device.type == "drm" and device.text("type") == "render":
            return device.node
    return None


def _find(host: Host, text: str) -> Device:
    """The device that a name or an address means.

    Raises:
        UsageError: it means none, or several.
    """
    devices = _all(host)
    for device in devices:
        if device.name == text:
            return device
    wanted = _address(text)
    found = [device for device in devices if _is_at(device, wanted)]
    if not found:
        raise UsageError(f"Did not find a matching node device for '{text}'")
    if len(found) > 1:
        raise UsageError(f"{text} corresponds to multiple node devices")
    return found[0]


def _address(text: str) -> dict[str, int]:
    if match := _PCI.fullmatch(text):
        return {name: int(match[name] or "0", 16) for name in _PLACE}
    if match := _IDS.fullmatch(text):
        return {name: int(match[name], 16) for name in ("vendor", "product")}
    if match := _USB.fullmatch(text):
        return {name: int(match[name]) for name in ("bus", "device")}
    raise UsageError(f"Unknown hostdev address string format '{text}'")


def _is_at(device: Device, wanted: dict[str, int]) -> bool:
    if device.type != ("pci" if "slot" in wanted else "usb_device"):
        return False
    told = {name: device.identity(name) if name in ("vendor", "product") else device.text(name) for name in wanted}
    return all(value is not None and number(name, value) == wanted[name] for name, value in told.items())


def _fill(guest: Guest, part: Part, given: Given) -> None:
    hooks: dict[str, Hook] = {"name": _name, "boot.order": set_boot_order}
    HOSTDEV.apply(given, part, hooks, guest)


def _name(guest: Guest, part: Part, value: str | None) -> None:
    element = _CONTAINER.get(part.get("@type") or "")
    if element is not None:
        part.put("@mode", "capabilities")
        part.put(f"source/{element}", value)
        return
    _take(guest, part, _find(guest.host, value or ""))


def _take(guest: Guest, part: Part, device: Device) -> None:
    if device.type == "pci":
        part.put("@type", "pci")
        for name in _PLACE:
            part.put(f"source/address/@{name}", device.text(name))
    elif device.type == "usb_device":
        _take_usb(guest, part, device)
    elif device.type == "net":
        parent = next((other for other in _all(guest.host) if other.name == device.parent), None)
        if parent is None:
            raise UsageError(f"'{device.name}' belongs to no device that can be given away")
        _take(guest, part, parent)
    elif device.type == "scsi":
        part.put("@type", "scsi")
        part.put("@managed", "no")
        part.put("source/adapter/@name", f"scsi_host{device.text('host')}")
        for name, told in (("bus", "bus"), ("target", "target"), ("unit", "lun")):
            part.put(f"source/address/@{name}", device.text(told))
    elif device.type == "mdev":
        _take_mediated(part, device)
    else:
        raise UsageError(f"Unsupported node device type '{device.type}'")


def _take_usb(guest: Guest, part: Part, device: Device) -> None:
    """By vendor and product, and by its place where the host has more than one of them."""
    identity = {name: device.identity(name) for name in ("vendor", "product")}
    part.put("@type", "usb")
    for name, value in identity.items():
        part.put(f"source/{name}/@id", value)
    alike = [
        other
        for other in _all(guest.host)
        if other.type == "usb_device" and all(other.identity(name) == value for name, value in identity.items())
    ]
    if len(alike) > 1:
        part.put("source/address/@bus", device.text("bus"))
        part.put("source/address/@device", device.text("device"))


def _take_mediated(part: Part, device: Device) -> None:
    kind = device.identity("type") or ""
    model, managed = next((values for pattern, *values in _MEDIATED if pattern.fullmatch(kind)), (None, None))
    if model is None:
        raise UsageError(f"Don't know how to generate nodedev for mdev type id '{kind}'")
    part.put("@type", "mdev")
    part.put("@model", model)
    part.put("@managed", managed)
    if model == "vfio-pci":
        part.put("@display", "off")
        part.put("@ramfb", "off")
    part.put("source/address/@uuid", device.uuid)


def option(host: Host) -> Option:
    """The option; what a machine has may be found by the device of the host that it is."""

    def is_it(part: Part, value: str | None) -> bool:
        return _is_device(part, _find(host, value or ""))

    return Option(HOSTDEV, _fill, lookups={"name": is_it})


def _is_device(part: Part, device: Device) -> bool:
    """Whether a machine's device is this one; what its document leaves out may be anything."""
    kind = part.get("@type")
    if kind == "pci" and device.type == "pci":
        return all(_may_be(device.text(name), part.get(f"source/address/@{name}")) for name in _PLACE)
    if kind == "usb" and device.type == "usb_device":
        by_id = all(_may_be(device.identity(name), part.get(f"source/{name}/@id")) for name in ("vendor", "product"))
        return by_id and all(
            _may_be(device.text(name), part.get(f"source/address/@{name}")) for name in ("bus", "device")
        )
    if kind == "mdev" and device.type == "mdev":
        return _same_uuid(device.uuid, part.get("source/address/@uuid"))
    return False


def _may_be(told: str | None, written: str | None) -> bool:
    return written is None or (told is not None and number("", told) == number("", written))


def _same_uuid(one: str, other: str | None) -> bool:
    try:
        return uuid.UUID(one) == uuid.UUID(other or "")
    except ValueError:
        return False
