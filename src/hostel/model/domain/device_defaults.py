"""What a device gets that its document does not say: models, buses, ports (``virDomain*DefPostParse``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ModelError
from hostel.model.domain.completing.character import (
    complete_channel,
    complete_serials,
    complete_source,
    number_isa_serials,
)
from hostel.model.domain.completing.controller import complete_controller
from hostel.model.domain.completing.disk import complete_disk, drop_other_places, share_limits, sorted_disks
from hostel.model.domain.completing.display import complete_graphics, complete_video, forget_socket, order_videos
from hostel.model.domain.completing.hostdev import complete_hostdev
from hostel.model.domain.completing.interface import complete_interface
from hostel.model.domain.devices.character import ConsoleTarget, ParallelTarget
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import SharedMemory, ShmemMsi, ShmemSize, Vsock, VsockCid
from hostel.model.domain.devices.platform import MemoryDevice, Panic, Tpm
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import PPC64, S390, X86, Board, Platform, arch_of, board_of
from hostel.model.scaled import Scaled

_POWER_BLOCK: Final = 256 * 1024  # KiB: POWER's memory comes and goes in such blocks


def arrange_devices(domain: Domain) -> None:
    """What libvirt's parser itself settles: the order of disks, the buses of inputs, the numbers of consoles."""
    devices = domain.devices
    devices.disks = sorted_disks(devices.disks)
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
    order_videos(domain)


def complete_devices(domain: Domain, platform: Platform, *, is_new: bool, is_live: bool) -> None:
    """Complete the devices that a document names.

    Raises:
        ModelError: a disk has a name from which no place follows, and no address.
    """
    devices = domain.devices
    number_isa_serials(domain)
    for disk in devices.disks:
        if not is_live:  # what runs keeps which volume a file is
            drop_other_places(disk)
        complete_disk(domain, disk, platform)
    share_limits(devices.disks)
    for interface in devices.interfaces:
        complete_interface(domain, interface, platform)
    for hostdev in devices.hostdevs:
        complete_hostdev(domain, hostdev, platform)
    for position, video in enumerate(devices.videos):
        complete_video(domain, video, platform, is_first=position == 0)
    for controller in devices.controllers:
        complete_controller(domain, controller, platform, is_new=is_new)
    for character in devices.characters():
        complete_source(character)
    complete_serials(domain, platform)
    for console in devices.consoles:
        if console.target is not None and console.target.type in (None, "none"):
            console.target.type = "serial"
    for channel in devices.channels:
        complete_channel(channel, platform, is_live=is_live)
    for graphics in devices.graphics:
        if not is_live:
            forget_socket(graphics, platform)
        complete_graphics(domain, graphics, is_live=is_live)
    for filesystem in devices.filesystems:
        if filesystem.accessmode is None and (filesystem.source is None or filesystem.source.socket is None):
            filesystem.accessmode = "passthrough"
        _complete_memory_filesystem(filesystem)
    for tpm in devices.tpms:
        if tpm.backend.type == "passthrough" and tpm.backend.device is None:
            tpm.backend.device = "/dev/tpm0"
    for rng in devices.rngs:
        complete_source(rng.backend)
        if rng.backend.model == "random" and rng.backend.path is None:
            rng.backend.path = "/dev/random"
    for sound in devices.sounds:
        sound.codecs = sound.codecs if sound.model in ("ich6", "ich9", "ich7") else []
    _complete_others(domain, platform, is_new=is_new)


def _complete_memory_filesystem(filesystem: Filesystem) -> None:
    """Say the size of one in memory, a container's, in KiB."""
    source = filesystem.source
    if filesystem.type == "ram" and source is not None and source.usage is not None:
        source.usage, source.units = Scaled(unit=source.units, value=source.usage).to_kib(), "KiB"


def _complete_others(domain: Domain, platform: Platform, *, is_new: bool) -> None:
    devices = domain.devices
    for shmem in devices.shmems:
        _complete_shmem(shmem)
    if devices.vsock is not None:
        _complete_vsock(devices.vsock, platform)
    for memory in devices.memories:
        _complete_memory_device(domain, memory, platform, is_new=is_new)
    if platform.is_qemu:
        for tpm in devices.tpms:
            _complete_tpm(domain, tpm)
        for panic in devices.panics:
            _complete_panic(domain, panic)


def _complete_memory_device(domain: Domain, memory: MemoryDevice, platform: Platform, *, is_new: bool) -> None:
    if memory.model == "virtio-pmem" and memory.access is None:
        memory.access = "shared"
    if arch_of(domain) not in PPC64:
        return
    if memory.model == "nvdimm" and memory.uuid is None:
        memory.uuid = platform.new_uuid()
    if is_new and platform.is_qemu:
        size = memory.target.size
        label = memory.target.label.size.to_kib() if memory.target.label is not None else 0
        if memory.model == "nvdimm":
            if size.value - label < _POWER_BLOCK:
                reason = "minimum target size for the NVDIMM must be 256MB plus the label size"
                raise ModelError(f"{domain.devices.path(memory)}/target/size", reason)
            size.value = (size.value - label) // _POWER_BLOCK * _POWER_BLOCK + label
        else:
            size.value = -(-size.value // _POWER_BLOCK) * _POWER_BLOCK


def _complete_panic(domain: Domain, panic: Panic) -> None:
    if panic.model not in (None, "default"):
        return
    if board_of(domain) == Board.PSERIES:
        panic.model = "pseries"
    else:
        panic.model = "s390" if arch_of(domain) in S390 else "isa"


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


def _complete_tpm(domain: Domain, tpm: Tpm) -> None:
    tpm.model = tpm.model or ("tpm-spapr" if arch_of(domain) in PPC64 else "tpm-tis")
    if tpm.backend.type == "emulator" and tpm.backend.version is None:
        is_new_kind = tpm.model in ("tpm-crb", "tpm-spapr") or board_of(domain) == Board.ARM_VIRT
        tpm.backend.version = "2.0" if is_new_kind else "1.2"
