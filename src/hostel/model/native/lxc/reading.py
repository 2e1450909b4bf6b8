"""A container's ``config`` file as a domain document (``lxcParseConfigString``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.codec.assignments import Dialect, parse
from hostel.errors import ErrorCode
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.devices.character import CharacterType, Console, ConsoleTarget
from hostel.model.domain.devices.filesystem import Filesystem, FilesystemSource
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Capabilities, Features
from hostel.model.domain.memory import (
    HardLimit,
    Memory,
    Memtune,
    Numatune,
    NumatuneMemory,
    SoftLimit,
    SwapHardLimit,
)
from hostel.model.domain.os import Os, OsType
from hostel.model.domain.platform import Platform
from hostel.model.domain.tune import BlkioDevice, Blkiotune, Cputune, GroupMap, IdMap, UserMap
from hostel.model.native.completing import complete_read
from hostel.model.native.lxc.network import read_network
from hostel.model.native.settings import Settings, refused, whole_number
from hostel.model.numberset import format_numbers, parse_numbers
from hostel.units import scale_libvirt

PLATFORM: Final = Platform(emulator="/usr/lib/libvirt/libvirt_lxc")
_ARCHITECTURES: Final = {"x86": "i686", "amd64": "x86_64"}
_LEAST_MEMORY: Final = 64 * 1024  # KiB
_TERMINALS: Final = 4096  # more than any container has
_MOUNTED_ANYWAY: Final = (
    "/proc", "/proc/sys", "/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/sys", "/sys/fs/selinux", "/sys/kernel/security",
)  # fmt: skip
_BACKEND: Final = re.compile("(aufs|btrfs|loop|lvm|nbd|overlay|overlayfs|rbd|zfs):")
_MAPPING: Final = re.compile(r"\s*(\S)\s*(\d{1,10})\s+(\d{1,10})\s+(\d{1,10})", re.ASCII)
_SIZE: Final = re.compile(r"\s*(\d{1,20})\s*([A-Za-z%]*)", re.ASCII)
_DEVICE_LIMITS: Final = {
    "device_weight": "weight",
    "throttle.read_bps_device": "read_bytes_sec",
    "throttle.write_bps_device": "write_bytes_sec",
    "throttle.read_iops_device": "read_iops_sec",
    "throttle.write_iops_device": "write_iops_sec",
}


def read_lxc(text: str, platform: Platform = PLATFORM) -> Domain:
    """Read a file, in the words of LXC 2 or of LXC 3.

    Args:
        text: the file.
        platform: says which program runs containers.

    Raises:
        ModelError: it is no such file, or has what a document cannot have; the path is the setting's name.
    """
    settings = Settings(parse(text, Dialect.LXC))
    domain = Domain(
        type=DomainType.LXC,
        name=_either(settings, "lxc.uts.name", "lxc.utsname") or "unnamed",
        memory=Memory(unit="KiB", value=_LEAST_MEMORY),
        vcpu=Vcpu(value=1),
        os=Os(type=OsType(value="exe", arch=_arch(settings)), init="/sbin/init"),
    )
    domain.features = Features(capabilities=_capabilities(settings))
    _read_filesystems(settings, domain)
    has_none = read_network(settings, domain)
    domain.features.privnet = has_none
    _read_consoles(settings, domain)
    _read_mappings(settings, domain)
    _read_memory(settings, domain)
    _read_processors(settings, domain)
    domain.blkiotune = _blkiotune(settings)
    complete_read(domain, platform)
    return domain


def _either(settings: Settings, name: str, old: str) -> str:
    """What a setting says, which had another name before LXC 3."""
    value = settings.text(name)
    return value if value is not None else settings.needed_text(old)


def _arch(settings: Settings) -> str | None:
    arch = settings.text("lxc.arch")
    return None if not arch else _ARCHITECTURES.get(arch, arch)


def _capabilities(settings: Settings) -> Capabilities:
    capabilities = Capabilities(policy="allow")
    for name in (settings.text("lxc.cap.drop") or "").split(" "):
        if any(field.name == name and field.name != "policy" for field in Capabilities.FIELDS):
            setattr(capabilities, name, False)
    return capabilities


def _read_filesystems(settings: Settings, domain: Domain) -> None:
    root = _either(settings, "lxc.rootfs.path", "lxc.rootfs").removeprefix("dir:")
    if _BACKEND.match(root):
        reason = f"'{root}' is neither a directory nor a device"
        raise refused("lxc.rootfs.path", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    domain.devices.filesystems.append(_filesystem(root, "/"))
    for name in ("lxc.mount.fstab", "lxc.mount"):
        if settings.value(name) is not None:
            reason = "lxc.mount.fstab or lxc.mount found, use lxc.mount.entry lines instead"
            raise refused(name, reason, code=ErrorCode.ARGUMENT_UNSUPPORTED)
    for item in settings:
        if item.name == "lxc.mount.entry":
            _read_mount(str(item.value), domain)


def _filesystem(source: str, target: str) -> Filesystem:
    is_device = source.startswith("/dev/")
    where = FilesystemSource(dev=source) if is_device else FilesystemSource(dir=source)
    return Filesystem(type="block" if is_device else "mount", accessmode="passthrough", source=where, target=target)


def _read_mount(line: str, domain: Domain) -> None:
    """Read a line as in ``/etc/fstab``."""
    name = "lxc.mount.entry"
    parts = line.split()
    if len(parts) < 4:
        raise refused(name, f"'{line}' is no line of source, target, type and options")
    source, target, kind, options = parts[0], parts[1], parts[2], parts[3].split(",")
    target = target if target.startswith("/") else f"/{target}"
    if target in _MOUNTED_ANYWAY:
        return
    filesystem = _filesystem(source, target)
    if kind == "tmpfs":
        size = next((option[5:] for option in options if option.startswith("size=")), None)
        if size is None:
            raise refused(name, "missing tmpfs size, set the size option")
        filesystem.type = "ram"
        filesystem.source = FilesystemSource(usage=_size(name, size) // 1024, units="KiB")
    filesystem.readonly = "ro" in options
    domain.devices.filesystems.append(filesystem)


def _size(name: str, text: str) -> int:
    """A size in bytes."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise refused(name, f"failed to convert size: '{text}'")
    if found[2] == "%":
        raise refused(name, f"can't convert relative size: '{text}'")
    try:
        return scale_libvirt(int(found[1]), found[2] or "bytes")
    except (ValueError, OverflowError) as error:
        raise refused(name, f"failed to convert size: '{text}': {error}") from None


