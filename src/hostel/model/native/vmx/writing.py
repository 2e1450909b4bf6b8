"""A domain document as a ``.vmx`` file (``virVMXFormatConfig``)."""

from __future__ import annotations

import math
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.video import Video
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import Platform
from hostel.model.native.completing import NO_UUID, parse_document
from hostel.model.native.vmx.device_writing import (
    write_filesystems,
    write_interfaces,
    write_parallels,
    write_serials,
)
from hostel.model.native.vmx.disk_writing import write_disks
from hostel.model.native.vmx.entries import EntryWriter, escape, format_uuid
from hostel.model.native.vmx.filename import FileNames, PlainFileNames
from hostel.model.native.vmx.reading import PLATFORM
from hostel.model.numberset import parse_numbers

HARDWARE_VERSION: Final = 7  # as libvirt writes for Workstation and Fusion: every product since 2009 runs it
_WITH_BRIDGES: Final = 7
_SCREEN_MEMORY: Final = 4096  # KiB
_LEVELS: Final = {500: "low", 1000: "normal", 2000: "high"}


def write_vmx(xml: str, names: FileNames | None = None, *, version: int = HARDWARE_VERSION) -> str:
    """Write a document as a file.

    Args:
        xml: the document.
        names: how the names of files are written; by default, as they are.
        version: of the virtual hardware.

    Raises:
        ModelError: it is no such document, or has what VMware cannot have; the path is the element's or the entry's.
    """
    domain = _prepare(xml, PLATFORM)
    names = names or PlainFileNames()
    writer = EntryWriter()
    writer.add(".encoding", "UTF-8")
    writer.add("config.version", 8)
    writer.add("virtualHW.version", version)
    _write_identity(domain, writer)
    _write_memory(domain, writer)
    _write_processors(domain, writer)
    for graphics in domain.devices.graphics:
        _write_graphics(domain, graphics, writer)
    has_scsi = write_disks(domain, names, writer)
    write_filesystems(domain, writer)
    write_interfaces(domain, version, writer)
    _write_screen(domain, writer)
    write_serials(domain, names, writer)
    write_parallels(domain, names, writer)
    if domain.os is not None and domain.os.firmware == "efi":
        writer.add("firmware", "efi")
    if version >= _WITH_BRIDGES:
        _write_bridges(writer, has_scsi=has_scsi)
    return writer.text()


def _prepare(xml: str, platform: Platform) -> Domain:
    domain = parse_document(xml, platform)
    if domain.type != DomainType.VMWARE:
        raise ModelError("/domain/@type", f"Expecting virt type to be 'vmware' but found '{domain.type}'")
    for video in domain.devices.videos:
        if video.model is not None and video.model.type == "default":
            video.model.type = "vmvga"
            video.model.vram = video.model.vram or _SCREEN_MEMORY
    return domain


