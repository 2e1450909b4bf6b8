"""What a device gets that its document does not say: models, buses, ports (``virDomain*DefPostParse``)."""

from __future__ import annotations

import secrets
import uuid as uuids
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.character import (
    Channel,
    CharacterEnd,
    CharacterSource,
    CharacterType,
    ConsoleTarget,
    ParallelTarget,
    SerialTarget,
)
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice, DiskDriver
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.hostdev import Hostdev, ScsiHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface, InterfaceType, Mac
from hostel.model.domain.devices.paravirtual import SharedMemory, ShmemMsi, ShmemSize, Vsock, VsockCid
from hostel.model.domain.devices.platform import Tpm
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import X86, Platform
from hostel.model.port import VirtualPort, VirtualPortParameters

_PREFIXES: Final = {
    "hd": DiskBus.IDE, "sd": DiskBus.SCSI, "vd": DiskBus.VIRTIO, "xvd": DiskBus.XEN, "ubd": DiskBus.UML,
}  # fmt: skip
_PORTS: Final = {
    "http": "80", "https": "443", "ftp": "21", "ftps": "990", "tftp": "69", "sheepdog": "7000", "nbd": "10809",
    "ssh": "22", "iscsi": "3260", "gluster": "24007", "vxhs": "9999",
}  # fmt: skip
# virDomainNetModel: QEMU's other models are kept as they are written.
_CARDS: Final = (
    "netfront", "rtl8139", "virtio", "e1000", "e1000e", "virtio-transitional", "virtio-non-transitional", "usb-net",
    "spapr-vlan", "lan9118", "scm91c111", "vlance", "vmxnet", "vmxnet2", "vmxnet3", "Am79C970A", "Am79C973", "82540EM",
    "82545EM", "82543GC",
)  # fmt: skip
_ISA_PORTS: Final = 4
_SERIAL_MODELS: Final = {
    "isa-serial": "isa-serial",
    "usb-serial": "usb-serial",
    "pci-serial": "pci-serial",
    "spapr-vio-serial": "spapr-vty",
    "sclp-serial": "sclpconsole",
    "isa-debug": "isa-debugcon",
}
_VIDEO_MEMORY: Final = {"vga": 16384, "cirrus": 16384, "vmvga": 16384, "bochs": 16384, "xen": 4096, "qxl": 65536}


def arrange_devices(domain: Domain) -> None:
    """What libvirt's parser itself settles: the order of disks, the buses of inputs, the numbers of consoles."""
    devices = domain.devices
    devices.disks = _sorted_disks(devices.disks)
    for device in devices.inputs:
        _complete_input(domain, device)
    last = -1
    for parallel in devices.parallels:
        target = parallel.target = parallel.target or ParallelTarget()
        target.port = last + 1 if target.port is None else target.port
        last = max(last, target.port)
    for position, console in enumerate(devices.consoles):
        console.target = console.target or ConsoleTarget()
        console.target.port = position


def _sorted_disks(disks: list[Disk]) -> list[Disk]:
    """Disks of a bus by name, among those whose bus is written the same way (``virDomainDiskInsert``)."""
    groups: dict[DiskBus | None, list[Disk]] = {}
    for disk in disks:
        groups.setdefault(disk.target.bus, []).append(disk)
    return [disk for group in groups.values() for disk in sorted(group, key=lambda item: item.target.position or 0)]


def complete_devices(domain: Domain, platform: Platform) -> None:
    """Complete the devices that a document names.

    Raises:
        ModelError: a disk has a name from which no place follows, and no address.
    """
    devices = domain.devices
    for disk in devices.disks:
        _complete_disk(domain, disk, platform)
    for interface in devices.interfaces:
        _complete_interface(domain, interface, platform)
    for hostdev in devices.hostdevs:
        _complete_hostdev(domain, hostdev)
    for controller in devices.controllers:
        complete_controller(controller, platform)
    for character in devices.characters():
        _complete_source(character)
    number_isa_serials(domain)
    complete_serials(domain, platform)
    for console in devices.consoles:
        if console.target is not None and console.target.type in (None, "none"):
            console.target.type = "serial"
    for channel in devices.channels:
        _complete_channel(channel)
    for graphics in devices.graphics:
        _complete_graphics(graphics)
    for filesystem in devices.filesystems:
        if filesystem.accessmode is None and (filesystem.source is None or filesystem.source.socket is None):
            filesystem.accessmode = "passthrough"
    for rng in devices.rngs:
        if rng.backend.model == "random" and rng.backend.path is None:
            rng.backend.path = "/dev/random"
    for sound in devices.sounds:
        sound.codecs = sound.codecs if sound.model in ("ich6", "ich9", "ich7") else []
    _complete_others(domain, platform)


