"""``--network``: interfaces, and what they are connected to."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, BOOT_PARAMETER, VIRTIO, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import Kind, Sub, SubOptions, on_off
from hostel.errors import UsageError

_QEMU_PREFIX: Final = "52:54:00"
_XEN_PREFIX: Final = "00:16:3e"  # what virt-install gives every guest that QEMU does not run
_SOURCES: Final = {"network": "source/@network", "bridge": "source/@bridge", "direct": "source/@dev"}
_INTERFACES: Final = Path("/sys/class/net")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_VIRTUAL_PORT: Final = ("managerid", "typeid", "typeidversion", "instanceid", "profileid", "interfaceid")

NETWORK: Final = SubOptions(
    "--network",
    (
        *ADDRESSES,
        BOOT_ORDER,
        BOOT_PARAMETER,
        *VIRTIO,
        Sub("model"),
        Sub("mac"),
        Sub("network"),
        Sub("bridge"),
        Sub("type"),
        Sub("trustGuestRxFilters", "@trustGuestRxFilters", Kind.YES_NO),
        Sub("source"),
        Sub("source.mode", "source/@mode", aliases=("source_mode",)),
        Sub("source.type", "source/@type", aliases=("source_type",)),
        Sub("source.path", "source/@path", aliases=("source_path",)),
        Sub("source.portgroup", "source/@portgroup", aliases=("portgroup",)),
        Sub("target.dev", "target/@dev", aliases=("target",)),
        Sub("model.type", "model/@type"),
        Sub("mac.address", "mac/@address", skip="RANDOM"),
        Sub("filterref.filter", "filterref/@filter", aliases=("filterref",)),
        Sub("link.state", aliases=("link_state",)),
        Sub("driver.name", "driver/@name", aliases=("driver_name",)),
        Sub("driver.queues", "driver/@queues", Kind.NUMBER, aliases=("driver_queues",)),
        Sub("rom.file", "rom/@file", aliases=("rom_file",)),
        Sub("rom.bar", "rom/@bar", Kind.ON_OFF, aliases=("rom_bar",)),
        Sub("mtu.size", "mtu/@size", Kind.NUMBER),
        Sub("virtualport.type", "virtualport/@type", aliases=("virtualport_type",)),
        *(
            Sub(f"virtualport.parameters.{name}", f"virtualport/parameters/@{name}", aliases=(f"virtualport_{name}",))
            for name in _VIRTUAL_PORT
        ),
    ),
    ("type",),
    (("model", "model.type"), ("mac", "mac.address")),
)


def read_network(guest: Guest, text: str) -> None:
    """``--network``: one interface; ``none`` for none."""
    if text == "none":
        return
    given = NETWORK.read(text)
    if "type" in given:
        given.pop("network", None)
        given.pop("bridge", None)
    else:
        for kind in ("network", "bridge"):
            if kind in given:
                given["type"], given["source"] = kind, given.pop(kind)
                break
    part = Part("interface")
    hooks = {
        "type": _type,
        "source": _source,
        "mac.address": _address,
        "link.state": _link,
        "boot.order": set_boot_order,
    }
    NETWORK.apply(given, part, hooks, guest)
    guest.devices["interface"].append(part)


def _type(guest: Guest, part: Part, value: str | None) -> None:
    # A user's own machines, and invented ones, have no network of the host's.
    part.put("@type", "user" if value == "default" else value)


def _source(guest: Guest, part: Part, value: str | None) -> None:
    for path in _SOURCES.values():
        part.clear(path)
    wanted = _SOURCES.get(part.get("@type") or "")
    if wanted is not None:
        part.put(wanted, value)


def _address(guest: Guest, part: Part, value: str | None) -> None:
    if value is not None and not _MAC.fullmatch(value):
        raise UsageError(f"unable to parse mac address '{value}'; write six bytes as 52:54:00:12:34:56")
    part.put("mac/@address", value)


def _link(guest: Guest, part: Part, value: str | None) -> None:
    if value in ("up", "down", None):
        part.put("link/@state", value)
    else:
        part.put("link/@state", "up" if on_off("link.state", value) else "down")


def complete(guest: Guest) -> None:
    """Give every interface a type, an address and a card that the system knows."""
    used = used_addresses(guest)
    for part in guest.devices["interface"]:
        part.default("@type", "bridge")
        if part.get("mac/@address") is None:
            part.put("mac/@address", _free_address(guest, used))
        part.default("model/@type", _card(guest))


def _card(guest: Guest) -> str | None:
    if not guest.is_hvm:
        return None
    if guest.virtio(supported=guest.hardware.net):
        return "virtio"
    if guest.is_q35:
        return "e1000e"
    return "e1000" if guest.is_x86 else None


def _free_address(guest: Guest, used: dict[str, str]) -> str:
    prefix = _QEMU_PREFIX if guest.host.is_qemu else _XEN_PREFIX
    while True:
        address = f"{prefix}:{':'.join(f'{byte:02x}' for byte in secrets.token_bytes(3))}"
        if address not in used:
            used[address] = guest.name
            return address


def check(guest: Guest) -> None:
    """See that what the interfaces are connected to is there, before anything is made.

    Raises:
        UsageError: a network is not active, or the host has no such bridge.
        VirtError: there is no such network.
    """
    if not guest.host.is_qemu:
        return
    for part in guest.devices["interface"]:
        if (name := part.get("source/@network")) is not None:
            found = guest.host.connection.find_network(name)
            if not found.is_active:
                raise UsageError(
                    f"network '{name}' is not active; start it with 'virsh net-start {name}', or use --network user"
                )
        if (name := part.get("source/@bridge")) is not None and not (_INTERFACES / name / "bridge").is_dir():
            raise UsageError(f"this host has no bridge '{name}'; make it, or use --network user")


def used_addresses(guest: Guest) -> dict[str, str]:
    """The MAC addresses of the machines that there are, with a machine that has each."""
    used: dict[str, str] = {}
    for domain in guest.host.connection.domains():
        for mac in ElementTree.fromstring(domain.xml()).iterfind("devices/interface/mac"):
            used[mac.get("address", "").lower()] = domain.name
    return used