def _write_identity(domain: Domain, writer: EntryWriter) -> None:
    assert domain.os is not None
    systems = {"i686": "other", "x86_64": "other-64"}
    arch = domain.os.type.arch or ""
    if arch not in systems:
        raise ModelError("/domain/os/type/@arch", f"Expecting 'i686' or 'x86_64' but found '{arch}'")
    writer.add("guestOS", systems[arch])
    if domain.os.smbios == "host":
        writer.add("smbios.reflecthost", True)
    elif domain.os.smbios not in (None, "emulate"):
        reason = f"Unsupported SMBIOS mode '{domain.os.smbios}'"
        raise ModelError("/domain/os/smbios/@mode", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if domain.uuid in (None, NO_UUID):
        writer.add("uuid.action", "create")
    else:
        writer.add("uuid.bios", format_uuid(domain.uuid or ""))
    writer.add("displayName", escape(escape(domain.name, "|", '"'), "%", "/\\"))
    if domain.description is not None:
        writer.add("annotation", escape(domain.description, "|", '"\r\n'))


def _write_memory(domain: Domain, writer: EntryWriter) -> None:
    """Sizes are in MiB there, and that of the memory a multiple of 4."""
    size = math.ceil(domain.memory.value / 4096) * 4096 if domain.memory is not None else 0
    writer.add("memsize", size // 1024)
    current = domain.current_memory.value if domain.current_memory is not None else size
    if current < size:
        writer.add("sched.mem.max", math.ceil(current / 1024))
    least = domain.memtune.min_guarantee if domain.memtune is not None else None
    if least is not None and least.value:
        writer.add("sched.mem.minsize", math.ceil(least.value / 1024))


def _write_processors(domain: Domain, writer: EntryWriter) -> None:
    assert domain.vcpu is not None
    count = domain.vcpu.value
    if domain.vcpu.current is not None:
        reason = "No support for domain XML entry 'vcpu' attribute 'current'"
        raise ModelError("/domain/vcpu/@current", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    writer.add("numvcpus", count)
    if domain.cpu is not None:
        writer.add("cpuid.coresPerSocket", _cores(domain, count))
    if domain.vcpu.cpuset:
        numbers = sorted(parse_numbers(domain.vcpu.cpuset))
        if len(numbers) < count:
            raise ModelError("/domain/vcpu/@cpuset", f"Expecting it to contain at least {count} CPU(s)")
        writer.add("sched.cpu.affinity", ",".join(map(str, numbers)))
    shares = domain.cputune.shares if domain.cputune is not None else None
    if shares is not None:
        each, rest = divmod(shares, count)
        writer.add("sched.cpu.shares", _LEVELS.get(each, shares) if not rest else shares)


def _cores(domain: Domain, count: int) -> int:
    cpu = domain.cpu
    assert cpu is not None
    if cpu.mode not in (None, "custom"):
        raise ModelError("/domain/cpu/@mode", f"Expecting domain XML CPU mode 'custom' but found '{cpu.mode}'")
    topology, path = cpu.topology, "/domain/cpu/topology"
    if topology is None or topology.threads != 1:
        raise ModelError(path, "Only 1 thread per core is supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    if topology.dies != 1:
        raise ModelError(path, "Only 1 die per socket is supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    if topology.sockets * topology.cores != count:
        reason = f"Expecting sockets times cores to be {count} but found {topology.sockets * topology.cores}"
        raise ModelError(path, reason)
    return topology.cores


def _write_graphics(domain: Domain, graphics: Graphics, writer: EntryWriter) -> None:
    if graphics.type != GraphicsType.VNC:
        path = domain.devices.path(graphics)
        reason = f"Unsupported graphics type '{graphics.type}'"
        raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    writer.add("RemoteDisplay.vnc.enabled", True)
    if not graphics.autoport:
        writer.add("RemoteDisplay.vnc.port", graphics.port or 0)
    if graphics.listens and graphics.listens[0].address:
        writer.add("RemoteDisplay.vnc.ip", graphics.listens[0].address)
    if graphics.keymap is not None:
        writer.add("RemoteDisplay.vnc.keymap", graphics.keymap)
    if graphics.passwd is not None:
        writer.add("RemoteDisplay.vnc.password", graphics.passwd)


def _write_screen(domain: Domain, writer: EntryWriter) -> None:
    videos: list[Video] = domain.devices.videos
    if len(videos) > 1:
        raise ModelError(domain.devices.path(videos[1]), "No support for multiple video devices")
    for video in videos:
        model, path = video.model, domain.devices.path(video)
        if model is None or model.type != "vmvga":
            found = model.type if model is not None else "none"
            raise ModelError(path, f"Unsupported video device type '{found}'", code=ErrorCode.CONFIG_UNSUPPORTED)
        if (model.heads or 1) > 1:
            reason = "Multi-head video devices are unsupported"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        # Windows wants whole multiples of 64 KiB.
        writer.add("svga.vramSize", math.ceil((model.vram or 0) / 64) * 64 * 1024)


def _write_bridges(writer: EntryWriter, *, has_scsi: bool) -> None:
    if has_scsi:
        writer.add("pciBridge0.present", True)
        for number in range(4, 8):
            writer.add(f"pciBridge{number}.present", True)
            writer.add(f"pciBridge{number}.virtualDev", "pcieRootPort")
            writer.add(f"pciBridge{number}.functions", 8)
    writer.add("vmci0.present", True)