def _complete_others(domain: Domain, platform: Platform) -> None:
    devices = domain.devices
    for shmem in devices.shmems:
        _complete_shmem(shmem)
    if devices.vsock is not None:
        _complete_vsock(devices.vsock, platform)
    if not platform.is_qemu:
        return
    for tpm in devices.tpms:
        _complete_tpm(tpm)
    for panic in devices.panics:
        if panic.model in (None, "default") and domain.os is not None and domain.os.type.arch in X86:
            panic.model = "isa"


def guess_bus(disk: Disk) -> DiskBus:
    """The bus that a disk's name means."""
    if disk.device == DiskDevice.FLOPPY:
        return DiskBus.FDC
    return _PREFIXES.get(disk.target.prefix or "", DiskBus.IDE)


def _complete_disk(domain: Domain, disk: Disk, platform: Platform) -> None:
    disk.target.dev = disk.target.dev.removeprefix("ioemu:")
    if disk.device == DiskDevice.CDROM:
        disk.readonly = True
    if disk.target.bus is None:
        disk.target.bus = guess_bus(disk)
    if disk.target.tray == "closed" or disk.device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
        disk.target.tray = None
    if disk.readonly and disk.snapshot == "no":
        disk.snapshot = None
    if disk.type == SourceType.VHOSTUSER and disk.snapshot is None:
        disk.snapshot = "no"
    source = disk.source
    if source is not None:
        complete_network_source(source)
        if source.startup_policy == "default" or disk.type == SourceType.NETWORK:
            source.startup_policy = None
        if disk.type == SourceType.NVME and source.managed is None:
            source.managed = True
    elif disk.type in (SourceType.NETWORK, SourceType.VOLUME):
        disk.type = SourceType.FILE  # an empty drive is of no other type
    backing = disk.backing_store
    while backing is not None:
        if backing.source is not None:
            complete_network_source(backing.source)
        backing = backing.backing_store
    if platform.is_qemu:
        _complete_disk_driver(disk)
    if disk.address is None:
        _place_disk(domain, disk)


def _complete_disk_driver(disk: Disk) -> None:
    driver = disk.driver = disk.driver or DiskDriver()
    driver.name = driver.name or "qemu"
    if driver.type == "aio":
        driver.type = "raw"
    if driver.type is None and disk.type != SourceType.VOLUME:
        driver.type = "raw"
    for name in ("cache", "io", "discard", "detect_zeroes", "error_policy", "rerror_policy"):
        if getattr(driver, name) == "default":
            setattr(driver, name, None)
    places: list[Disk | DiskSource | None] = [disk, disk.source]
    backing = disk.backing_store
    while backing is not None:
        places.append(backing.source)
        backing = backing.backing_store
    for place in places:
        if place is not None and place.encryption is not None and place.encryption.engine is None:
            place.encryption.engine = "qemu"


def complete_network_source(source: DiskSource) -> None:
    """Write the port that a protocol means, and which unit of an iSCSI target."""
    if source.protocol == "iscsi" and source.name is not None and "/" not in source.name:
        source.name += "/0"
    for host in source.hosts:
        if host.transport == "tcp":
            host.transport = None
        if host.transport is None and host.port is None:
            host.port = _PORTS.get(source.protocol or "")


