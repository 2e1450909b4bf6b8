"""Virtual networks."""

from __future__ import annotations

from collections.abc import Callable

from hostel.cli.options import Args, Command, data
from hostel.cli.virsh.session import Session, failing, read_document
from hostel.drivers.base import NetworkRef

NETWORK = data("network", "network name or uuid")


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define network from {args['file']}"):
        network = session.network.network_define_xml(xml)
    session.output.note(f"Network {network.name} defined from {args['file']}")


def _acting(action: Callable[[Session, NetworkRef], None], done: str, failed: str) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one network and says so."""

    def run(session: Session, args: Args) -> None:
        network = session.find_network(args["network"])
        with failing(f"Failed to {failed} network {network.name}"):
            action(session, network)
        session.output.note(f"Network {network.name} {done}")

    return run


COMMANDS = (
    Command("net-define", "define a network", (data("file", "file with the XML document"),), _define),
    Command(
        "net-undefine",
        "drop the definition of a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_undefine(n), "has been undefined", "undefine"),
    ),
    Command(
        "net-start",
        "start a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_create(n), "started", "start"),
    ),
    Command(
        "net-destroy",
        "stop a network",
        (NETWORK,),
        _acting(lambda s, n: s.network.network_destroy(n), "destroyed", "destroy"),
    ),
    Command(
        "net-dumpxml",
        "the document of a network",
        (NETWORK,),
        lambda s, a: s.output.text(s.network.network_get_xml_desc(s.find_network(a["network"]))),
    ),
    Command(
        "net-name",
        "the name of a network",
        (data("network", "network uuid"),),
        lambda s, a: s.output.line(s.find_network(a["network"]).name),
    ),
    Command(
        "net-uuid",
        "the UUID of a network",
        (data("network", "network name"),),
        lambda s, a: s.output.line(s.find_network(a["network"]).uuid),
    ),
)
