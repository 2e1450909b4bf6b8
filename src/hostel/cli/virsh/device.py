"""Domain management: devices that are attached, detached and changed by their documents."""

from __future__ import annotations

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh.affect import ALL, THREE, affected, affected_domain, check
from hostel.cli.virsh.session import DOMAIN, Session, failing, read_document
from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import DeviceDriver, DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.offered import offered

FILE = data("file", "file with the XML document of the device")


def devices(session: Session, api: str) -> DeviceDriver:
    """Who has devices attached and detached.

    Raises:
        VirtError: the driver does not; it is the call ``api`` that it has not.
    """
    return offered(session.hypervisor, DeviceDriver, api)


def attach(session: Session, domain: DomainRef, xml: str, args: Args) -> None:
    """Attach a device as far as the options say."""
    affect = affected_domain(domain, args)
    if not affect and not args.has("current"):
        affect = Affect.LIVE  # what the call without flags has always meant
    devices(session, "virDomainAttachDeviceFlags").domain_attach_device_flags(domain, xml, affect)


def attach_described(session: Session, args: Args, what: str, xml: str) -> None:
    """Attach the device that options describe, or only show it; ``what`` is the kind of device that messages name."""
    if args.has("print-xml"):
        session.output.line(xml)
        return
    domain = session.domain(args)
    with failing(f"Failed to attach {what}"):
        attach(session, domain, xml, args)
    session.output.note(f"{what.capitalize()} attached successfully")


def detach(session: Session, domain: DomainRef, xml: str, affect: Affect, args: Args) -> None:
    """Detach a device; without options from the running domain."""
    if not affect and not args.has("current"):
        affect = Affect.LIVE
    devices(session, "virDomainDetachDeviceFlags").domain_detach_device_flags(domain, xml, affect)


def _attach_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    with failing(f"Failed to attach device from {args['file']}"):
        attach(session, domain, xml, args)
    session.output.note("Device attached successfully")


def _detach_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    with failing(f"Failed to detach device from {args['file']}"):
        detach(session, domain, xml, affected_domain(domain, args), args)
    session.output.note("Device detached successfully")


def _update_device(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    xml = read_document(args["file"])
    force = DeviceModify.FORCE if args.has("force") else DeviceModify.NONE
    with failing(f"Failed to update device from {args['file']}"):
        found = devices(session, "virDomainUpdateDeviceFlags")
        found.domain_update_device_flags(domain, xml, affected_domain(domain, args), force)
    session.output.note("Device updated successfully")


def _detach_alias(session: Session, args: Args) -> None:
    check(args)
    domain = session.domain(args)
    with failing(f"Failed to detach device with alias {args['alias']}"):
        found = devices(session, "virDomainDetachDeviceAlias")
        found.domain_detach_device_alias(domain, args["alias"], affected(args))
    session.output.note("Device detach request sent successfully")


COMMANDS = (
    Command("attach-device", "attach a device from a file", (DOMAIN, FILE, *ALL), _attach_device),
    Command("detach-device", "detach the device that a file describes", (DOMAIN, FILE, *ALL), _detach_device),
    Command(
        "detach-device-alias",
        "ask the guest to let go of a device",
        (DOMAIN, data("alias", "the device's alias"), *THREE),
        _detach_alias,
    ),
    Command(
        "update-device",
        "change the device that a file describes",
        (DOMAIN, FILE, *ALL, flag("force", "take a medium even if the guest holds it")),
        _update_device,
    ),
)
