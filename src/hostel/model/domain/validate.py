"""What a complete document must keep; the first broken rule is told (``domain_validate.c``, ``qemu_validate.c``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Board, Platform, board_of
from hostel.model.domain.rules.device import (
    CHARACTER_RULES,
    CONTROLLER_RULES,
    GRAPHICS_RULES,
    INPUT_RULES,
    INTERFACE_RULES,
    TIMER_RULES,
)
from hostel.model.domain.rules.disk import DISK_RULES, QEMU_DISK_RULES
from hostel.model.domain.rules.rule import check

_MAX_NAME: Final = 250  # bytes: with ``.xml`` it is to be a file's name
_OS_TYPES: Final = ("hvm", "xen", "linux", "exe", "uml", "xenpvh")
_SINGLE: Final = {
    "memballoon": (ErrorCode.INTERNAL_ERROR, "only a single memory balloon device is supported"),
    "iommu": (ErrorCode.XML_ERROR, "only a single IOMMU device is supported"),
    "nvram": (ErrorCode.XML_ERROR, "only one NVRAM device is supported"),
    "vsock": (ErrorCode.XML_ERROR, "only a single vsock device is supported"),
}
_COMPANIONS: Final = ("ich9-uhci1", "ich9-uhci2", "ich9-uhci3")


def check_name(name: str) -> None:
    """Refuse a name that is no line, or cannot be a file's.

    Raises:
        ModelError: it is one.
    """
    path = "/domain/name"
    if not name:
        raise ModelError(path, "missing name information", code=ErrorCode.NO_NAME)
    if "\n" in name:
        raise ModelError(path, "invalid char in name: a newline", code=ErrorCode.XML_DETAIL)
    if "/" in name:
        raise ModelError(path, f"name {name} cannot contain '/'")
    if not name.strip():
        raise ModelError(path, "name must contain at least one character that is not a blank")
    if name in (".", "..") or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ModelError(path, f"name {name!r} cannot be used: it is a path or has control characters")
    if len(name.encode()) > _MAX_NAME:
        raise ModelError(path, f"the name is longer than {_MAX_NAME} bytes")


def validate(domain: Domain, platform: Platform) -> None:
    """Hold a document that has its defaults against every rule.

    Raises:
        ModelError: a rule is broken; the path says where, the words are libvirt's.
    """
    check_name(domain.name)
    if domain.title is not None and "\n" in domain.title:
        raise ModelError("/domain/title", "Domain title can't contain newlines")
    _check_os(domain)
    _check_processors(domain, platform)
    _check_disks(domain, platform)
    _check_controllers(domain)
    if platform.is_qemu:
        _check_qemu(domain)
    devices = domain.devices
    for second in devices.unknown:
        if second.name in _SINGLE:
            code, reason = _SINGLE[second.name]
            raise ModelError(f"/domain/devices/{second.name}[2]", reason, code=code)
    for interface in devices.interfaces:
        check(interface, devices.path(interface), INTERFACE_RULES)
    for character in devices.characters():
        check(character, devices.path(character), CHARACTER_RULES)
    for graphics in devices.graphics:
        check(graphics, devices.path(graphics), GRAPHICS_RULES)
    for item in devices.inputs:
        check(item, devices.path(item), INPUT_RULES)
    _check_aliases(domain)
    _check_timers(domain)
    _check_audio(domain)


def _check_os(domain: Domain) -> None:
    if domain.os is None:
        raise ModelError("/domain/os/type", "an os <type> must be specified")
    if domain.os.type.value not in _OS_TYPES:
        path = "/domain/os/type"
        reason = f"unknown OS type '{domain.os.type.value}'"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if domain.os.type.value == "exe" and domain.os.init is None:
        raise ModelError("/domain/os/init", "init binary must be specified")
    if domain.os.bios is not None and domain.os.bios.use_serial and not domain.devices.serials:
        raise ModelError("/domain/os/bios/@useserial", "need at least one serial port to use BIOS serial output")


def _check_processors(domain: Domain, platform: Platform) -> None:
    vcpu = domain.vcpu
    if vcpu is None:
        return
    if vcpu.current is not None and vcpu.current > vcpu.value:
        reason = "maximum vCPU count must not be less than current vCPU count"
        raise ModelError("/domain/vcpu/@current", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    cpu = domain.cpu
    if cpu is None:
        return
    topology = cpu.topology
    if topology is not None:
        count = topology.sockets * topology.dies * topology.cores * topology.threads
        # Others have their processors in other units, or no way of adding any.
        if count != vcpu.value and (not platform.is_qemu or platform.has("query-hotpluggable-cpus")):
            reason = "CPU topology doesn't match maximum vcpu count"
            raise ModelError("/domain/cpu/topology", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    seen: set[str] = set()
    for feature in cpu.features:
        if feature.name in seen:
            raise ModelError("/domain/cpu/feature", f"CPU feature '{feature.name}' specified more than once")
        seen.add(feature.name)


def _check_disks(domain: Domain, platform: Platform) -> None:
    devices = domain.devices
    targets: dict[str, Disk] = {}
    places: dict[tuple[str | None, tuple[int, int, int, int]], Disk] = {}
    for disk in devices.disks:
        path = devices.path(disk)
        check(disk, path, DISK_RULES)
        if platform.is_qemu:
            check(disk, path, QEMU_DISK_RULES)
        other = targets.setdefault(disk.target.dev, disk)
        if other is not disk:
            sources = f"'{_spoken(other)}' and '{_spoken(disk)}'"
            reason = f"target '{disk.target.dev}' duplicated for disk sources {sources}"
            raise ModelError(f"{path}/target/@dev", reason)
        address = disk.address
        if isinstance(address, DriveAddress):
            first = places.setdefault((disk.target.bus, address.place), disk)
            if first is not disk:
                reason = (
                    f"Found duplicate drive address for disk with target name '{first.target.dev}' "
                    f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' "
                    f"unit='{address.unit}'"
                )
                raise ModelError(f"{path}/address", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _spoken(disk: Disk) -> str:
    source = disk.source
    if source is None:
        return "(null)"
    return source.file or source.dev or source.name or source.volume or source.path or "(null)"


def _check_controllers(domain: Domain) -> None:
    devices = domain.devices
    seen: set[tuple[str, int | None]] = set()
    usb = [item for item in devices.controllers if item.type == ControllerType.USB]
    for controller in devices.controllers:
        path = devices.path(controller)
        check(controller, path, CONTROLLER_RULES)
        place = (controller.type, controller.index)
        if place in seen and controller.type != ControllerType.USB:
            reason = f"Multiple '{controller.type}' controllers with index '{controller.index}'"
            raise ModelError(f"{path}/@index", reason)
        seen.add(place)
    if any(item.model == "none" for item in usb) and len(usb) > 1:
        reason = "Can't add another USB controller: USB is disabled for this domain"
        raise ModelError(devices.path(usb[-1]), reason, code=ErrorCode.XML_DETAIL)
    if usb and all(item.model in _COMPANIONS for item in usb):
        reason = "No master USB controller specified"
        raise ModelError(devices.path(usb[0]), reason, code=ErrorCode.XML_DETAIL)


def _check_qemu(domain: Domain) -> None:
    """What QEMU's machines have one of, and what is referred to (``qemu_validate.c``)."""
    devices = domain.devices
    board = board_of(domain)
    for controller in devices.controllers:
        if controller.model in ("pci-root", "pcie-root") and controller.index and board != Board.PSERIES:
            reason = "pci-root and pcie-root controllers should have index 0"
            raise ModelError(f"{devices.path(controller)}/@index", reason)
        if controller.type == ControllerType.IDE and (controller.index or board != Board.I440FX):
            reason = (
                "Only a single IDE controller is supported for this machine type"
                if board == Board.I440FX
                else "IDE controllers are unsupported for this QEMU binary or machine type"
            )
            raise ModelError(devices.path(controller), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    threads = {item.id for item in domain.iothread_ids.iothreads} if domain.iothread_ids is not None else set()
    threads |= set(range(1, (domain.iothreads or 0) + 1)) if not threads else set()
    users: list[Disk | Controller] = [*devices.disks, *devices.controllers]
    for user in users:
        thread = user.driver.iothread if user.driver is not None else None
        if thread is not None and thread not in threads:
            name = "Disk" if isinstance(user, Disk) else "controller"
            reason = f"{name} iothread '{thread}' not defined in iothreadid"
            raise ModelError(f"{devices.path(user)}/driver/@iothread", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _check_aliases(domain: Domain) -> None:
    """A user's alias names one device; a console that is a serial port shares that one's."""
    seen: set[str] = set()
    for device in domain.devices.all():
        if device.alias is None or device in domain.devices.consoles[:1]:
            continue
        if device.alias in seen:
            path = f"{domain.devices.path(device)}/alias/@name"
            reason = f"non unique alias detected: {device.alias}"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        seen.add(device.alias)


def _check_timers(domain: Domain) -> None:
    for timer in domain.clock.timers if domain.clock is not None else []:
        check(timer, "/domain/clock/timer", TIMER_RULES)


def _check_audio(domain: Domain) -> None:
    devices = domain.devices
    ids: set[int] = set()
    for item in devices.audios:
        if item.id in ids:
            raise ModelError(f"{devices.path(item)}/@id", f"audio ID {item.id} is used multiple times")
        ids.add(item.id)
    users: list[Sound | Graphics] = [*devices.sounds, *devices.graphics]
    for user in users:
        if user.audio is not None and user.audio not in ids:
            path = f"{devices.path(user)}/audio/@id"
            raise ModelError(path, f"no audio device with ID {user.audio}")
