"""What belongs to a running domain and not to its definition.

A live document may be given to be defined, as ``virsh dumpxml`` printed it: what the run brought is left out then, as
libvirt does (``VIR_DOMAIN_DEF_PARSE_INACTIVE``).
"""

from __future__ import annotations

import re
from typing import Final

from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.hostdev import UsbHostdev
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel
from hostel.model.domain.domain import Domain

_USER_ALIAS: Final = re.compile(r"ua-[A-Za-z0-9_-]*", re.ASCII)
# Names that are given to taps while a domain runs; a definition cannot ask for them.
_GENERATED: Final = ("vnet", "macvtap", "macvlan")


def is_users(alias: str | None) -> bool:
    """Whether a device is called as its document says, and not as a run calls it."""
    return alias is not None and _USER_ALIAS.fullmatch(alias) is not None


def hide_finding(domain: Domain) -> None:
    """Leave out of a document that is shown how devices of the host were found, which only another run asks."""
    for hostdev in domain.devices.hostdevs:
        if isinstance(hostdev, UsbHostdev):
            hostdev.source.auto_address = None


def hide_chains(domain: Domain) -> None:
    """Leave out of a document that is shown what the target of a copy stands on, where the disk itself stands on it."""
    for disk in domain.devices.disks:
        own, mirror = disk.backing_store, disk.mirror
        below = mirror.backing_store if mirror is not None else None
        if mirror is not None and below is not None and below.index and own is not None and below.index == own.index:
            mirror.backing_store = None


def forget_run(domain: Domain) -> None:
    """Take out of a document what only a running domain has."""
    domain.id = None
    devices = domain.devices
    for device in devices.all():
        if device.alias is not None and not is_users(device.alias):
            device.alias = None
    for disk in devices.disks:
        disk.mirror = None
        if disk.source is None and disk.driver is not None and disk.driver.name == "qemu":
            disk.driver.type = disk.driver.type or "raw"  # which an empty drive is not while it runs
        if disk.source is not None:
            disk.source.index = None
            disk.source.seclabels = _lasting(disk.source.seclabels)
        backing = disk.backing_store
        while backing is not None:
            backing.index = None
            backing = backing.backing_store
    for interface in devices.interfaces:
        interface.actual = None
        if interface.source is not None and interface.type == InterfaceType.NETWORK:
            # Which port it was, and what of the host's.
            source = interface.source
            source.portid = source.bridge = source.dev = source.mode = None
        target = interface.target
        if target is not None and target.managed is not False and (target.dev or "").startswith(_GENERATED):
            target.dev = None
    for hostdev in devices.hostdevs:
        if isinstance(hostdev, UsbHostdev):
            hostdev.source.missing = None
            if hostdev.source.auto_address:  # it was found by what it is
                hostdev.source.address = hostdev.source.auto_address = None
    for character in devices.characters():
        if getattr(character, "type", None) == CharacterType.PTY:
            character.sources = []
    for console in devices.consoles:
        console.tty = None
    for channel in devices.channels:
        if channel.target is not None:
            channel.target.state = None
    for graphics in devices.graphics:
        _forget_ports(graphics)
    for memory in devices.memories:
        memory.target.current = None
    for label in domain.seclabels:
        label.image_label = None
        if label.type in (None, "dynamic"):
            label.label = None
    domain.seclabels = [item for item in domain.seclabels if item.type != "default"]
    if domain.cputune is not None:
        for share in domain.cputune.resctrls:
            share.id = None


def _lasting(labels: list[DeviceSecurityLabel]) -> list[DeviceSecurityLabel]:
    """Labels of a source that say something about the next run."""
    for label in labels:
        label.label_skip = None
    return [item for item in labels if item.label is not None or item.relabel is False]


def _forget_ports(graphics: Graphics) -> None:
    if graphics.autoport or graphics.port == -1:
        graphics.autoport = True
        graphics.port = -1 if graphics.type == GraphicsType.VNC else None
        graphics.tls_port = None
    for listen in graphics.listens:
        if listen.type == "network":
            listen.address = None
