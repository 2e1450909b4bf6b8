"""What a complete document must keep; the first broken rule is told (``domain_validate.c``, ``qemu_validate.c``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain import vcpus
from hostel.model.domain.devices.address import CcwAddress, DriveAddress, PciAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.sound import Sound
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.virtio import in_libvirt_order
from hostel.model.domain.platform import Board, Platform
from hostel.model.domain.rules.board import (
    AUDIO_RULES,
    BALLOON_RULES,
    CONSOLE_RULES,
    FILESYSTEM_RULES,
    IOMMU_RULES,
    NVRAM_RULES,
    PANIC_RULES,
    QEMU_INPUT_RULES,
    QEMU_IOMMU_RULES,
    QEMU_TPM_RULES,
    REDIRDEV_RULES,
    RNG_RULES,
    SMARTCARD_RULES,
    SOUND_RULES,
    TPM_RULES,
    VSOCK_RULES,
    WATCHDOG_RULES,
)
from hostel.model.domain.rules.character import QEMU_SOURCE_RULES, SERIAL_RULES, SOURCE_RULES
from hostel.model.domain.rules.controller import CONTROLLER_RULES, QEMU_CONTROLLER_RULES, check_threads
from hostel.model.domain.rules.device import INPUT_RULES, TIMER_RULES
from hostel.model.domain.rules.disk import DISK_RULES, QEMU_DISK_RULES, differing_limits
from hostel.model.domain.rules.disk_source import check_sources
from hostel.model.domain.rules.display import (
    GRAPHICS_RULES,
    QEMU_GRAPHICS_RULES,
    QEMU_VIDEO_RULES,
    VIDEO_OPTION_RULES,
    VIDEO_RULES,
)
from hostel.model.domain.rules.given import check_given
from hostel.model.domain.rules.hostdev import check_hostdevs
from hostel.model.domain.rules.interface import (
    INTERFACE_RULES,
    ISOLATION_RULES,
    QEMU_INTERFACE_RULES,
    check_shared_parts,
)
from hostel.model.domain.rules.label import check_labels
from hostel.model.domain.rules.machine import (
    CPU_RULES,
    DOMAIN_RULES,
    FEATURE_RULES,
    OS_RULES,
    QEMU_OS_RULES,
    QEMU_TIMER_RULES,
    RESOURCE_RULES,
)
from hostel.model.domain.rules.memory import check_memory, check_numatune, check_pages, check_shares
from hostel.model.domain.rules.peripheral import check_peripherals
from hostel.model.domain.rules.processor import check_processor
from hostel.model.domain.rules.rule import Machine, check, check_on
from hostel.model.domain.rules.security import LAUNCH_RULES, QEMU_LAUNCH_RULES
from hostel.model.domain.rules.sysinfo import check_sysinfo

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


def validate(domain: Domain, platform: Platform, *, is_given: bool = True) -> None:
    """Hold a document that has its defaults against every rule; those for what is given alone only if it ``is_given``.

    Raises:
        ModelError: a rule is broken; the path says where, the words are libvirt's.
    """
    machine = Machine(domain, platform)
    check_name(domain.name)
    if domain.title is not None and "\n" in domain.title:
        raise ModelError("/domain/title", "Domain title can't contain newlines")
    _check_os(domain)
    if is_given:
        check_given(machine)
    if domain.resource is not None:
        check(domain.resource, "/domain/resource", RESOURCE_RULES)
    check_labels(domain)
    check_sysinfo(domain)
    if domain.launch_security is not None:
        check(domain.launch_security, "/domain/launchSecurity", LAUNCH_RULES)
    _check_processors(domain, platform)
    check_processor(domain)
    check_shares(domain)
    check_numatune(domain)
    check_pages(domain)
    _check_disks(machine)
    _check_controllers(domain)
    if platform.is_qemu:
        _check_machine(machine)
        vcpus.check(domain)
    devices = domain.devices
    for second in devices.unknown:
        if second.name in _SINGLE:
            code, reason = _SINGLE[second.name]
            raise ModelError(f"/domain/devices/{second.name}[2]", reason, code=code)
    _check_devices(machine)
    check_hostdevs(machine)
    check_memory(machine)
    if platform.is_qemu:
        _check_qemu_devices(machine)
    _check_aliases(domain)
    _check_timers(machine)
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
    check(domain.os, "/domain/os", OS_RULES)
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


def _check_disks(machine: Machine) -> None:
    devices = machine.domain.devices
    targets: dict[str, Disk] = {}
    places: dict[tuple[str | None, tuple[int, int, int, int]], Disk] = {}
    for disk in devices.disks:
        path = devices.path(disk)
        check(disk, path, DISK_RULES)
        if machine.platform.is_qemu:
            check(disk, path, QEMU_DISK_RULES)
        check_sources(disk, path, machine)
    if machine.platform.is_qemu and (pair := differing_limits(devices.disks)) is not None:
        reason = f"different iotunes for disks {pair[0].target.dev} and {pair[1].target.dev}"
        raise ModelError(f"{devices.path(pair[0])}/iotune", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for disk in devices.disks:
        path = devices.path(disk)
        other = targets.setdefault(disk.target.dev, disk)
        if other is not disk:
            sources = f"'{_spoken(other)}' and '{_spoken(disk)}'"
            reason = f"target '{disk.target.dev}' duplicated for disk sources {sources}"
            raise ModelError(f"{path}/target/@dev", reason)
    for disk in devices.disks:
        address = disk.address
        if isinstance(address, DriveAddress):
            first = places.setdefault((disk.target.bus, address.place), disk)
            if first is not disk:
                reason = (
                    f"Found duplicate drive address for disk with target name '{first.target.dev}' "
                    f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' "
                    f"unit='{address.unit}'"
                )
                raise ModelError(f"{devices.path(disk)}/address", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _spoken(disk: Disk) -> str:
    source = disk.source
    if source is None:
        return "(null)"
    return source.file or source.dev or source.name or source.volume or source.path or "(null)"


def _check_controllers(domain: Domain) -> None:
    devices = domain.devices
    usb = [item for item in devices.controllers if item.type == ControllerType.USB]
    for controller in devices.controllers:
        check(controller, devices.path(controller), CONTROLLER_RULES)
    if any(item.model == "none" for item in usb) and len(usb) > 1:
        reason = "Can't add another USB controller: USB is disabled for this domain"
        raise ModelError(devices.path(usb[-1]), reason, code=ErrorCode.XML_DETAIL)
    if usb and all(item.model in _COMPANIONS for item in usb):
        reason = "No master USB controller specified"
        raise ModelError(devices.path(usb[0]), reason, code=ErrorCode.XML_DETAIL)


def _check_machine(machine: Machine) -> None:
    """What QEMU's machines are, and what they have one of (``qemuValidateDomainDef``)."""
    domain = machine.domain
    check_on(domain, "/domain", machine, DOMAIN_RULES)
    if domain.os is not None:
        check_on(domain.os, "/domain/os", machine, QEMU_OS_RULES)
    if domain.cpu is not None:
        check_on(domain.cpu, "/domain/cpu", machine, CPU_RULES)
    if domain.features is not None:
        check_on(domain.features, "/domain/features", machine, FEATURE_RULES)
    if domain.launch_security is not None:
        check_on(domain.launch_security, "/domain/launchSecurity", machine, QEMU_LAUNCH_RULES)
    for controller in domain.devices.controllers:
        check_on(controller, domain.devices.path(controller), machine, QEMU_CONTROLLER_RULES)
    check_threads(machine)


