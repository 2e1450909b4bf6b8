"""Devices of the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import CommandError, Session, failing, yes_no
from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.errors import VirtError

DEVICE: Final = data("device", "device name")
# virNodeDevCapType's names.
_CAPABILITIES: Final = frozenset(
    {
        "system", "pci", "usb_device", "usb", "net", "scsi_host", "scsi_target", "scsi", "storage", "fc_host", "vports",
        "scsi_generic", "drm", "mdev_types", "mdev", "ccw", "css", "vdpa", "ap_card", "ap_queue", "ap_matrix", "vpd",
    }
)  # fmt: skip


def _find(session: Session, args: Args) -> NodeDeviceRef:
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
    if any(name not in _CAPABILITIES for name in wanted):
        raise CommandError("Invalid capability type")
    driver = session.node_device
    with failing("Failed to list node devices"):
        # What is not active is defined for mdevctl, of which there is none here.
        refs = [] if args.has("inactive") else driver.connect_list_all_node_devices()
        if wanted:
            refs = [ref for ref in refs if not set(wanted).isdisjoint(driver.node_device_list_caps(ref))]
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
        device = _find(session, args)
        with failing(f"Failed to {failed} device {args['device']}"):
            action(session, device, args)
        session.output.note(f"Device {args['device']} {done}")

    return run


COMMANDS = (
    Command(
        "nodedev-detach",
        "take a device from its driver, for a guest",
        (DEVICE, value("driver", "the driver for it: vfio")),
        _acting(lambda s, d, a: s.node_device.node_device_detach_flags(d, a.get("driver")), "detached", "detach"),
    ),
    Command("nodedev-dumpxml", "the document of a device", (DEVICE, *document.PARTS), _dumpxml),
    Command("nodedev-info", "facts about a device", (DEVICE,), _info),
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
        (DEVICE,),
        _acting(lambda s, d, a: s.node_device.node_device_re_attach(d), "re-attached", "re-attach"),
    ),
    Command(
        "nodedev-reset",
        "reset a device",
        (DEVICE,),
        _acting(lambda s, d, a: s.node_device.node_device_reset(d), "reset", "reset"),
    ),
)