def _read_consoles(settings: Settings, domain: Domain) -> None:
    name = "lxc.tty.max" if settings.value("lxc.tty.max") is not None else "lxc.tty"
    text = settings.text(name)
    count = whole_number(name, text, high=_TERMINALS) if text is not None else 0
    domain.devices.consoles = [
        Console(type=CharacterType.PTY, target=ConsoleTarget(type="lxc", port=port)) for port in range(count)
    ]


def _read_mappings(settings: Settings, domain: Domain) -> None:
    maps = IdMap()
    for item in settings:
        if item.name not in ("lxc.idmap", "lxc.id_map"):
            continue
        found = _MAPPING.match(str(item.value))
        if found is None or found[1] not in "ug":
            raise refused(item.name, f"invalid {item.name}: '{item.value}'")
        target, start, count = (int(number) for number in found.groups()[1:])
        # LXC names the number in the container first.
        if found[1] == "u":
            maps.uids.append(UserMap(start=target, target=start, count=count))
        else:
            maps.gids.append(GroupMap(start=target, target=start, count=count))
    domain.idmap = maps if maps.uids or maps.gids else None


def _read_memory(settings: Settings, domain: Domain) -> None:
    prefix = "lxc.cgroup.memory."
    sizes: dict[str, int] = {}
    for key in ("limit_in_bytes", "soft_limit_in_bytes", "memsw.limit_in_bytes"):
        text = settings.text(prefix + key)
        if text is not None:
            sizes[key] = _size(prefix + key, text) // 1024
    if not sizes:
        return
    tune = domain.memtune = Memtune()
    if "limit_in_bytes" in sizes:
        domain.memory = Memory(unit="KiB", value=sizes["limit_in_bytes"])
        tune.hard_limit = HardLimit(unit="KiB", value=sizes["limit_in_bytes"])
    if "soft_limit_in_bytes" in sizes:
        tune.soft_limit = SoftLimit(unit="KiB", value=sizes["soft_limit_in_bytes"])
    if "memsw.limit_in_bytes" in sizes:
        tune.swap_hard_limit = SwapHardLimit(unit="KiB", value=sizes["memsw.limit_in_bytes"])


def _numbers(name: str, text: str) -> str:
    try:
        return format_numbers(parse_numbers(text))
    except ValueError as error:
        raise refused(name, f"'{text}' is no set of numbers: {error}") from None


def _read_processors(settings: Settings, domain: Domain) -> None:
    tune = Cputune()
    for key, field, low in (("shares", "shares", 0), ("cfs_quota_us", "quota", -1), ("cfs_period_us", "period", 0)):
        name = f"lxc.cgroup.cpu.{key}"
        text = settings.text(name)
        if text is not None:
            setattr(tune, field, whole_number(name, text, low, 2**63 - 1))
    domain.cputune = tune if not tune.is_empty() else None
    cpus, nodes = (settings.text(f"lxc.cgroup.cpuset.{key}") for key in ("cpus", "mems"))
    if cpus is not None and domain.vcpu is not None:
        domain.vcpu.cpuset = _numbers("lxc.cgroup.cpuset.cpus", cpus)
    if nodes is not None:
        nodeset = _numbers("lxc.cgroup.cpuset.mems", nodes)
        domain.numatune = Numatune(memory=NumatuneMemory(mode="strict", nodeset=nodeset))


def _blkiotune(settings: Settings) -> Blkiotune | None:
    prefix = "lxc.cgroup.blkio."
    tune = Blkiotune()
    weight = settings.text(f"{prefix}weight")
    if weight is not None:
        tune.weight = whole_number(f"{prefix}weight", weight, 0, 2**32 - 1)
    devices: dict[str, BlkioDevice] = {}
    for item in settings:
        field = _DEVICE_LIMITS.get(item.name.removeprefix(prefix)) if item.name.startswith(prefix) else None
        if field is None:
            continue
        parts = str(item.value).split()
        if len(parts) < 2:
            raise refused(item.name, f"invalid {item.name} value: '{item.value}'")
        path = f"/dev/block/{parts[0]}"
        device = devices.setdefault(path, BlkioDevice(path=path))
        most = 2**64 - 1 if field.endswith("bytes_sec") else 2**32 - 1
        setattr(device, field, whole_number(item.name, parts[1], 0, most))
    tune.devices = list(devices.values())
    return tune if weight is not None or devices else None
