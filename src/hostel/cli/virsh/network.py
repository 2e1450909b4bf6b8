"""Virtual networks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from hostel.cli.options import Args, Command, data, flag, number
from hostel.cli.virsh import document
from hostel.cli.virsh.affect import THREE, affected, check
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated, yes_no
from hostel.drivers.base import NetworkRef
from hostel.drivers.base.domain import Affect
from hostel.errors import VirtError

NETWORK: Final = data("network", "network name or uuid")
FILE: Final = data("file", "file with the XML document")


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define network from {args['file']}"):
        network = session.network.network_define_xml(validated(args, xml, "network"))
    session.output.note(f"Network {network.name} defined from {args['file']}")


def _create(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to create network from {args['file']}"):
        network = session.network.network_create_xml(validated(args, xml, "network"))
    session.output.note(f"Network {network.name} created from {args['file']}")


def _acting(action: Callable[[Session, NetworkRef], None], done: str, failed: str) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one network and says so, by the name it was given."""

    def run(session: Session, args: Args) -> None:
        network = session.find_network(args["network"])
        with failing(f"Failed to {failed} network {args['network']}"):
            action(session, network)
        session.output.note(f"Network {args['network']} {done}")

    return run


def _autostart(session: Session, args: Args) -> None:
    network = session.find_network(args["network"])
    enable = not args.has("disable")
    with failing(f"failed to {'' if enable else 'un'}mark network {args['network']} as autostarted"):
        session.network.network_set_autostart(network, enable)
    session.output.note(f"Network {args['network']} {'' if enable else 'un'}marked as autostarted")


def _selected(session: Session, args: Args) -> list[tuple[NetworkRef, bool]]:
    """The networks that the filters let through, by name, and whether each is active."""
    driver = session.network
    networks = [(network, driver.network_is_active(network)) for network in driver.connect_list_all_networks()]
    if not args.has("all"):
        networks = [(network, active) for network, active in networks if active != args.has("inactive")]
    for one, other, test in (
        ("persistent", "transient", driver.network_is_persistent),
        ("autostart", "no-autostart", driver.network_get_autostart),
    ):
        if args.has(one) != args.has(other):
            networks = [(network, active) for network, active in networks if test(network) == args.has(one)]
    return sorted(networks, key=lambda item: item[0].name)


def _list(session: Session, args: Args) -> None:
    if sum(args.has(name) for name in ("table", "name", "uuid")) > 1:
        raise CommandError("Only one argument from --table, --name and --uuid may be specified.")
    with failing("Failed to list networks"):
        networks = _selected(session, args)
    if args.has("name") or args.has("uuid"):
        for network, _ in networks:
            session.output.line(network.uuid if args.has("uuid") else network.name)
        return
    driver = session.network
    rows = [
        [
            network.name,
            "active" if active else "inactive",
            yes_no(driver.network_get_autostart(network)),
            yes_no(driver.network_is_persistent(network)),
        ]
        for network, active in networks
    ]
    session.output.table(["Name", "State", "Autostart", "Persistent"], rows)


def _info(session: Session, args: Args) -> None:
    network = session.find_network(args["network"])
    driver = session.network
    rows = [
        ("Name:", network.name),
        ("UUID:", network.uuid),
        ("Active:", yes_no(driver.network_is_active(network))),
        ("Persistent:", yes_no(driver.network_is_persistent(network))),
        ("Autostart:", yes_no(driver.network_get_autostart(network))),
    ]
    with contextlib.suppress(VirtError):  # a network without one
        rows.append(("Bridge:", driver.network_get_bridge_name(network)))
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _dumpxml(session: Session, args: Args) -> None:
    network = session.find_network(args["network"])
    document.show(session, session.network.network_get_xml_desc(network, inactive=args.has("inactive")), args)


def _update(session: Session, args: Args) -> None:
    check(args)
    network = session.find_network(args["network"])
    command = _UPDATES.get(args["command"])
    if command is None:
        raise CommandError(f"unrecognized command name '{args['command']}'")
    section = SECTIONS.index(args["section"]) + 1 if args["section"] in SECTIONS else 0
    if not section:
        raise CommandError(f"unrecognized section name '{args['section']}'")
    parent = args.number("parent-index", wraps=True)
    given = args["xml"]
    xml = given if given.startswith("<") else read_document(given)
    affect = affected(args)
    with failing(f"Failed to update network {network.name}"):
        where = -1 if parent in (None, 2**64 - 1) else int(parent or 0)
        session.network.network_update(network, command, section, where, xml, affect)
    parts = {Affect.LIVE: "live state", Affect.CONFIG: "persistent config"}
    if affect is Affect.CURRENT:
        affect = Affect.LIVE if session.network.network_is_active(network) else Affect.CONFIG
    said = parts.get(affect, "persistent config and live state")
    if not session.output.quiet:
        session.output.text(f"Updated network {network.name} {said}")  # virsh leaves the line open


# virNetworkUpdateCommand, and virNetworkUpdateSection from 1 on, by virsh's names.
_UPDATES: Final = {"modify": 1, "delete": 2, "add-last": 3, "add": 3, "add-first": 4}
SECTIONS: Final = (
    "bridge", "domain", "ip", "ip-dhcp-host", "ip-dhcp-range", "forward", "forward-interface", "forward-pf",
    "portgroup", "dns-host", "dns-txt", "dns-srv",
)  # fmt: skip

COMMANDS = (
    Command("net-autostart", "activate a network with the driver", (NETWORK, flag("disable", "do not")), _autostart),
    Command("net-create", "activate a transient network", (FILE, VALIDATE), _create),
    Command("net-define", "define a network, without activating it", (FILE, VALIDATE), _define),
    Command(
        "net-destroy",
        "deactivate a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_destroy(n), "destroyed", "destroy"),
    ),
    Command(
        "net-dumpxml",
        "the document of a network",
        (NETWORK, flag("inactive", "of the definition"), *document.PARTS),
        _dumpxml,
    ),
    Command("net-info", "facts about a network", (NETWORK,), _info),
    Command(
        "net-list",
        "list networks",
        (
            flag("inactive", "only networks that are not active"),
            flag("all", "active networks and the others"),
            flag("persistent", "only networks with a definition"),
            flag("transient", "only networks without a definition"),
            flag("autostart", "only networks that are activated with the driver"),
            flag("no-autostart", "only networks that are not"),
            flag("uuid", "print UUIDs only"),
            flag("name", "print names only"),
            flag("table", "print a table (the default)"),
        ),
        _list,
    ),
    Command(
        "net-name",
        "the name of a network",
        (data("network", "network uuid"),),
        lambda s, a: s.output.line(s.find_network(a["network"], by_name=False).name),
    ),
    Command(
        "net-start",
        "activate a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_create(n), "started", "start"),
    ),
    Command(
        "net-undefine",
        "drop the definition of a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_undefine(n), "has been undefined", "undefine"),
    ),
    Command(
        "net-update",
        "change a section of a network",
        (
            NETWORK,
            data("command", "add-first, add-last (add), delete or modify"),
            data("section", "which section"),
            data("xml", "the element, or a file that has it"),
            number("parent-index", "which of the elements above"),
            *THREE,
        ),
        _update,
    ),
    Command(
        "net-uuid",
        "the UUID of a network",
        (data("network", "network name"),),
        lambda s, a: s.output.line(s.find_network(a["network"], by_uuid=False).uuid),
    ),
)
