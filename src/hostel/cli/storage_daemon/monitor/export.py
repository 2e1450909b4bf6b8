"""Commands about exports and the NBD server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.rewiring import present
from hostel.cli.storage_daemon import exports, place
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed
from hostel.cli.storage_daemon.nbd import NOT_RUNNING, NbdServing

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_MODE: Final = Parameter("mode", values=("safe", "hard"))
SERVER: Final = (
    needed("addr", Kind.OBJECT),
    Parameter("tls-creds"),
    Parameter("tls-authz"),
    Parameter("max-connections", Kind.UINT32),
    Parameter("handshake-max-seconds", Kind.UINT32),  # of 10.0
)


def start_server(daemon: Daemon, given: Mapping[str, Any], *, text: bool, nested: bool) -> None:
    """Start the NBD server; ``given`` is what :data:`SERVER` declares.

    Raises:
        QmpError: an argument is wrong, or a server runs; the text is QEMU's.
        NetworkError: the address cannot be listened on.
    """
    checked = check(SERVER, given, text=text)
    where = place.read(checked["addr"], text=text, nested=nested)
    if daemon.nbd is not None:
        raise generic("NBD server already running")
    daemon.nbd = NbdServing(
        daemon,
        where,
        credentials=checked.get("tls-creds"),
        authorization=checked.get("tls-authz"),
        limit=checked.get("max-connections", 0),
        handshake_limit=checked.get("handshake-max-seconds"),
    )


def _start_server(daemon: Daemon, given: Mapping[str, Any]) -> None:
    start_server(daemon, given, text=False, nested=True)


def _stop_server(daemon: Daemon, _: Mapping[str, Any]) -> None:
    """Stop the server, and before it all that it exports."""
    if daemon.nbd is None:
        raise generic(NOT_RUNNING)
    for export in [export for export in daemon.exports.values() if export.kind == "nbd"]:
        daemon.remove_export(export)
    server, daemon.nbd = daemon.nbd, None
    server.close()


def _add_to_server(daemon: Daemon, given: Mapping[str, Any]) -> None:
    """The command of older days: it names the export by the device, and lets a read-only one be asked for writable."""
    node = daemon.nodes.find(given["device"], given["device"])
    name = given.get("name", given["device"])
    arguments = {"type": "nbd", "id": name, "node-name": node.name, "name": name}
    arguments |= {key: given[key] for key in ("description", "writable") if key in given}
    if node.read_only:
        arguments["writable"] = False
    if "bitmap" in given:
        arguments["bitmaps"] = [given["bitmap"]]
    exports.add(daemon, arguments)


def _remove_from_server(daemon: Daemon, given: Mapping[str, Any]) -> None:
    export = daemon.exports.get(given["name"])
    if export is not None and export.kind != "nbd":
        raise generic(f"Block export '{given['name']}' is not an NBD export")
    _delete(daemon, {"id": given["name"], **given})


def _add(daemon: Daemon, given: Mapping[str, Any]) -> None:
    exports.add(daemon, given)


def _delete(daemon: Daemon, given: Mapping[str, Any]) -> None:
    exports.remove(daemon, given["id"], hard=given.get("mode") == "hard")


def _query(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [
        {
            "node-name": present(export.node).name,
            "shutting-down": export.shutting_down,
            "type": export.kind,
            "id": export.id,
        }
        for export in reversed(daemon.exports.values())
    ]


COMMANDS: Final = (
    Command("query-block-exports", _query),
    Command("block-export-del", _delete, (needed("id"), _MODE)),
    Command("block-export-add", _add, None),
    Command("nbd-server-stop", _stop_server),
    Command("nbd-server-remove", _remove_from_server, (needed("name"), _MODE)),
    Command(
        "nbd-server-add",
        _add_to_server,
        (
            Parameter("name"),
            Parameter("description"),
            needed("device"),
            Parameter("writable", Kind.BOOL),
            Parameter("bitmap"),
        ),
    ),
    Command("nbd-server-start", _start_server, None),
)
