"""Virtual ports of Fibre Channel adapters (NPIV): whose they are, and how the kernel is told to make them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.node_device import NodeDevice
from hostel.model.node_device_capability import FibreChannelHost, ScsiHostCapability, VirtualPorts

_NAME: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{16}")
_ASSIGNED: Final = "5001a4a"  # of the form 5, and then the OUI that libvirt takes for QEMU


class WorldWideNames(NamedTuple):
    """The names of an adapter: of the node, and of its port."""

    node: str
    port: str


def make_name() -> str:
    """A name that nobody has, with high probability."""
    return f"{_ASSIGNED}{secrets.randbits(36):09x}"


def check_name(name: str) -> None:
    """Refuse what is no world-wide name.

    Raises:
        VirtError: ``INTERNAL_ERROR``.
    """
    if not _NAME.fullmatch(name):
        raise _internal(f"Malformed wwn: {name}")


def is_adapter(device: NodeDevice) -> bool:
    """Whether a device is a SCSI adapter."""
    return any(isinstance(each, ScsiHostCapability) for each in device.capabilities)


def names_of(device: NodeDevice, make: Callable[[], str] | None = None) -> WorldWideNames:
    """The names of a Fibre Channel adapter.

    Args:
        device: the adapter.
        make: makes a name where none is said; None: that is refused.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it is none, or has no name.
    """
    channel = _channel(device)
    if channel is None:
        raise _internal("Device is not a fibre channel HBA")
    found = []
    for what, name in (("WWNN", channel.wwnn), ("WWPN", channel.wwpn)):
        if name is None and make is None:
            raise _internal(f"no {what} supplied for '{device.name}', and auto-generation failed")
        found.append(make() if name is None and make is not None else str(name))
    return WorldWideNames(*found)


def rename(device: NodeDevice, names: WorldWideNames) -> None:
    """Give a Fibre Channel adapter other names."""
    channel = _channel(device)
    if channel is not None:
        channel.wwnn, channel.wwpn = names


def with_names(devices: Iterable[NodeDevice], names: WorldWideNames) -> NodeDevice | None:
    """The adapter that has the names; None where there is none."""
    wanted = tuple(map(_bare, names))
    for device in devices:
        channel = _channel(device)
        if channel is not None and (_bare(channel.wwnn), _bare(channel.wwpn)) == wanted:
            return device
    return None


def parent_host(devices: Iterable[NodeDevice], device: NodeDevice) -> int:
    """The number of the adapter on which a new one is to be: the parent that its document names, or any that can.

    Raises:
        VirtError: ``INTERNAL_ERROR``: there is no such adapter, or it has no virtual ports.
    """
    parent = device.parent
    missing = f"Could not find parent device for '{device.name}'"
    found: NodeDevice | None
    if parent is not None and parent.name:
        found = next((each for each in devices if each.name == parent.name), None)
    elif parent is not None and parent.wwnn is not None and parent.wwpn is not None:
        found = with_names(filter(_can, devices), WorldWideNames(parent.wwnn, parent.wwpn))
    elif parent is not None and parent.fabric_wwn is not None:
        wanted = _bare(parent.fabric_wwn)
        fabrics = ((each, _channel(each)) for each in devices if _can(each))
        found = next((each for each, channel in fabrics if channel and _bare(channel.fabric_wwn) == wanted), None)
    else:
        found = next(filter(_can, devices), None)
        missing = "Could not find any vport capable device"
    if found is None:
        raise _internal(missing)
    host = _host(found)
    if host is None or host.host is None or not _can(found):
        raise _internal(f"Parent device {found.name} is not capable of vport operations")
    return host.host


def manage(root: Path, host: int, names: WorldWideNames, operation: str) -> None:
    """Tell the kernel of a virtual port.

    Args:
        root: what ``/`` is.
        host: the number of the adapter that the port is on.
        names: of the port.
        operation: ``vport_create`` or ``vport_delete``.

    Raises:
        VirtError: ``OPERATION_INVALID``: the adapter has no such ports; ``SYSTEM_ERROR``: the kernel refuses;
            ``INTERNAL_ERROR``: a name is none.
    """
    for name in names:
        check_name(name)
    places = (root / f"sys/class/{kind}/host{host}/{operation}" for kind in ("fc_host", "scsi_host"))
    place = next((place for place in places if place.exists()), None)
    if place is None:
        reason = f"vport operation '{operation}' is not supported for host{host}"
        raise fault(ErrorCode.OPERATION_INVALID, reason, ErrorDomain.NODEDEV)
    text = f"{names.port}:{names.node}"
    try:
        place.write_text(text)
    except OSError as error:
        doing = f"Write of '{text}' to '{place}' during vport create/delete failed"
        raise system_fault(error, doing, ErrorDomain.NODEDEV) from error


def _host(device: NodeDevice) -> ScsiHostCapability | None:
    return next((each for each in device.capabilities if isinstance(each, ScsiHostCapability)), None)


def _channel(device: NodeDevice) -> FibreChannelHost | None:
    host = _host(device)
    if host is None:
        return None
    return next((each for each in host.capabilities if isinstance(each, FibreChannelHost)), None)


def _can(device: NodeDevice) -> bool:
    host = _host(device)
    return host is not None and any(isinstance(each, VirtualPorts) for each in host.capabilities)


def _bare(name: str | None) -> str | None:
    return None if name is None else name.removeprefix("0x").lower()


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.NODEDEV)
