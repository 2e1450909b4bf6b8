"""The network settings of a virtual function: kept, set for a guest, and set back (``virNetDevSetNetConfig``).

They are the physical function's to give: its interface holds, for each virtual one, the hardware address that this
begins with and the VLAN of what it sends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.link import device, switchport
from hostel.drivers.passthrough.pci import PciFunctions
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_NO_MAC: Final = "00:00:00:00:00:00"
_LOCAL_MAC: Final = "02:00:00:00:00:00"  # what drivers take in its place, some of which refuse it


class Place(NamedTuple):
    """A virtual function as its physical one counts it.

    Attributes:
        link: the physical function's interface.
        number: which of its virtual functions.
    """

    link: str
    number: int


class Settings(NamedTuple):
    """What a virtual function had.

    Attributes:
        place: where it is set.
        mac: the hardware address that it begins with.
        vlan: its VLAN, 0 for none.
    """

    place: Place
    mac: str
    vlan: int

    def format(self) -> str:
        """As text."""
        return json.dumps({"link": self.place.link, "vf": self.place.number, "mac": self.mac, "vlan": self.vlan})


class Association(NamedTuple):
    """A virtual function that the switch outside gives what it has, by the physical one's firmware (802.1Qbh).

    Attributes:
        place: where it is asked for.
    """

    place: Place

    def format(self) -> str:
        """As text."""
        return json.dumps({"link": self.place.link, "vf": self.place.number, "virtualport": "802.1Qbh"})


def parse(text: str) -> Settings | Association:
    """Read what was written by ``format``.

    Raises:
        ValueError: it is something else.
    """
    try:
        found = json.loads(text)
        place = Place(str(found["link"]), int(found["vf"]))
        return Association(place) if "virtualport" in found else Settings(place, str(found["mac"]), int(found["vlan"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no settings of a virtual function: {text}") from error


def give_back(held: Settings | Association) -> None:
    """Let a virtual function have what it had before a guest got it.

    Raises:
        VirtError: the host refused.
    """
    if isinstance(held, Association):
        switchport.disassociate(*held.place)
    else:
        write(held)


def locate(functions: PciFunctions, name: str) -> Place:
    """Where the settings of a virtual function are.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is none; ``INTERNAL_ERROR``: its physical function has no interface.
    """
    physical = functions.physical(name)
    if physical is None:
        reason = "Interface type hostdev is currently supported on SR-IOV Virtual Functions only"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"{reason}: {name} is none; use <hostdev>", ErrorDomain.NETWORK)
    links = interfaces(functions.path(physical))
    # A function of several ports says which of them its virtual one is behind.
    port = next((_port(functions.path(name), own) for own in interfaces(functions.path(name))), "")
    same = [link for link in links if port and _port(functions.path(physical), link) == port]
    if not links:
        reason = f"The PF device for VF {functions.path(name)} has no network device name"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
    return Place((same or links)[0], functions.virtual(physical).index(name))


def interfaces(folder: Path) -> list[str]:
    """The network interfaces of a PCI function."""
    try:
        return sorted(os.listdir(folder / "net"))
    except OSError:
        return []


def _port(folder: Path, link: str) -> str:
    try:
        return (folder / "net" / link / "phys_port_id").read_text().strip()
    except OSError:
        return ""


def read(functions: PciFunctions, name: str) -> Settings:
    """What a virtual function has now.

    Raises:
        VirtError: it is none, or its physical function is not online.
    """
    place = locate(functions, name)
    shown = device.ip_json("link", "show", "dev", place.link)[0]
    if "UP" not in shown.get("flags", []):
        reason = (
            f"Unable to configure VF {place.number} of PF '{place.link}' because the PF is not online. "
            "Please change host network config to put the PF online."
        )
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
    found = next((item for item in shown.get("vfinfo_list", []) if item.get("vf") == place.number), None)
    if found is None:
        reason = f"missing IFLA_VF_INFO in netlink response: '{place.link}' tells nothing of its VF {place.number}"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
    own = interfaces(functions.path(name))
    # Once an address was set from outside the host's driver cannot set its own: what it has is what it gets again.
    mac = device.mac(own[0]) if own else str(found.get("address") or found.get("mac") or _NO_MAC)
    return Settings(place, mac, _vlan(found))


def _vlan(found: dict[str, Any]) -> int:
    several = found.get("vlan_list") or [found]
    return int(several[0].get("vlan") or 0)


def write(settings: Settings) -> None:
    """Give a virtual function an address and a VLAN.

    Raises:
        VirtError: the host refused.
    """
    which = ["link", "set", "dev", settings.place.link, "vf", str(settings.place.number)]
    try:
        device.ip(*which, "mac", settings.mac)
    except VirtError:
        if settings.mac != _NO_MAC:
            raise
        device.ip(*which, "mac", _LOCAL_MAC)
    try:
        device.ip(*which, "vlan", str(settings.vlan))
    except VirtError as error:
        # A card whose switch is another's to set takes no VLAN, and none need be taken off then.
        if settings.vlan or "Operation not permitted" not in error.message:
            raise