def _check_devices(machine: Machine) -> None:
    devices = machine.domain.devices
    for interface in devices.interfaces:
        check(interface, devices.path(interface), INTERFACE_RULES)
        check(interface, devices.path(interface), ISOLATION_RULES)
        check_shared_parts(interface, devices.path(interface))
    for character in devices.characters():
        check(character, devices.path(character), SOURCE_RULES)
    check_peripherals(machine)
    for graphics in devices.graphics:
        check(graphics, devices.path(graphics), GRAPHICS_RULES)
    for item in devices.inputs:
        check(item, devices.path(item), INPUT_RULES)
    for video in devices.videos:
        check_on(video, devices.path(video), machine, VIDEO_RULES)
        check(video, devices.path(video), VIDEO_OPTION_RULES)
    for tpm in devices.tpms:
        check_on(tpm, devices.path(tpm), machine, TPM_RULES)
    for rng in devices.rngs:
        check_on(rng, devices.path(rng), machine, RNG_RULES)
    if devices.iommu is not None:
        check_on(devices.iommu, devices.path(devices.iommu), machine, IOMMU_RULES)


def _check_qemu_devices(machine: Machine) -> None:
    """What QEMU's devices can do, and where they can be (``qemuValidateDomainDeviceDef``)."""
    devices, path = machine.domain.devices, machine.domain.devices.path
    for interface in devices.interfaces:
        check_on(interface, path(interface), machine, QEMU_INTERFACE_RULES)
    for character in devices.characters():
        check_on(character, path(character), machine, QEMU_SOURCE_RULES)
    for console in devices.consoles:
        check_on(console, path(console), machine, CONSOLE_RULES)
    for sound in devices.sounds:
        check_on(sound, path(sound), machine, SOUND_RULES)
    for audio in devices.audios:
        check_on(audio, path(audio), machine, AUDIO_RULES)
    for serial in devices.serials:
        check_on(serial, path(serial), machine, SERIAL_RULES)
    for graphics in devices.graphics:
        check_on(graphics, path(graphics), machine, QEMU_GRAPHICS_RULES)
    for video in devices.videos:
        check_on(video, path(video), machine, QEMU_VIDEO_RULES)
    for item in devices.inputs:
        check_on(item, path(item), machine, QEMU_INPUT_RULES)
    for tpm in devices.tpms:
        check_on(tpm, path(tpm), machine, QEMU_TPM_RULES)
    for panic in devices.panics:
        check_on(panic, path(panic), machine, PANIC_RULES)
    for watchdog in devices.watchdogs:
        check_on(watchdog, path(watchdog), machine, WATCHDOG_RULES)
    for filesystem in devices.filesystems:
        check_on(filesystem, path(filesystem), machine, FILESYSTEM_RULES)
    for card in devices.smartcards:
        check_on(card, path(card), machine, SMARTCARD_RULES)
    for redirdev in devices.redirdevs:
        check_on(redirdev, path(redirdev), machine, REDIRDEV_RULES)
    _check_single_devices(machine)
    _check_addresses(machine)


