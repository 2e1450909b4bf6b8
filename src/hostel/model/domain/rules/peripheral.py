"""Rules for small devices, whoever runs the machine (``virDomainDeviceDefValidateInternal``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import CcidAddress, CcwAddress, UnassignedAddress, UsbAddress
from hostel.model.domain.devices.character import Channel, CharacterType, Console, Parallel, Serial
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.filesystem import Filesystem, FilesystemSource
from hostel.model.domain.devices.hostdev import Hostdev
from hostel.model.domain.devices.paravirtual import SharedMemory, Vsock
from hostel.model.domain.devices.redirection import Redirdev, Smartcard
from hostel.model.domain.devices.sound import Audio, AudioDirection
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.virtio import in_libvirt_order
from hostel.model.domain.rules.rule import Machine, MachineRule, Rule, check, check_on, without_virtio_options

_XML: Final = ErrorCode.XML_ERROR
_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED


def _has_usb(domain: Domain) -> bool:
    return any(item.type == ControllerType.USB and item.model != "none" for item in domain.devices.controllers)


def _shown(filesystem: Filesystem) -> str:
    source = filesystem.source or FilesystemSource()
    return source.dir or source.dev or source.file or source.name or source.volume or source.socket or ""


_FILESYSTEM_RULES: Final[tuple[Rule[Filesystem], ...]] = (
    Rule(
        lambda item: not item.target,
        lambda item: f"missing target information for device {_shown(item)}".strip(),
        ErrorCode.NO_TARGET,
        "/target/@dir",
    ),
    Rule(
        lambda item: item.type != "ram" and not _shown(item),
        lambda item: f"missing source information for device {item.target}",
        ErrorCode.NO_SOURCE,
        "/source",
    ),
    Rule(
        lambda item: item.type == "ram" and (item.source is None or item.source.usage is None),
        lambda _: "missing 'usage' attribute for RAM filesystem",
        _XML,
        "/source/@usage",
    ),
    Rule(
        lambda item: item.boot is not None and (item.driver is None or item.driver.type != "virtiofs"),
        lambda _: "boot order is only supported for virtiofs",
        below="/boot",
    ),
)
_SMARTCARD_RULES: Final[tuple[Rule[Smartcard], ...]] = (
    Rule(
        lambda item: not isinstance(item.address, CcidAddress | None),
        lambda _: "Controllers must use the 'ccid' address type",
        below="/address/@type",
    ),
    Rule(
        lambda item: item.mode == "passthrough" and item.type is None,
        lambda _: "passthrough mode requires a character device type attribute",
        _XML,
        "/@type",
    ),
    Rule(
        lambda item: item.database is not None and not item.database.startswith("/"),
        lambda item: f"expecting absolute path: {item.database}",
        _XML,
        "/database",
    ),
)
_REDIRDEV_RULES: Final[tuple[MachineRule[Redirdev], ...]] = (
    MachineRule(
        lambda _, machine: not _has_usb(machine.domain),
        "cannot add redirected USB device: USB is disabled for this domain",
    ),
    MachineRule(
        lambda item, _: not isinstance(item.address, UsbAddress | None),
        "Invalid address for a USB device",
        "/address/@type",
        _XML,
    ),
)
_SHMEM_RULES: Final[tuple[Rule[SharedMemory], ...]] = (
    Rule(
        lambda item: item.msi is not None and item.server is None,
        lambda _: "msi option is only supported with a server",
        _XML,
        "/msi",
    ),
)
_VSOCK_RULES: Final[tuple[Rule[Vsock], ...]] = without_virtio_options(
    lambda vsock: vsock.driver, lambda vsock: vsock.model not in (None, "default")
)
_PORT_RULES: Final[tuple[Rule[Serial | Parallel | Console | Channel], ...]] = (
    Rule(
        lambda item: (
            item.type == CharacterType.SPICEVMC
            and not (isinstance(item, Console | Channel) and item.target is not None and item.target.type == "virtio")
        ),
        lambda _: "spicevmc device type only supports virtio",
        below="/@type",
    ),
)


def check_peripherals(machine: Machine) -> None:
    """Hold the devices that have few rules against them.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    devices, path = machine.domain.devices, machine.domain.devices.path
    for filesystem in devices.filesystems:
        check(filesystem, path(filesystem), _FILESYSTEM_RULES)
    for card in devices.smartcards:
        check(card, path(card), _SMARTCARD_RULES)
    if devices.vsock is not None:
        check(devices.vsock, path(devices.vsock), _VSOCK_RULES)
    for redirdev in devices.redirdevs:
        check_on(redirdev, path(redirdev), machine, _REDIRDEV_RULES)
    for shmem in devices.shmems:
        check(shmem, path(shmem), _SHMEM_RULES)
    ports: list[Serial | Parallel | Console | Channel] = [
        *devices.serials, *devices.parallels, *devices.consoles, *devices.channels,
    ]  # fmt: skip
    for port in ports:
        check(port, path(port), _PORT_RULES)
    for audio in devices.audios:
        _check_audio(audio, path(audio))
    for device in in_libvirt_order(machine.domain):
        place = device.address
        if isinstance(place, CcwAddress) and len({place.cssid is None, place.ssid is None, place.devno is None}) > 1:
            reason = "Invalid partial specification for virtio ccw address"
            raise ModelError(f"{path(device)}/address", reason, code=ErrorCode.INTERNAL_ERROR)
        if isinstance(place, UnassignedAddress) and not isinstance(device, Hostdev):
            reason = "address of type 'unassigned' is supported only for hostdevs"
            raise ModelError(f"{path(device)}/address/@type", reason, code=_UNSUPPORTED)


def _check_audio(audio: Audio, path: str) -> None:
    directions: tuple[AudioDirection | None, ...] = (audio.input, audio.output)
    for direction in directions:
        if direction is None:
            continue
        here = f"{path}/{direction.TAG}"
        if direction.fixed_settings and not direction.mixing_engine:
            reason = "fixed audio settings requires mixing engine"
            raise ModelError(f"{here}/@fixedSettings", reason, code=_UNSUPPORTED)
        if direction.settings is not None and not direction.fixed_settings:
            reason = "audio settings specified without fixed settings flag"
            raise ModelError(f"{here}/settings", reason, code=_UNSUPPORTED)
