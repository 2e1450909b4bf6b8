"""Devices of the host."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated, yes_no
from hostel.drivers.base.nodedev import ACTIVE, CAPABILITIES, INACTIVE, NodeDeviceRef
from hostel.errors import VirtError

DEVICE: Final = data("device", "device name, or its WWNs as 'wwnn,wwpn'")
_NAMED: Final = data("device", "device name")
_FILE: Final = (data("file", "file with the document of a device"), VALIDATE)
_WWN: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{16}")


def _find(session: Session, args: Args) -> NodeDeviceRef:
    """The device of a name, or of two world-wide names."""
    word = args["device"]
    if "," not in word:
        return _find_named(session, args)
    names = word.split(",")
    if len(names) != 2:
        raise CommandError(f"Malformed device value '{word}'")
    for name in names:
        if not _WWN.fullmatch(name):
            raise CommandError(f"internal error: Malformed wwn: {name}")
    try:
        return session.node_device.node_device_lookup_scsi_host_by_wwn(*names)
    except VirtError as error:
        raise CommandError(f"Could not find matching device '{word}'", error) from error


def _find_named(session: Session, args: Args) -> NodeDeviceRef:
    word = args["device"]
    try:
        return session.node_device.node_device_lookup_by_name(word)
    except VirtError as error:
        raise CommandError(f"Could not find matching device '{word}'", error) from error


def _list(session: Session, args: Args) -> None:
    wanted = (args.get("cap") or "").split(",") if args.has("cap") else []
    if args.has("all") and args.has("inactive"):
        raise CommandError("Option --all is incompatible with --inactive")
    if args.has("tree") and (wanted or args.has("inactive")):
        raise CommandError("Option --tree is incompatible with --cap and --inactive")
    if any(name not in CAPABILITIES for name in wanted):
        raise CommandError("Invalid capability type")
    flags = sum(1 << CAPABILITIES.index(name) for name in set(wanted))
    flags |= INACTIVE if args.has("inactive") or args.has("all") else 0
    flags |= 0 if args.has("inactive") else ACTIVE
    driver = session.node_device
    with failing("Failed to list node devices"):
        refs = driver.connect_list_all_node_devices(flags)
        if args.has("tree"):
            parents = {ref.name: driver.node_device_get_parent(ref) for ref in refs}
    if args.has("tree"):
        for name, parent in parents.items():
            if parent is None:
                _print_tree(session, parents, name, "", is_last=True, is_root=True)
        return
    for name in sorted((ref.name for ref in refs), key=str.casefold):
        session.output.line(name)


def _print_tree(
    session: Session, parents: Mapping[str, str | None], name: str, indent: str, *, is_last: bool, is_root: bool
) -> None:
    """Draw a device and those below it as virsh does."""
    session.output.line(f"{indent}{'' if is_root else '+- '}{name}")
    if not is_root:
        indent += "  " if is_last else "| "
    below = [child for child, parent in parents.items() if parent == name]
    if below:
        session.output.line(f"{indent}  |")
    for child in below:
        _print_tree(session, parents, child, f"{indent}  ", is_last=child == below[-1], is_root=False)
    if not below and is_last:
        session.output.line(indent)


def _dumpxml(session: Session, args: Args) -> None:
    device = _find(session, args)
    document.show(session, session.node_device.node_device_get_xml_desc(device), args)


def _info(session: Session, args: Args) -> None:
    device = _find(session, args)
    driver = session.node_device
    rows = (
        ("Name:", device.name),
        ("Parent:", driver.node_device_get_parent(device) or ""),
        ("Active:", yes_no(driver.node_device_is_active(device))),
        ("Persistent:", yes_no(driver.node_device_is_persistent(device))),
        ("Autostart:", yes_no(driver.node_device_get_autostart(device))),
    )
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _acting(action: Callable[[Session, NodeDeviceRef, Args], None], done: str, failed: str) -> Callable[..., None]:
    def run(session: Session, args: Args) -> None:
        device = _find_named(session, args)
        with failing(f"Failed to {failed} device {args['device']}"):
            action(session, device, args)
        session.output.note(f"Device {args['device']} {done}")

    return run


def _create(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to create node device from {args['file']}"):
        device = session.node_device.node_device_create_xml(validated(args, xml, "node device"))
    session.output.note(f"Node device {device.name} created from {args['file']}")


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define node device from '{args['file']}'"):
        device = session.node_device.node_device_define_xml(validated(args, xml, "node device"))
    session.output.note(f"Node device '{device.name}' defined from '{args['file']}'")


def _destroy(session: Session, args: Args) -> None:
    device = _find(session, args)
    with failing(f"Failed to destroy node device '{args['device']}'"):
        session.node_device.node_device_destroy(device)
    session.output.note(f"Destroyed node device '{args['device']}'")


def _undefine(session: Session, args: Args) -> None:
    device = _find(session, args)
    with failing(f"Failed to undefine node device '{args['device']}'"):
        session.node_device.node_device_undefine(device)
    session.output.note(f"Undefined node device '{args['device']}'")


def _start(session: Session, args: Args) -> None:
    device = _find_named(session, args)
    with failing(f"Failed to start device {args['device']}"):
        session.node_device.node_device_create(device)
    session.output.note(f"Device {args['device']} started")


def _autostart(session: Session, args: Args) -> None:
    device = _find(session, args)
    wanted = not args.has("disable")
    with failing(f"failed to {'mark' if wanted else 'unmark'} device {args['device']} as autostarted"):
        session.node_device.node_device_set_autostart(device, wanted)
    session.output.note(f"Device {args['device']} {'marked' if wanted else 'unmarked'} as autostarted")


COMMANDS = (
    Command("nodedev-create", "make a device on the host", _FILE, _create),
    Command("nodedev-destroy", "take away a device that was made", (DEVICE,), _destroy),
    Command(
        "nodedev-detach",
        "take a device from its driver, for a guest",
        (_NAMED, value("driver", "the driver for it: vfio")),
        _acting(lambda s, d, a: s.node_device.node_device_detach_flags(d, a.get("driver")), "detached", "detach"),
    ),
    Command("nodedev-dumpxml", "the document of a device", (DEVICE, *document.PARTS), _dumpxml),
    Command(
        "nodedev-list",
        "list the devices of the host",
        (
            flag("tree", "as a tree"),
            value("cap", "only those with one of these capabilities, separated by commas"),
            flag("inactive", "only devices that are not active"),
            flag("all", "active devices and the others"),
        ),
        _list,
    ),
    Command(
        "nodedev-reattach",
        "give a device back to its driver",
        (_NAMED,),
        _acting(lambda s, d, a: s.node_device.node_device_re_attach(d), "re-attached", "re-attach"),
    ),
    Command(
        "nodedev-reset",
        "reset a device",
        (_NAMED,),
        _acting(lambda s, d, a: s.node_device.node_device_reset(d), "reset", "reset"),
    ),
    Command("nodedev-define", "define a device, to be made later", _FILE, _define),
    Command("nodedev-undefine", "forget the definition of a device", (DEVICE,), _undefine),
    Command("nodedev-start", "make a defined device", (_NAMED,), _start),
    Command(
        "nodedev-autostart",
        "let a defined device be made when the host starts",
        (DEVICE, flag("disable", "leave it to others")),
        _autostart,
    ),
    Command("nodedev-info", "facts about a device", (DEVICE,), _info),
)
