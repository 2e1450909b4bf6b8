"""``--network``: interfaces, and what they are connected to."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, BOOT_PARAMETER, VIRTIO, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import NUMBER, ON_OFF, TEXT, YES_NO, Given, Lookup, Sub, SubOptions, at, on_off
from hostel.errors import UsageError

_QEMU_PREFIX: Final = "52:54:00"
_XEN_PREFIX: Final = "00:16:3e"  # what virt-install gives every guest that QEMU does not run
_SOURCES: Final = {"network": "source/@network", "bridge": "source/@bridge", "direct": "source/@dev"}
_INTERFACES: Final = Path("/sys/class/net")
_ROUTES: Final = Path("/proc/net/route")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_VIRTUAL_PORT: Final = ("managerid", "typeid", "typeidversion", "instanceid", "profileid", "interfaceid")
_NUMBERS: Final = 3  # so many of them, the first

NETWORK: Final = SubOptions(
    "--network",
    (
        *ADDRESSES,
        BOOT_ORDER,
        BOOT_PARAMETER,
        *VIRTIO,
        Sub("model", "model/@type"),
        Sub("mac", "mac/@address"),
        Sub("network"),
        Sub("bridge"),
        at("type"),
        at("trustGuestRxFilters", YES_NO),
        Sub("source"),
        at("source.mode", TEXT, "source_mode"),
        at("source.type", TEXT, "source_type"),
        at("source.path", TEXT, "source_path"),
        at("source.portgroup", TEXT, "portgroup"),
        at("target.dev", TEXT, "target"),
        at("model.type"),
        Sub("mac.address", "mac/@address", skip="RANDOM"),
        at("filterref.filter", TEXT, "filterref"),
        at("link.state", TEXT, "link_state"),
        at("driver.name", TEXT, "driver_name"),
        at("driver.queues", NUMBER, "driver_queues"),
        at("rom.file", TEXT, "rom_file"),
        at("rom.bar", ON_OFF, "rom_bar"),
        at("mtu.size", NUMBER),
        at("virtualport.type", TEXT, "virtualport_type"),
        *(
            at(f"virtualport.parameters.{name}", NUMBER if index < _NUMBERS else TEXT, f"virtualport_{name}")
            for index, name in enumerate(_VIRTUAL_PORT)
        ),
    ),
    ("type",),
    (("model", "model.type"), ("mac", "mac.address")),
    owner="interface",
)


def _fill(guest: Guest, part: Part, given: Given) -> None:
    if "type" in given:
        given.pop("network", None)
        given.pop("bridge", None)
    else:
        for kind in ("network", "bridge"):
            if kind in given:
                given["type"], given["source"] = kind, given.pop(kind)
                break
    hooks = {
        "type": _type,
        "source": _source,
        "mac.address": _address,
        "link.state": _link,
        "boot.order": set_boot_order,
    }
    NETWORK.apply(given, part, hooks, guest)


def _type(guest: Guest, part: Part, value: str | None) -> None:
    if value != "default":
        part.put("@type", value)
    elif not guest.host.is_privileged:
        part.put("@type", "user")  # a user's own machines, and invented ones, have no network of the host's
    elif (bridge := None if guest.host.is_remote else default_bridge()) is not None:
        part.put("@type", "bridge")
        part.put("source/@bridge", bridge)
    else:
        part.put("@type", "network")
        part.put("source/@network", "default")


def default_bridge() -> str | None:
    """The bridge that the host's own traffic takes; None where it takes none."""
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return None
    device = next((fields[0] for line in lines if (fields := line.split())[1:2] == ["00000000"]), None)
    return device if device is not None and (_INTERFACES / device / "bridge").is_dir() else None


def _source(guest: Guest, part: Part, value: str | None) -> None:
    wanted = _SOURCES.get(part.get("@type") or "")
    for path in _SOURCES.values():
        if path == wanted:
            part.put(path, value)
        elif part.get(path) is not None:
            part.put(path, None)


def _has_source(part: Part, value: str | None) -> bool:
    return part.get(_SOURCES.get(part.get("@type") or "", "source/@name")) == value


_lookups: Final[dict[str, Lookup]] = dict.fromkeys(("network", "bridge", "source"), _has_source)
OPTIONS: Final = (Option(NETWORK, _fill, lookups=_lookups),)


def check_address(address: str) -> None:
    """Refuse what is no MAC address.

    Raises:
        UsageError: it is none.
    """
    if not _MAC.fullmatch(address):
        raise UsageError(f"unable to parse mac address '{address}'; write six bytes as 52:54:00:12:34:56")


def _address(guest: Guest, part: Part, value: str | None) -> None:
    if value is not None:
        check_address(value)
    part.put("mac/@address", value)


def _link(guest: Guest, part: Part, value: str | None) -> None:
    if value in ("up", "down", None):
        part.put("link/@state", value)
    else:
        part.put("link/@state", "up" if on_off("link.state", value) else "down")


def complete(guest: Guest, part: Part) -> None:
    """Give an interface a type, an address and a card that the system knows."""
    part.default("@type", "bridge")
    if part.get("@type") == "bridge" and not guest.host.is_remote and guest.host.is_privileged:
        part.default("source/@bridge", default_bridge())
    if part.get("mac/@address") is None:
        part.put("mac/@address", free_address(guest))
    part.default("model/@type", _card(guest))


def _card(guest: Guest) -> str | None:
    if not guest.is_hvm:
        return None
    if guest.virtio(supported=guest.hardware.net):
        return "virtio"
    if guest.is_q35:
        return "e1000e"
    return guest.hardware.card if guest.is_x86 else None


def free_address(guest: Guest) -> str:
    """A MAC address that no other interface has."""
    used = used_addresses(guest)
    used.update(
        {address.lower(): guest.name for part in guest.devices["interface"] if (address := part.get("mac/@address"))}
    )
    prefix = _QEMU_PREFIX if guest.host.is_qemu else _XEN_PREFIX
    while True:
        address = f"{prefix}:{':'.join(f'{byte:02x}' for byte in secrets.token_bytes(3))}"
        if address not in used:
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
            if not found.is_active and not found.starts_on_demand:
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
