"""Ports of networks, their leases, and their events."""

from __future__ import annotations

import datetime
from typing import Final

from hostel.cli.options import Args, Command, data, flag, number, value
from hostel.cli.virsh import document
from hostel.cli.virsh.event import listen, timeout
from hostel.cli.virsh.network import FILE, NETWORK
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base.network import AddressType, NetworkPortDriver, NetworkPortRef, NetworkRef
from hostel.drivers.base.offered import offered
from hostel.drivers.events import NETWORK_EVENTS, Event, Subject
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_EVENTS: Final = ("Defined", "Undefined", "Started", "Stopped")
_PORT: Final = data("port", "UUID of the port")


def _ports(session: Session, call: str) -> NetworkPortDriver:
    return offered(session.network, NetworkPortDriver, call)


def _create(session: Session, args: Args) -> None:
    network = session.find_network(args["network"])
    xml = read_document(args["file"])
    with failing(f"Failed to create network from {args['file']}"):
        port = _ports(session, "virNetworkPortCreateXML").network_port_create_xml(
            network, validated(args, xml, "network port")
        )
    session.output.note(f"Network port {port.uuid} created from {args['file']}")


def _find(session: Session, args: Args) -> NetworkPortRef:
    network = session.find_network(args["network"])
    with failing(f"failed to get network port '{args['port']}'"):
        return _ports(session, "virNetworkPortLookupByUUID").network_port_lookup_by_uuid(network, _uuid(args["port"]))


def _uuid(text: str) -> str:
    from hostel.drivers.document import canonical_uuid

    found = canonical_uuid(text)
    if found is None:
        what = "uuidstr in virNetworkPortLookupByUUIDString must be a valid UUID"
        raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.NETWORK)
    return found


def _dumpxml(session: Session, args: Args) -> None:
    port = _find(session, args)
    document.show(session, _ports(session, "virNetworkPortGetXMLDesc").network_port_get_xml_desc(port), args)


def _delete(session: Session, args: Args) -> None:
    port = _find(session, args)
    with failing(f"Failed to delete network port {port.uuid}"):
        _ports(session, "virNetworkPortDelete").network_port_delete(port)
    session.output.note(f"Network port {port.uuid} deleted")


def _list(session: Session, args: Args) -> None:
    if args.has("table") and args.has("uuid"):
        raise CommandError("Only one argument from --table and --uuid may be specified.")
    network = session.find_network(args["network"])
    ports = sorted(port.uuid for port in _ports(session, "virNetworkListAllPorts").network_list_all_ports(network))
    if args.has("uuid"):
        for uuid in ports:
            session.output.line(uuid)
        return
    session.output.table(["UUID"], [[uuid] for uuid in ports])


def _leases(session: Session, args: Args) -> None:
    network: NetworkRef = session.find_network(args["network"])
    with failing(f"Failed to get leases info for {args['network']}"):
        driver = _ports(session, "virNetworkGetDHCPLeases")
        leases = driver.network_get_dhcp_leases(network, args.get("mac"))
    rows = [
        [
            _local(lease.expiry),
            lease.mac or "-",
            "ipv6" if lease.type is AddressType.IPV6 else "ipv4",
            f"{lease.address}/{lease.prefix}",
            lease.hostname or "-",
            lease.client_id or "-",
        ]
        for lease in sorted(leases, key=lambda lease: (lease.mac or "").lower())
    ]
    names = ["Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID"]
    session.output.table(names, rows)


def _local(seconds: int) -> str:
    """A moment as a clock here shows it; a daemon may say what no clock does."""
    try:
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "-"


def describe(event: Event) -> str:
    """An event of a network as virsh prints it."""
    number = event.detail["event"]
    word = _EVENTS[number] if 0 <= number < len(_EVENTS) else "unknown"
    return f"event 'lifecycle' for network {event.name}: {word}"


def _event(session: Session, args: Args) -> None:
    if args.has("list"):
        for name in NETWORK_EVENTS:
            session.output.line(name)
        return
    wanted = args.get("event")
    if wanted is None:
        raise CommandError("either --list or --event <type> is required")
    if wanted not in NETWORK_EVENTS:
        raise CommandError(f"unknown event type {wanted}")
    seconds = timeout(args)
    network = session.find_network(args["network"]) if args.has("network") else None

    def is_wanted(event: Event) -> bool:
        return (
            event.subject == Subject.NETWORK
            and event.kind == wanted
            and (network is None or event.uuid == network.uuid)
        )

    listen(session, args, seconds, is_wanted, describe)


COMMANDS = (
    Command("net-dhcp-leases", "the leases of a network", (NETWORK, value("mac", "of this MAC address")), _leases),
    Command(
        "net-event",
        "wait for events of networks",
        (
            value("network", "only of this network: name or uuid"),
            value("event", "this kind of event"),
            flag("loop", "go on after the first one"),
            number("timeout", "stop after so many seconds"),
            flag("list", "list the kinds of events"),
            flag("timestamp", "say when each happened"),
        ),
        _event,
    ),
    Command(
        "net-port-list",
        "list the ports of a network",
        (NETWORK, flag("uuid", "print UUIDs only"), flag("table", "print a table (the default)")),
        _list,
    ),
    Command("net-port-create", "make a port of a network", (NETWORK, FILE, VALIDATE), _create),
    Command("net-port-dumpxml", "the document of a port", (NETWORK, _PORT, *document.PARTS), _dumpxml),
    Command("net-port-delete", "remove a port", (NETWORK, _PORT), _delete),
)
