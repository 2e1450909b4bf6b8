"""Memory that is plugged in: how much of it a device gives the guest."""

from __future__ import annotations

from xml.etree import ElementTree

from hostel.cli.options import UINT, Args, Command, flag, number, value
from hostel.cli.virsh import affect, document
from hostel.cli.virsh.scaled import scaled
from hostel.cli.virsh.session import DOMAIN, CommandError, Session
from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.base.device import DeviceDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.offered import offered


def _chosen(root: ElementTree.Element, args: Args) -> ElementTree.Element:
    """The one device that the options name."""
    node, alias = args.number("node", most=UINT), args.get("alias")
    found = []
    for device in root.iterfind("devices/memory"):
        has = device.find("alias")
        is_cell = node is None or device.findtext("target/node") == str(node)
        if is_cell and (alias is None or (has is not None and has.get("name") == alias)):
            found.append(device)
    if not found:
        raise CommandError("no memory device found")
    if len(found) > 1:
        raise CommandError("multiple memory devices found, use --alias or --node to select one")
    return found[0]


def _update(session: Session, args: Args) -> None:
    affect.check(args)
    args.exclude("node", "alias")
    domain, which = session.domain(args), affect.affected(args)
    flags = DomainXmlFlag.INACTIVE if which & Affect.CONFIG else DomainXmlFlag.NONE
    device = _chosen(document.tree(session.hypervisor.domain_get_xml_desc(domain, flags)), args)
    size = scaled(args, "requested-size", 1024)
    if size is not None:
        requested = device.find("target/requested")
        if requested is None:
            raise CommandError("virtio-mem device is missing <requested/>")
        requested.text = str(-(-size // 1024))
        requested.set("unit", "KiB")
    device.tail = None
    xml = ElementTree.tostring(device, encoding="unicode")
    if args.has("print-xml"):
        session.output.text(xml)
        return
    driver = offered(session.hypervisor, DeviceDriver, "virDomainUpdateDeviceFlags")
    driver.domain_update_device_flags(domain, xml, which)


COMMANDS = (
    Command(
        "update-memory-device",
        "change how much of its memory a device gives the guest",
        (
            DOMAIN,
            *affect.THREE,
            flag("print-xml", "print the device's document, and change nothing"),
            value("alias", "the device's alias"),
            number("node", "the cell that it is in"),
            number("requested-size", "how much, in KiB unless it has a unit"),
        ),
        _update,
    ),
)
