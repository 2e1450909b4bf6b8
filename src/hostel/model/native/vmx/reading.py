"""A ``.vmx`` file as a domain document (``virVMXParseConfig``)."""

from __future__ import annotations

import math
from typing import Final

from hostel.model.domain.cpu import Cpu, Topology, Vcpu
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain, DomainType, GenerationId
from hostel.model.domain.memory import CurrentMemory, Memory, Memtune, MinGuarantee
from hostel.model.domain.os import Os, OsType
from hostel.model.domain.platform import Platform
from hostel.model.domain.tune import Cputune
from hostel.model.native.completing import NO_UUID, complete_read
from hostel.model.native.settings import refused, whole_number
from hostel.model.native.vmx.device_reading import (
    read_filesystems,
    read_interfaces,
    read_parallels,
    read_serials,
)
from hostel.model.native.vmx.disk_reading import read_disks
from hostel.model.native.vmx.entries import Entries, read_entries, unescape
from hostel.model.native.vmx.filename import FileNames, PlainFileNames
from hostel.model.numberset import format_numbers

PLATFORM: Final = Platform(arch="i686", host_arch="i686", wide_scsi=True)
_CONFIG_VERSION: Final = 8
_OLDEST: Final = 4  # virtualHW.version
_PROCESSORS: Final = 16384  # VIR_DOMAIN_CPUMASK_LEN
_SHARES: Final = {"low": 500, "normal": 1000, "high": 2000}  # for each virtual CPU
_SCREEN_MEMORY: Final = 4 * 1024 * 1024


def read_vmx(text: str, names: FileNames | None = None) -> Domain:
    """Read a file.

    Args:
        text: the file's bytes as UTF-8, with surrogates where they are none.
        names: what the names of files in it mean; by default, themselves.

    Raises:
        ModelError: it is no such file, or has what a document cannot have; the path is the entry's name.
    """
    entries = read_entries(text)
    names = names or PlainFileNames()
    version = _check_versions(entries)
    domain = Domain(type=DomainType.VMWARE, os=Os(type=OsType(value="hvm", arch=_arch(entries))))
    _read_identity(entries, domain)
    _read_memory(entries, domain)
    _read_processors(entries, domain)
    assert domain.os is not None
    if entries.boolean("smbios.reflecthost", default=False):
        domain.os.smbios = "host"
    domain.devices.graphics = _read_graphics(entries)
    read_disks(entries, names, version, domain)
    domain.devices.filesystems = read_filesystems(entries)
    domain.devices.interfaces = read_interfaces(entries)
    size = entries.number("svga.vramSize", _SCREEN_MEMORY)
    domain.devices.videos = [Video(model=VideoModel(type="vmvga", vram=max(math.ceil(size / 1024), 0)))]
    domain.devices.serials = read_serials(entries, names)
    domain.devices.parallels = read_parallels(entries, names)
    firmware = entries.text("firmware")
    if firmware is not None:
        if firmware != "efi":
            raise refused("firmware", f"has unknown value '{firmware}'; only 'efi' can be said in a document")
        domain.os.firmware = "efi"
    complete_read(domain, PLATFORM)
    return domain


def _check_versions(entries: Entries) -> int:
    version = entries.needed_number("config.version")
    if version != _CONFIG_VERSION:
        raise refused("config.version", f"Expecting it to be {_CONFIG_VERSION} but found {version}")
    hardware = entries.needed_number("virtualHW.version")
    if hardware < _OLDEST:
        raise refused("virtualHW.version", f"Expecting it to be {_OLDEST} or higher but found {hardware}")
    return hardware


def _arch(entries: Entries) -> str:
    return "x86_64" if (entries.text("guestOS") or "").endswith("-64") else "i686"


def _read_identity(entries: Entries, domain: Domain) -> None:
    domain.uuid = entries.uuid("uuid.bios") or NO_UUID
    name = entries.text("displayName") or ""
    domain.name = unescape("displayName", unescape("displayName", name, "%"), "|")
    first, second = (entries.number(key, 0) for key in ("vm.genid", "vm.genidX"))
    if first or second:
        digits = f"{first % 2**64:016x}{second % 2**64:016x}"
        value = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        domain.genid = GenerationId(value=value)
    note = entries.text("annotation")
    if note is not None:
        domain.description = unescape("annotation", note, "|")


def _read_memory(entries: Entries, domain: Domain) -> None:
    """Sizes are in MiB there."""
    size = entries.number("memsize", 32)
    if size <= 0 or size % 4 or size > 2**53:
        raise refused("memsize", f"Expecting an unsigned integer (multiple of 4) but found {size}")
    most = entries.number("sched.mem.max", size)
    least = max(entries.number("sched.mem.minsize", 0), 0)
    domain.memory = Memory(unit="KiB", value=size * 1024)
    domain.current_memory = CurrentMemory(unit="KiB", value=min(most if most >= 0 else size, size) * 1024)
    if least:
        domain.memtune = Memtune(min_guarantee=MinGuarantee(unit="KiB", value=min(least, size) * 1024))


def _read_processors(entries: Entries, domain: Domain) -> None:
    count = entries.number("numvcpus", 1)
    if not 0 < count < _PROCESSORS:
        raise refused("numvcpus", f"Expecting an unsigned integer greater than 0 but found {count}")
    domain.vcpu = Vcpu(value=count)
    cores = entries.number("cpuid.coresPerSocket", 1)
    if cores > 1:
        if count // cores < 1:
            raise refused("cpuid.coresPerSocket", "Expecting at most as many as 'numvcpus'")
        domain.cpu = Cpu(topology=Topology(sockets=count // cores, dies=1, cores=cores, threads=1))
    _read_affinity(entries, domain.vcpu)
    shares = entries.text("sched.cpu.shares")
    if shares is not None:
        level = _SHARES.get(shares.lower())
        value = count * level if level is not None else whole_number("sched.cpu.shares", shares, 0, 2**64 - 1)
        domain.cputune = Cputune(shares=value)


def _read_affinity(entries: Entries, vcpu: Vcpu) -> None:
    name = "sched.cpu.affinity"
    text = entries.text(name)
    if text is None or text.lower() == "all":
        return
    parts = text.split(",")
    if len(parts) < vcpu.value:
        reason = f"Expecting at least as many values as 'numvcpus' ({vcpu.value}) but found only {len(parts)} value(s)"
        raise refused(name, reason)
    vcpu.cpuset = format_numbers(frozenset(whole_number(name, part.strip(), 0, _PROCESSORS - 1) for part in parts))


def _read_graphics(entries: Entries) -> list[Graphics]:
    if not entries.boolean("RemoteDisplay.vnc.enabled", default=False):
        return []
    port = entries.number("RemoteDisplay.vnc.port", -1)
    if port > 65535:
        raise refused("RemoteDisplay.vnc.port", f"Expecting a port but found {port}")
    address = entries.text("RemoteDisplay.vnc.ip")
    graphics = Graphics(
        type=GraphicsType.VNC,
        port=port if port >= 0 else -1,
        autoport=port < 0,
        keymap=entries.text("RemoteDisplay.vnc.keymap"),
        passwd=entries.text("RemoteDisplay.vnc.password"),
        listens=[Listen(type="address", address=address)],
    )
    return [graphics]
