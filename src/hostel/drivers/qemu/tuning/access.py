"""Which devices of the host a machine's QEMU may open (``qemuSetupDevicesCgroup``).

It is what its state names, with the marks of what is under way, and what every QEMU opens. Nothing of it is changed for
machines whose group was made without.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.cgroup.devices import Rule, restrict, rules
from hostel.drivers.cgroup.group import Group
from hostel.drivers.fault import system_fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.ownership.claims import paths
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.qemu.status import Status
from hostel.drivers.qemu.tuning import groups
from hostel.errors import ErrorDomain
from hostel.model.domain.devices.hostdev import ScsiHostHostdev
from hostel.model.domain.domain import Domain

_TERMINALS: Final = Rule("c", 136)  # Linux, devices.txt: the ends of terminals that QEMU makes
_SOUND: Final = {"alsa": Rule("c", 116), "oss": Rule("c", 14)}
_VFIO: Final = "/dev/vfio/"


def begin(group: Group | None, status: Status, settings: Settings, log: Path) -> Status:
    """Restrict what a QEMU may open that is about to enter its group; where the host refuses that, the log says so."""
    if group is None or "devices" not in settings.controllers or not group.has("devices"):
        return status
    try:
        restrict(group, _allowed(status, settings))
    except OSError as error:
        process.write_log(log, [f"devices of the host are not denied to QEMU: {error.strerror}"])
        return status
    return status._replace(denies_devices=True)


def settle(status: Status, settings: Settings) -> None:
    """Let a QEMU that runs open what its state names by now, and nothing else.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    group = groups.of_status(status)
    if group is None or not group.has("devices"):
        return
    try:
        restrict(group, _allowed(status, settings))
    except OSError as error:
        what = f"cannot change which devices '{status.domain.name}' may open"
        raise system_fault(error, what, ErrorDomain.QEMU) from error


def _allowed(status: Status, settings: Settings) -> set[Rule]:
    named = [*paths(status)]
    if any(path.startswith(_VFIO) for path in named):
        named.append(f"{_VFIO}vfio")
    found = rules([*settings.devices, *named, *_others(status.domain)]) | {_TERMINALS}
    return found | {_SOUND[backend.type] for backend in status.domain.devices.audios if backend.type in _SOUND}


def _others(domain: Domain) -> Iterator[str]:
    """Devices that a document names, or means, and that keep their owners."""
    devices = domain.devices
    for item in devices.rngs:
        if item.backend.model == "random":
            yield item.backend.path or "/dev/random"
    if devices.vsock is not None:
        yield "/dev/vhost-vsock"
    if any(isinstance(item, ScsiHostHostdev) for item in devices.hostdevs):
        yield "/dev/vhost-scsi"
    if any(item.model == "sgx-epc" for item in devices.memories):
        yield from ("/dev/sgx_vepc", "/dev/sgx_provision")
    if domain.launch_security is not None:
        yield "/dev/sev"
    for screen in devices.graphics:
        if screen.gl is not None and screen.gl.rendernode is not None:
            yield screen.gl.rendernode
    for video in devices.videos:
        acceleration = video.model.acceleration if video.model is not None else None
        if acceleration is not None and acceleration.rendernode is not None:
            yield acceleration.rendernode