def _place_disk(domain: Domain, disk: Disk) -> None:
    """Where on its bus a disk is, by its name (``virDomainDiskDefAssignAddress``)."""
    position = disk.target.position
    if position is None:
        path = f"{domain.devices.path(disk)}/target/@dev"
        raise ModelError(path, f"Unknown disk name '{disk.target.dev}' and no address specified")
    match disk.target.bus:
        case DiskBus.SCSI:
            # Seven a controller, whatever its model: so libvirt keeps names and places together.
            disk.address = DriveAddress(controller=position // 7, unit=position % 7)
        case DiskBus.IDE:
            disk.address = DriveAddress(controller=position // 4, bus=position % 4 // 2, unit=position % 2)
        case DiskBus.SATA:
            disk.address = DriveAddress(controller=position // 6, unit=position % 6)
        case DiskBus.FDC:
            disk.address = DriveAddress(controller=position // 2, unit=position % 2)
        case _:
            pass


def _complete_interface(domain: Domain, interface: Interface, platform: Platform) -> None:
    if interface.mac is None:
        tail = ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
        interface.mac = Mac(address=f"52:54:00:{tail}")
    interface.mac.address = interface.mac.address.lower()
    if interface.virtualport is not None:
        _complete_virtual_port(interface.virtualport)
    if interface.coalesce is not None and not (interface.coalesce.rx is not None and interface.coalesce.rx.frames):
        interface.coalesce = None
    if interface.link_state == "default":
        interface.link_state = None
    if interface.model is not None:
        written = interface.model.lower()
        interface.model = next((card for card in _CARDS if card.lower() == written), interface.model)
    if not platform.is_qemu:
        return
    is_x86 = domain.os is not None and domain.os.type.arch in X86
    if interface.type == InterfaceType.VDPA and interface.model is None:
        interface.model = "virtio"
    elif interface.type != InterfaceType.HOSTDEV and interface.model is None:
        interface.model = "rtl8139" if is_x86 else "virtio"


def _complete_virtual_port(port: VirtualPort) -> None:
    """Make up the identifiers that a switch needs and the document does not have."""
    given = port.parameters = port.parameters or VirtualPortParameters()
    if given.instanceid is None and port.type in (None, "none", "802.1Qbg"):
        given.instanceid = str(uuids.uuid4())
    if given.interfaceid is None and port.type in (None, "none", "openvswitch"):
        given.interfaceid = str(uuids.uuid4())


def _complete_hostdev(domain: Domain, hostdev: Hostdev) -> None:
    if hostdev.mode == "subsystem" and hostdev.managed is None:
        hostdev.managed = False
    if isinstance(hostdev, ScsiHostdev):
        source = hostdev.source
        if source.protocol == "iscsi" and source.name is not None and "/" not in source.name:
            source.name += "/0"
        if hostdev.address is None:
            hostdev.address = _free_scsi_place(domain)


def _free_scsi_place(domain: Domain) -> DriveAddress:
    used = {
        (item.address.controller, item.address.unit)
        for item in (*domain.devices.disks, *domain.devices.hostdevs)
        if isinstance(item.address, DriveAddress)
        and (isinstance(item, ScsiHostdev) or (isinstance(item, Disk) and item.target.bus == DiskBus.SCSI))
    }
    controller = 0
    while True:
        for unit in range(7):
            if (controller, unit) not in used:
                return DriveAddress(controller=controller, unit=unit)
        controller += 1


def complete_controller(controller: Controller, platform: Platform) -> None:
    """QEMU's models for controllers that name none."""
    if not platform.is_qemu:
        return
    if controller.type == ControllerType.SCSI and controller.model in (None, "auto"):
        controller.model = "lsilogic"
    if controller.type == ControllerType.USB and controller.model is None:
        controller.model = "piix3-uhci"


def _complete_source(character: CharacterEnd) -> None:
    """Write a source as libvirt does: modes said, what does not count left out."""
    kind = getattr(character, "type", None)
    for source in character.sources:
        if kind in (CharacterType.TCP, CharacterType.UNIX, CharacterType.UDP) and source.mode is None:
            source.mode = "connect"
    if kind == CharacterType.TCP and character.protocol is None:
        character.protocol = "raw"
    if kind in (CharacterType.UNIX, CharacterType.DEV, CharacterType.FILE, CharacterType.PIPE):
        character.sources = [item for item in character.sources if item.path is not None]
    if kind in (CharacterType.NULL, CharacterType.VC, CharacterType.STDIO, CharacterType.SPICEVMC):
        character.sources = []
    if kind == CharacterType.UDP:
        character.sources.sort(key=_is_connecting)


def _is_connecting(source: CharacterSource) -> bool:
    return source.mode == "connect"


def number_isa_serials(domain: Domain) -> None:
    """Give numbers to the serial ports that are said to be on ISA.

    Raises:
        ModelError: a number is used twice, or there are more ports than a machine has.
    """
    isa = [item for item in domain.devices.serials if item.target is not None and item.target.type == "isa-serial"]
    used: set[int] = set()
    for serial in isa:
        port = serial.target.port if serial.target is not None else None
        path = f"{domain.devices.path(serial)}/target/@port"
        if len(isa) > _ISA_PORTS or (port or 0) >= _ISA_PORTS:
            reason = f"Maximum supported number of ISA serial ports is '{_ISA_PORTS}'"
            raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
        if port is not None:
            if port in used:
                raise ModelError(path, f"target port '{port}' already allocated", code=ErrorCode.INTERNAL_ERROR)
            used.add(port)
    for serial in isa:
        if serial.target is not None and serial.target.port is None:
            serial.target.port = next(port for port in range(_ISA_PORTS) if port not in used)
            used.add(serial.target.port)


def complete_serials(domain: Domain, platform: Platform) -> None:
    """Give serial ports their kind and model, and the next number."""
    is_x86 = domain.os is not None and domain.os.type.arch in X86
    for serial in domain.devices.serials:
        target = serial.target = serial.target or SerialTarget()
        if platform.is_qemu:
            if target.type is None and is_x86:
                target.type = "isa-serial"
            if target.model is None and target.type is not None:
                target.model = _SERIAL_MODELS.get(target.type)
        if target.port is None:
            ports = [item.target.port for item in domain.devices.serials if item.target is not None]
            target.port = max((port for port in ports if port is not None), default=-1) + 1


def _complete_channel(channel: Channel) -> None:
    target = channel.target
    if (
        channel.type == CharacterType.SPICEVMC
        and target is not None
        and target.type == "virtio"
        and target.name is None
    ):
        target.name = "com.redhat.spice.0"
    if channel.type == CharacterType.QEMU_VDAGENT and target is not None and target.name is None:
        target.name = "com.redhat.spice.0"


def _complete_graphics(graphics: Graphics) -> None:
    if graphics.type not in (GraphicsType.VNC, GraphicsType.SPICE, GraphicsType.RDP):
        return
    listens, kind = graphics.listens, graphics.type
    named = next((listen.address for listen in listens if listen.type == "address" and listen.address), None)
    if named is not None and graphics.listen and named != graphics.listen:
        reason = (
            f"graphics 'listen' attribute '{graphics.listen}' must match 'address' attribute of first listen element "
            f"(found '{named}')"
        )
        raise ModelError("/domain/devices/graphics/@listen", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if not listens:
        if kind == GraphicsType.VNC and graphics.socket is not None:
            listens.append(Listen(type="socket", socket=graphics.socket))
        else:
            listens.append(Listen(type="address", address=graphics.listen or None))
    first = listens[0]
    if kind == GraphicsType.VNC and graphics.socket is not None and first.type in ("address", "network"):
        first = listens[0] = Listen(type="socket", socket=graphics.socket)
    if first.type == "address" and first.address is None:
        first.address = graphics.listen or None
    if first.type == "socket" and first.socket is None:
        first.socket = graphics.socket
    if kind == GraphicsType.SPICE:
        _complete_spice(graphics, first)
    elif kind == GraphicsType.VNC:
        graphics.autoport = graphics.is_automatic
        graphics.port = -1 if graphics.autoport else graphics.port
        if first.type not in ("address", "network"):
            graphics.port = graphics.autoport = graphics.websocket = None
        if graphics.websocket == 0:
            graphics.websocket = None
    graphics.socket = first.socket if kind == GraphicsType.VNC else None
    graphics.listen = first.address


def _complete_spice(graphics: Graphics, first: Listen) -> None:
    if graphics.port == -1 and graphics.tls_port == -1:
        graphics.autoport = True
    ports = (graphics.port, graphics.tls_port)
    if first.type == "address" and not graphics.autoport and all(port in (None, 0) for port in ports):
        first.type, first.address = "none", None
    if graphics.autoport:
        graphics.port = graphics.tls_port = None
    if first.type in ("address", "network"):
        graphics.autoport = bool(graphics.autoport)
    else:
        graphics.port = graphics.tls_port = graphics.autoport = None


def _complete_input(domain: Domain, device: Input) -> None:
    if device.bus is not None or domain.os is None:
        return
    kind = domain.os.type
    if kind.value == "hvm":
        if device.type in ("mouse", "keyboard") and kind.arch in (*X86, None):
            device.bus = "ps2"
        elif device.type == "passthrough":
            device.bus = "virtio"
        elif device.type != "evdev":
            device.bus = "usb"
    elif kind.value in ("xen", "xenpvh"):
        device.bus = "xen"


def complete_videos(domain: Domain, platform: Platform) -> None:
    """Give screens their model and memory; the first, or the one that says so, is the primary one."""
    primaries = [video for video in domain.devices.videos if video.model is not None and video.model.primary]
    if len(primaries) > 1:
        reason = "Only one primary video device is supported"
        raise ModelError(domain.devices.path(primaries[1]), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for video in primaries:
        domain.devices.videos.remove(video)
        domain.devices.videos.insert(0, video)
    for position, video in enumerate(domain.devices.videos):
        _complete_video(domain, video, platform, is_first=position == 0)


def _complete_video(domain: Domain, video: Video, platform: Platform, *, is_first: bool) -> None:
    model = video.model = video.model or VideoModel(type="default")
    if model.type == "none" and is_first:
        video.model, video.address, video.driver = VideoModel(type="none"), None, None
        return
    if model.type == "default" and platform.is_qemu:
        model.type = "cirrus" if domain.os is not None and domain.os.type.arch in X86 else "virtio"
    if model.heads is None:
        model.heads = 1
    memory = _VIDEO_MEMORY.get(model.type)
    if domain.type == DomainType.VBOX and model.type in ("vga", "cirrus", "vmvga"):
        memory = 8192
    if model.type == "qxl":
        model.ram = _power_of_two(model.ram or memory)
        model.vgamem = model.vgamem or (16384 if platform.is_qemu else None)
    model.vram = _power_of_two(model.vram or memory)
    if is_first:
        model.primary = True
    elif model.primary is False:
        model.primary = None


def _power_of_two(value: int | None) -> int | None:
    return None if value is None else 1 << (value - 1).bit_length()


def _complete_shmem(shmem: SharedMemory) -> None:
    shmem.model = shmem.model or "ivshmem"
    if shmem.model != "ivshmem-doorbell" and shmem.size is None:
        shmem.size = ShmemSize(unit="M", value=4)
    if shmem.model != "ivshmem" and shmem.server is not None:
        shmem.msi = shmem.msi or ShmemMsi()
        if shmem.msi.ioeventfd is None:
            shmem.msi.ioeventfd = True


def _complete_vsock(vsock: Vsock, platform: Platform) -> None:
    if platform.is_qemu and vsock.model in (None, "default"):
        vsock.model = "virtio"
    vsock.cid = vsock.cid or VsockCid()
    if vsock.cid.auto is None:
        vsock.cid.auto = vsock.cid.address is None


def _complete_tpm(tpm: Tpm) -> None:
    tpm.model = tpm.model or "tpm-tis"
    if tpm.backend.type == "emulator" and tpm.backend.version is None:
        tpm.backend.version = "2.0" if tpm.model in ("tpm-crb", "tpm-spapr") else "1.2"
