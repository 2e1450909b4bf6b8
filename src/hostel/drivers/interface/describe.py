"""The document of a host's interface, from sysfs (as libvirt's ``interface_backend_udev.c`` has it)."""

from __future__ import annotations

import os
import re
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.nodedev.net import link_of
from hostel.drivers.nodedev.sysfs import SysDevice
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.interface import (
    ArpMonitor,
    BondedInterface,
    BridgedInterface,
    HostInterface,
    InterfaceBond,
    InterfaceBridge,
    InterfaceVlan,
    LinkMonitor,
    LowerVlan,
)

# A machine's interface in a bridge is the machine's, not the host's.
_OF_MACHINE: Final = re.compile(r"vnet\d")
_VLAN: Final = re.compile(r"VID: (?P<tag>\d+)\s.*\nDevice: (?P<lower>[^\n]+)", re.DOTALL)
_CARRIER: Final = ("ioctl", "netif")
_KINDS: Final = ("vlan", "bridge", "bond")


def describe(device: SysDevice) -> HostInterface:
    """The document.

    Raises:
        VirtError: ``INTERNAL_ERROR`` where the kernel says nothing of what has to be there.
    """
    kind = kind_of(device)
    return HostInterface(
        type=kind,
        name=device.name,
        mtu=device.number("mtu") or None,
        link=None if kind == "bridge" else link_of(device),
        mac=device.attribute("address") if kind == "ethernet" else None,
        bridge=_bridge(device) if kind == "bridge" else None,
        bond=_bond(device) if kind == "bond" else None,
        vlan=_vlan(device) if kind == "vlan" else None,
    )


def kind_of(device: SysDevice) -> str:
    """``ethernet``, ``bridge``, ``bond`` or ``vlan``."""
    kind = device.fact("DEVTYPE")
    if kind in _KINDS:
        return kind
    if device.attribute("bonding/mode") is not None:
        return "bond"
    return "vlan" if "." in device.name else "ethernet"


def _bridge(device: SysDevice) -> InterfaceBridge:
    members = sorted(name for name in _entries(device, "brif", "members of bridge") if not _OF_MACHINE.match(name))
    return InterfaceBridge(
        stp={-1: None, 0: False, 1: True}[_number(device, "bridge/stp_state")],
        delay=_text(device, "bridge/forward_delay"),
        interfaces=[_bridged(device.tree.interface(name), device) for name in members],
    )


def _bridged(member: SysDevice | None, bridge: SysDevice) -> BridgedInterface:
    if member is None:
        raise _wrong(f"Could not get interface information of a member of bridge '{bridge.name}'")
    kind = kind_of(member)
    if kind == "bridge":
        raise _wrong(f"'{member.name}', a member of bridge '{bridge.name}', is a bridge")
    return BridgedInterface(
        type=kind,
        name=member.name,
        link=link_of(member),
        mac=member.attribute("address") if kind == "ethernet" else None,
        bond=_bond(member) if kind == "bond" else None,
        vlan=_vlan(member) if kind == "vlan" else None,
    )


def _bond(device: SysDevice) -> InterfaceBond:
    """A bond; the kernel writes its modes as ``balance-rr 0``."""
    names = [name.removeprefix("slave_") for name in _entries(device, "", "slaves of bond") if name[:6] == "slave_"]
    interval, freq = _number(device, "bonding/arp_interval"), _number(device, "bonding/miimon")
    bond = InterfaceBond(
        mode=_text(device, "bonding/mode").split()[0],
        interfaces=[_bonded(device.tree.interface(name), device) for name in sorted(names)],
    )
    if interval > 0:
        checked = _text(device, "bonding/arp_validate").split()[0]
        bond.arp_monitor = ArpMonitor(
            interval=interval,
            target=device.attribute("bonding/arp_ip_target") or "",
            validate=checked if checked in ("active", "backup", "all") else None,
        )
    elif freq > 0:
        bond.link_monitor = LinkMonitor(
            freq=freq,
            downdelay=_number(device, "bonding/downdelay") or None,
            updelay=_number(device, "bonding/updelay") or None,
            carrier=_CARRIER[_number(device, "bonding/use_carrier")],
        )
    return bond


def _bonded(member: SysDevice | None, bond: SysDevice) -> BondedInterface:
    if member is None:
        raise _wrong(f"Could not get interface information of what is enslaved in bond '{bond.name}'")
    return BondedInterface(type="ethernet", name=member.name, link=link_of(member), mac=member.attribute("address"))


def _vlan(device: SysDevice) -> InterfaceVlan:
    path = device.tree.root / "proc/net/vlan" / device.name
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise system_fault(error, f"Failed to open file '{device.tree.shown(path)}'", ErrorDomain.INTERFACE) from error
    found = _VLAN.search(text)
    if found is None:
        raise _wrong(f"failed to find the VID and the real device for the VLAN device '{device.name}'")
    return InterfaceVlan(tag=found["tag"], interface=LowerVlan(name=found["lower"]))


def _entries(device: SysDevice, folder: str, what: str) -> list[str]:
    try:
        return os.listdir(device.path / folder)
    except OSError as error:
        raise system_fault(error, f"Could not get {what} '{device.name}'", ErrorDomain.INTERFACE) from error


def _text(device: SysDevice, name: str) -> str:
    text = device.attribute(name)
    if text is None:
        raise _wrong(f"Could not retrieve '{name}' for '{device.name}'")
    return text


def _number(device: SysDevice, name: str) -> int:
    text = _text(device, name)
    try:
        return int(text)
    except ValueError:
        raise _wrong(f"Could not parse '{name}' '{text}' for '{device.name}'") from None


def _wrong(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.INTERFACE)
