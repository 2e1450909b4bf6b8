"""Values that are parts of the domain that a command names: its disks, interfaces, threads and aliases."""

from __future__ import annotations

from typing import Final
from xml.etree.ElementTree import Element

from hostel.cli.options import Args
from hostel.cli.virsh import document
from hostel.cli.virsh.completion.objects import Values
from hostel.cli.virsh.session import Session
from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.base.agent import InsideDriver
from hostel.drivers.base.counting import CountingDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.base.tuning import IoThreadDriver
from hostel.model.numberset import parse_numbers


def _document(session: Session, args: Args, *, inactive: bool = False) -> Element:
    flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
    return document.tree(session.hypervisor.domain_get_xml_desc(session.domain(args), flags))


def _attribute(element: Element, child: str, name: str) -> str | None:
    found = element.find(child)
    return None if found is None else found.get(name)


def _interfaces(session: Session, args: Args) -> list[str]:
    found = _document(session, args, inactive=args.has("config")).findall("devices/interface")
    named = [_attribute(each, "target", "dev") or _attribute(each, "mac", "address") for each in found]
    return [name for name in named if name]


def _macs(session: Session, args: Args) -> list[str]:
    found = _document(session, args, inactive=args.has("config")).findall("devices/interface/mac")
    return [mac.get("address", "") for mac in found]


def _link_states(session: Session, args: Args) -> list[str]:
    wanted = args["interface"]
    for each in _document(session, args).iterfind("devices/interface"):
        mac = _attribute(each, "mac", "address") or ""
        if wanted in (_attribute(each, "target", "dev"), mac) or wanted.lower() == mac:
            return ["up" if _attribute(each, "link", "state") == "down" else "down"]
    return []


def _disks(session: Session, args: Args) -> list[str]:
    found = _document(session, args).findall("devices/disk/target")
    return [target.get("dev", "") for target in found]


def _chains(session: Session, args: Args) -> list[str]:
    """Disks and the images below them, as block jobs name them: ``vda``, ``vda[1]``."""
    disks = {
        _attribute(disk, "target", "dev") or "": disk for disk in _document(session, args).iterfind("devices/disk")
    }
    path = args.get("path") if args.has("path") else None
    found = []
    for target, disk in disks.items():
        if path not in disks or path == target:
            found.append(target)
            images = [*disk.findall("source"), *disk.findall("backingStore")]
            found += [f"{target}[{image.get('index')}]" for image in images if image.get("index")]
    return found


def _aliases(session: Session, args: Args) -> list[str]:
    devices = _document(session, args, inactive=args.has("config")).find("devices")
    found = [] if devices is None else devices.iter("alias")
    return [alias.get("name", "") for alias in found if alias.get("name")]


def _consoles(session: Session, args: Args) -> list[str]:
    whole = _document(session, args)
    found = [each for kind in ("serial", "parallel") for each in whole.iterfind(f"devices/{kind}")]
    return [name for each in found if each.get("type") == "pty" and (name := _attribute(each, "alias", "name"))]


def _iothreads(session: Session, args: Args) -> list[str]:
    calls = offered(session.hypervisor, IoThreadDriver, "virDomainGetIOThreadInfo")
    found = calls.domain_get_iothread_info(session.domain(args), Affect.CURRENT)
    return [str(thread.number) for thread in found.info]


def _vcpus(session: Session, args: Args) -> list[str]:
    count = _document(session, args, inactive=True).findtext("vcpu", "0")
    return [str(number) for number in range(int(count))]


def _mountpoints(session: Session, args: Args) -> list[str]:
    calls = offered(session.hypervisor, InsideDriver, "virDomainGetFSInfo")
    return [info.mountpoint for info in calls.domain_get_fsinfo(session.domain(args))]


def _guest_vcpus(session: Session, args: Args) -> list[str]:
    """The guest's processors: those that can be switched on or off where that is asked for."""
    domain = session.domain(args)
    counting = offered(session.hypervisor, CountingDriver, "virDomainGetVcpusFlags")
    count = counting.domain_get_vcpus_flags(domain, Affect.CURRENT, VcpuFlag.GUEST | VcpuFlag.MAXIMUM)
    if not (args.has("enable") or args.has("disable")):
        return [str(number) for number in range(count)]
    sets = offered(session.hypervisor, InsideDriver, "virDomainGetGuestVcpus").domain_get_guest_vcpus(domain)
    online = parse_numbers(sets["online"])
    found = online if args.has("disable") else parse_numbers(sets["offlinable"]) - online
    return [str(number) for number in sorted(found)]


PARTS: Final[dict[str, Values]] = {
    "interface": _interfaces,
    "interface-mac": _macs,
    "link-state": _link_states,
    "disk": _disks,
    "disk-list": _disks,
    "chain": _chains,
    "alias": _aliases,
    "console": _consoles,
    "iothread": _iothreads,
    "vcpu": _vcpus,
    "vcpu-list": _vcpus,
    "mountpoint": _mountpoints,
    "guest-vcpu-list": _guest_vcpus,
}
