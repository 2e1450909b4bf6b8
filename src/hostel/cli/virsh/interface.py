"""Network interfaces of the host."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh import document
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base.interface import InterfaceRef
from hostel.errors import VirtError

INTERFACE: Final = data("interface", "interface name or MAC address")
# As virMacAddrParse takes it.
_MAC: Final = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")


def find(
    session: Session, args: Args, *, by_name: bool = True, by_mac: bool = True, option: str = "interface"
) -> InterfaceRef:
    """The interface that an option names, by its name or its hardware address."""
    word = args[option]
    failed = f"failed to get interface '{word}'"
    try:
        if _MAC.fullmatch(word):
            if by_mac:
                return session.interface.interface_lookup_by_mac_string(word)
        elif by_name:
            return session.interface.interface_lookup_by_name(word)
    except VirtError as error:
        raise CommandError(failed, error) from error
    raise CommandError(failed)


def _list(session: Session, args: Args) -> None:
    args.exclude("all", "inactive")
    driver = session.interface
    with failing("Failed to list interfaces"):
        found = [(ref, driver.interface_is_active(ref)) for ref in driver.connect_list_all_interfaces()]
    rows = [
        (ref.name, "active" if is_active else "inactive", ref.mac)
        for ref, is_active in sorted(found, key=lambda entry: entry[0].name.casefold())
        if args.has("all") or is_active != args.has("inactive")
    ]
    session.output.table(("Name", "State", "MAC Address"), rows)


def _dumpxml(session: Session, args: Args) -> None:
    found = find(session, args)
    document.show(session, session.interface.interface_get_xml_desc(found, inactive=args.has("inactive")), args)


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define interface from {args['file']}"):
        interface = session.interface.interface_define_xml(validated(args, xml, "interface"))
    session.output.note(f"Interface {interface.name} defined from {args['file']}")


def _acting(action: Callable[[Session, InterfaceRef], None], verb: str, done: str) -> Callable[[Session, Args], None]:
    def run(session: Session, args: Args) -> None:
        interface = find(session, args)
        with failing(f"Failed to {verb} interface {args['interface']}"):
            action(session, interface)
        session.output.note(f"Interface {args['interface']} {done}")

    return run


def _changing(action: Callable[[Session], None], verb: str, done: str) -> Callable[[Session, Args], None]:
    def run(session: Session, args: Args) -> None:
        with failing(f"Failed to {verb} network config change transaction"):
            action(session)
        session.output.note(f"Network config change transaction {done}")

    return run


COMMANDS = (
    Command(
        "iface-begin",
        "remember how the interfaces are, for iface-rollback",
        (),
        _changing(lambda s: s.interface.interface_change_begin(), "begin", "started"),
    ),
    Command(
        "iface-commit",
        "keep what was changed since iface-begin",
        (),
        _changing(lambda s: s.interface.interface_change_commit(), "commit", "committed"),
    ),
    Command(
        "iface-define",
        "have an interface of the host, or change one",
        (data("file", "file with an interface document"), VALIDATE),
        _define,
    ),
    Command(
        "iface-destroy",
        "switch an interface off",
        (INTERFACE,),
        _acting(lambda s, i: s.interface.interface_destroy(i), "destroy", "destroyed"),
    ),
    Command(
        "iface-dumpxml",
        "the document of an interface",
        (INTERFACE, flag("inactive", "as it is when the host starts"), *document.PARTS),
        _dumpxml,
    ),
    Command(
        "iface-list",
        "list the network interfaces of the host",
        (flag("inactive", "those that are not active"), flag("all", "active interfaces and the others")),
        _list,
    ),
    Command(
        "iface-mac",
        "from an interface's name to its MAC address",
        (data("interface", "interface name"),),
        lambda session, args: session.output.line(find(session, args, by_mac=False).mac),
    ),
    Command(
        "iface-name",
        "from an interface's MAC address to its name",
        (data("interface", "MAC address"),),
        lambda session, args: session.output.line(find(session, args, by_name=False).name),
    ),
    Command(
        "iface-rollback",
        "have the interfaces as they were at iface-begin",
        (),
        _changing(lambda s: s.interface.interface_change_rollback(), "rollback", "rolled back"),
    ),
    Command(
        "iface-start",
        "switch an interface on",
        (INTERFACE,),
        _acting(lambda s, i: s.interface.interface_create(i), "start", "started"),
    ),
    Command(
        "iface-undefine",
        "have an interface no more",
        (INTERFACE,),
        _acting(lambda s, i: s.interface.interface_undefine(i), "undefine", "undefined"),
    ),
)
