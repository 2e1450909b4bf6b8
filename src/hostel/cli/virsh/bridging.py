"""Interfaces of the host that go into a bridge of their own, and come out of it."""

from __future__ import annotations

import contextlib
from typing import Any, Final, NamedTuple

from hostel.cli.options import UINT, Args, Command, data, flag, number
from hostel.cli.virsh.interface import find
from hostel.cli.virsh.session import CommandError, Session, failing
from hostel.errors import UsageError, VirtError

_MOVED: Final = ("mac", "bond", "vlan")  # what belongs to the interface itself
_MOST: Final = 2**32 - 1


class Unbridged(NamedTuple):
    """The document of an interface that was in a bridge, and its name."""

    name: str
    xml: str


def bridged(xml: str, name: str, bridge: str, *, stp: bool, delay: int) -> str:
    """The document of a bridge around an interface.

    Raises:
        CommandError: it is a bridge itself, or another interface.
    """
    etree, root = _parse(xml, name)
    kind = root.get("type")
    if kind is None:
        raise CommandError(f"Existing device {name} has no type")
    if kind == "bridge":
        raise CommandError(f"Existing device {name} is already a bridge")
    _check_name(root, name)
    around = etree.SubElement(root, "bridge", stp="on" if stp else "off")
    if stp:
        around.set("delay", str(delay))
    root.set("type", "bridge")
    root.set("name", bridge)
    inner = etree.SubElement(around, "interface", type=kind, name=name)
    _move(root, inner)
    return str(etree.tostring(root, encoding="unicode"))


def unbridged(xml: str, bridge: str) -> Unbridged:
    """The document of the only interface in a bridge.

    Raises:
        CommandError: it is no bridge, or has not one interface.
    """
    etree, root = _parse(xml, bridge)
    kind = root.get("type")
    if kind is None:
        raise CommandError(f"Existing device {bridge} has no type")
    if kind != "bridge":
        raise CommandError(f"Device {bridge} is not a bridge")
    _check_name(root, bridge)
    around = root.find("bridge")
    if around is None:
        raise CommandError("No bridge node in xml document")
    inner = around.findall("interface")
    if len(inner) > 1:
        raise CommandError("Multiple interfaces attached to bridge")
    if not inner:
        raise CommandError("No interface attached to bridge")
    name, inner_kind = inner[0].get("name"), inner[0].get("type")
    if name is None:
        raise CommandError(f"Device attached to bridge {bridge} has no name")
    if inner_kind is None:
        raise CommandError(f"Attached device {name} has no type")
    root.set("type", inner_kind)
    root.set("name", name)
    _move(inner[0], root)
    root.remove(around)
    return Unbridged(name, str(etree.tostring(root, encoding="unicode")))


def _parse(xml: str, name: str) -> tuple[Any, Any]:
    from lxml import etree

    try:
        return etree, etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))
    except etree.XMLSyntaxError:
        raise CommandError(f"Failed to parse configuration of {name}") from None


def _check_name(root: Any, name: str) -> None:
    if root.get("name") != name:
        said = root.get("name")
        raise CommandError(f"Interface name from config {said} doesn't match given supplied name {name}")


def _move(source: Any, target: Any) -> None:
    for element in [each for each in source if each.tag in _MOVED]:
        target.append(element)


def _bridge(session: Session, args: Args) -> None:
    name, bridge, driver = args["interface"], args["bridge"], session.interface
    found = find(session, args, by_mac=False)
    with contextlib.suppress(VirtError):
        driver.interface_lookup_by_name(bridge)
        raise CommandError(f"Network device {bridge} already exists")
    delay = args.number("delay", most=UINT) or 0
    if delay > _MOST:
        raise UsageError(f"Numeric value '{delay}' for <delay> option is malformed or out of range")
    xml = driver.interface_get_xml_desc(found, inactive=True)
    made = bridged(xml, name, bridge, stp=not args.has("no-stp"), delay=delay)
    with failing(f"Failed to define new bridge interface {bridge}"):
        around = driver.interface_define_xml(made)
    session.output.note(f"Created bridge {bridge} with attached device {name}")
    if not args.has("no-start"):
        with failing(f"Failed to start bridge interface {bridge}"):
            driver.interface_create(around)
        session.output.note(f"Bridge interface {bridge} started")


def _unbridge(session: Session, args: Args) -> None:
    bridge, driver = args["bridge"], session.interface
    found = find(session, args, by_mac=False, option="bridge")
    before = driver.interface_get_xml_desc(found, inactive=True)
    inner = unbridged(before, bridge)
    with failing(f"Failed to destroy bridge interface {bridge}"):
        driver.interface_destroy(found)
    with failing(f"Failed to undefine bridge interface {bridge}"):
        driver.interface_undefine(found)
    try:
        made = driver.interface_define_xml(inner.xml)
    except VirtError as error:
        with contextlib.suppress(VirtError):  # the host should not be left without either
            driver.interface_create(driver.interface_define_xml(before))
        raise CommandError(f"Failed to define new interface {inner.name}", error) from error
    session.output.note(f"Device {inner.name} un-attached from bridge {bridge}")
    if not args.has("no-start"):
        with failing(f"Failed to start interface {inner.name}"):
            driver.interface_create(made)
        session.output.note(f"Interface {inner.name} started")


COMMANDS = (
    Command(
        "iface-bridge",
        "put an interface of the host into a bridge of its own",
        (
            data("interface", "the interface's name"),
            data("bridge", "the bridge's name"),
            flag("no-stp", "without the spanning tree protocol"),
            number("delay", "seconds before a new port passes traffic"),
            flag("no-start", "do not switch the bridge on"),
        ),
        _bridge,
    ),
    Command(
        "iface-unbridge",
        "take an interface of the host out of its bridge, which goes",
        (data("bridge", "the bridge's name"), flag("no-start", "do not switch the interface on")),
        _unbridge,
    ),
)