def _check_single_devices(machine: Machine) -> None:
    """Devices of which a machine has one at most."""
    devices, path = machine.domain.devices, machine.domain.devices.path
    if devices.iommu is not None:
        check_on(devices.iommu, path(devices.iommu), machine, QEMU_IOMMU_RULES)
    if devices.memballoon is not None:
        check_on(devices.memballoon, path(devices.memballoon), machine, BALLOON_RULES)
    if devices.vsock is not None:
        check_on(devices.vsock, path(devices.vsock), machine, VSOCK_RULES)
    if devices.nvram is not None:
        check_on(devices.nvram, path(devices.nvram), machine, NVRAM_RULES)


def _check_addresses(machine: Machine) -> None:
    """Addresses that only s390x has (``qemuValidateDomainDeviceDefAddress``)."""
    for device in in_libvirt_order(machine.domain):
        path, address = machine.domain.devices.path(device), device.address
        if isinstance(address, PciAddress) and address.zpci is not None:
            if not machine.has("zpci"):
                reason = "This QEMU binary doesn't support zPCI"
                raise ModelError(f"{path}/address/zpci", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
            if address.zpci.uid == 0:
                reason = "Invalid PCI address uid='0x0000', must be > 0x0000 and <= 0xffff"
                raise ModelError(f"{path}/address/zpci/@uid", reason)
        if isinstance(address, CcwAddress) and machine.board != Board.S390_CCW:
            reason = f"cannot use CCW address type for device '{device.alias}' using machine type '{machine.name}'"
            raise ModelError(f"{path}/address/@type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _check_aliases(domain: Domain) -> None:
    """A user's alias names one device; a console that is a serial port shares that one's.

    Of the aliases that a driver gives some are shared: a USB 2 controller's is its companions' too.
    """
    seen: set[str] = set()
    for device in domain.devices.all():
        if device.alias is None or not device.alias.startswith("ua-") or device in domain.devices.consoles[:1]:
            continue
        if device.alias in seen:
            path = f"{domain.devices.path(device)}/alias/@name"
            reason = f"non unique alias detected: {device.alias}"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        seen.add(device.alias)


def _check_timers(machine: Machine) -> None:
    for timer in machine.domain.clock.timers if machine.domain.clock is not None else []:
        check(timer, "/domain/clock/timer", TIMER_RULES)
        if machine.platform.is_qemu:
            check_on(timer, "/domain/clock/timer", machine, QEMU_TIMER_RULES)


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
