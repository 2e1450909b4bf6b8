"""Domain monitoring: facts about disks and interfaces."""

from __future__ import annotations

import re
from typing import Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.block import blocks, pretty
from hostel.cli.virsh.domain_interface import find_interface
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.base.address import AddressDriver
from hostel.drivers.base.block import BlockInfo
from hostel.drivers.base.device import InterfaceStatsDriver
from hostel.drivers.base.network import AddressType
from hostel.drivers.base.offered import offered

# Counters in virsh's order: libvirt's name, virsh's old name, and words for people.
_COUNTERS: Final = (
    ("rd_operations", "rd_req", "number of read operations:"),
    ("rd_bytes", "rd_bytes", "number of bytes read:"),
    ("wr_operations", "wr_req", "number of write operations:"),
    ("wr_bytes", "wr_bytes", "number of bytes written:"),
    ("errs", "errs", "error count:"),
    ("flush_operations", None, "number of flush operations:"),
    ("rd_total_times", None, "total duration of reads (ns):"),
    ("wr_total_times", None, "total duration of writes (ns):"),
    ("flush_total_times", None, "total duration of flushes (ns):"),
)
_MAC: Final = re.compile("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_SOURCES: Final = ("lease", "agent", "arp")
_ERRORS: Final = ("no error", "unspecified error", "no space")


def _stat(session: Session, args: Args) -> None:
    domain, device = session.domain(args), args.get("device") or ""
    with failing(f"Failed to get block stats {domain.name} {device}"):
        found = blocks(session, "virDomainBlockStatsFlags").domain_block_stats_flags(domain, device)
    human = args.has("human")
    if human:
        session.output.line(f"Device: {device}")
        device = ""
    for name, old, words in _COUNTERS:
        if name in found:
            field = f"{words:<31}" if human else old or name
            session.output.line(f"{device} {field} {found[name]}")


def _info(session: Session, args: Args) -> None:
    args.exclude("all", "device")
    domain, device = session.domain(args), args.get("device")
    if device is None and not args.has("all"):
        raise CommandError("command 'domblkinfo' requires <device> option")
    driver = blocks(session, "virDomainGetBlockInfo")
    if device is not None:
        sizes = _sizes(driver.domain_get_block_info(domain, device), args)
        for name, size in zip(("Capacity:", "Allocation:", "Physical:"), sizes, strict=True):
            session.output.line(f"{name:<15} {size}")
        return
    rows = []
    for disk in document.tree(session.hypervisor.domain_get_xml_desc(domain)).iterfind("devices/disk"):
        target = disk.find("target")
        name = target.get("dev", "") if target is not None else ""
        info = BlockInfo(0, 0, 0)
        if disk.find("source") is not None:
            info = driver.domain_get_block_info(domain, name)
        rows.append([name, *_sizes(info, args)])
    session.output.table(["Target", "Capacity", "Allocation", "Physical"], rows)


def _sizes(info: BlockInfo, args: Args) -> list[str]:
    if not any(info):
        return ["-", "-", "-"]
    if not args.has("human"):
        return [str(size) for size in info]
    return [f"{amount:.3f} {unit}" for amount, unit in map(pretty, info)]


def _errors(session: Session, args: Args) -> None:
    domain = session.domain(args)
    found = blocks(session, "virDomainGetDiskErrors").domain_get_disk_errors(domain)
    for error in found:
        session.output.line(f"{error.disk}: {_ERRORS[error.error]}")
    if not found:
        session.output.line("No errors found")


def _interfaces(session: Session, args: Args) -> None:
    domain = session.domain(args)
    flags = DomainXmlFlag.INACTIVE if args.has("inactive") else DomainXmlFlag.NONE
    rows = []
    for interface in document.tree(session.hypervisor.domain_get_xml_desc(domain, flags)).iterfind("devices/interface"):
        source = interface.find("source")
        names = ("bridge", "dev", "network", "name", "path")
        place = (
            next((text for name, text in source.attrib.items() if name in names), "-") if source is not None else "-"
        )
        parts = [
            element.get(name, "-") if (element := interface.find(tag)) is not None else "-"
            for tag, name in (("target", "dev"), ("model", "type"), ("mac", "address"))
        ]
        rows.append([parts[0], interface.get("type", ""), place, parts[1], parts[2]])
    session.output.table(["Interface", "Type", "Source", "Model", "MAC"], rows)


def _traffic(session: Session, args: Args) -> None:
    domain, device = session.domain(args), args["interface"]
    driver = offered(session.hypervisor, InterfaceStatsDriver, "virDomainInterfaceStats")
    with failing(f"Failed to get interface stats {args['domain']} {device}"):
        found = driver.domain_interface_stats(domain, device)
    for name, number in found._asdict().items():
        session.output.line(f"{device} {name} {number}")


def _link(session: Session, args: Args) -> None:
    domain = session.domain(args)
    flags = DomainXmlFlag.INACTIVE if args.has("config") else DomainXmlFlag.NONE
    tree = document.tree(session.hypervisor.domain_get_xml_desc(domain, flags))
    name = args["interface"]
    kind = "mac" if _MAC.fullmatch(name) else "dev"
    link = find_interface(tree, name, missing=f"Interface ({kind}: {name}) not found.").find("link")
    state = link.get("state") if link is not None else None
    session.output.text(f"{name} {state or 'up'}")


def _addresses(session: Session, args: Args) -> None:
    source = args.get("source") or "lease"
    if source not in _SOURCES:
        raise CommandError(f"Unknown data source '{source}'")
    domain = session.domain(args)
    with failing("Failed to query for interfaces addresses"):
        driver = offered(session.hypervisor, AddressDriver, "virDomainInterfaceAddresses")
        found = driver.domain_interface_addresses(domain, _SOURCES.index(source))
    session.output.note(f" {'Name':<10} {'MAC address':<20} {'Protocol':<8}     Address\n{'-' * 79}")
    for one in found:
        if args.get("interface") not in (None, one.name):
            continue
        if not one.addresses:
            session.output.line(f" {one.name:<10} {one.mac or 'N/A':<17}    {'N/A':<12} N/A")
        for place, (kind, address, prefix) in enumerate(one.addresses):
            name, mac = (one.name, one.mac or "") if args.has("full") or not place else ("-", "-")
            protocol = "ipv6" if kind is AddressType.IPV6 else "ipv4"
            session.output.line(f" {name:<10} {mac:<17}    {protocol:<12} {address}/{prefix}")


COMMANDS = (
    Command("domblkerror", "disks that an error has stopped", (DOMAIN,), _errors),
    Command(
        "domblkinfo",
        "sizes of the disks of a domain",
        (
            DOMAIN,
            value("device", "the disk's name, or its source"),
            flag("human", "in units that people read"),
            flag("all", "of every disk"),
        ),
        _info,
    ),
    Command(
        "domblkstat",
        "what was read from disks and written to them",
        (
            DOMAIN,
            value("device", "only of this disk"),
            flag("human", "in words"),
        ),
        _stat,
    ),
    Command(
        "domif-getlink",
        "whether the cable of an interface is in",
        (DOMAIN, data("interface", "its MAC address, or its name on the host"), flag("config", "of the definition")),
        _link,
    ),
    Command(
        "domifstat",
        "what went through an interface",
        (DOMAIN, data("interface", "its MAC address, or its name on the host")),
        _traffic,
    ),
    Command(
        "domifaddr",
        "the addresses of the interfaces of a domain",
        (
            DOMAIN,
            value("interface", "only of this one"),
            flag("full", "repeat the name and the MAC address"),
            value("source", "who is asked: lease, agent or arp"),
        ),
        _addresses,
    ),
    Command("domiflist", "the interfaces of a domain", (DOMAIN, flag("inactive", "of the definition")), _interfaces),
)
