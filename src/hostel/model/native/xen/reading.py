"""Xen's configuration as a domain document (``xenParseXL``, ``xenParseXM``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.clock import Clock, Timer
from hostel.model.domain.cpu import Cell, Cpu, CpuFeature, Distances, Numa, Sibling, Vcpu
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Apic, Features, Xen, XenPassthrough
from hostel.model.domain.memory import CurrentMemory, Memory
from hostel.model.domain.os import AcpiTable, BootDevice, Loader, Os, OsAcpi, OsType
from hostel.model.native.settings import refused, whole_number
from hostel.model.native.xen.cpuid import document_feature
from hostel.model.native.xen.device_reading import read_devices, read_xl_devices
from hostel.model.native.xen.disk_reading import read_xl_disks, read_xm_disks
from hostel.model.native.xen.document import HVM, PV, PVH, finish_read, is_hvm
from hostel.model.native.xen.entries import Entries, read_entries
from hostel.model.numberset import format_numbers, parse_numbers

OVMF: Final = "/usr/lib/xen/boot/ovmf.bin"
_HVMLOADER: Final = "/usr/lib/xen/boot/hvmloader"
_ACTIONS: Final = (
    "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart",
)  # fmt: skip
_TSC_MODES: Final = {"always_emulate": "emulate", "native": "native", "native_paravirt": "paravirt"}
_BOOT: Final = {"a": BootDevice.FD, "d": BootDevice.CDROM, "n": BootDevice.NETWORK}
_LEAST_MEMORY: Final = 128  # MiB, of a domain that does not say
_POLICIES: Final = {"1": "force", "0": "disable", "x": "optional", "k": "optional", "s": "optional"}


def read_xl(text: str) -> Domain:
    """Read a file of xl's.

    Raises:
        ModelError: it is no such file, or has what a document cannot have; the path is the entry's name.
    """
    entries = read_entries(text)
    domain = _read_common(entries)
    read_devices(entries, domain, card_type="vif")
    _read_xl_os(entries, domain)
    _read_vnuma(entries, domain)
    _read_cpuid(entries, domain)
    read_xl_disks(entries, domain)
    read_xl_devices(entries, domain)
    finish_read(domain)
    return domain


def read_xm(text: str) -> Domain:
    """Read a file of xm's.

    Raises:
        ModelError: as :func:`read_xl`.
    """
    entries = read_entries(text)
    domain = _read_common(entries)
    if isinstance(entries.value("serial"), list):
        reason = "Multiple serial devices are not supported by xen-xm"
        raise refused("serial", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    read_devices(entries, domain, card_type="netfront")
    assert domain.os is not None
    if is_hvm(domain):
        domain.os.loader = Loader(path=entries.needed_text("kernel"))
        domain.os.boot = _boot(entries)
    else:
        _read_kernel(entries, domain.os, domain)
    read_xm_disks(entries, domain)
    finish_read(domain)
    return domain


def _read_common(entries: Entries) -> Domain:
    kind = _kind(entries)
    domain = Domain(
        type=DomainType.XEN,
        name=entries.needed_text("name"),
        uuid=entries.uuid("uuid"),
        os=Os(type=OsType(value=kind, arch="x86_64")),
    )
    memory = entries.number("memory", _LEAST_MEMORY)
    domain.memory = Memory(unit="KiB", value=entries.number("maxmem", memory) * 1024)
    domain.current_memory = CurrentMemory(unit="KiB", value=memory * 1024)
    for name, default in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "restart")):
        action = entries.text(name) or default
        if action not in _ACTIONS:
            raise refused(name, f"unexpected value {action} for {name}")
        setattr(domain, name, action)
    _read_processors(entries, domain)
    _read_features(entries, domain)
    _read_clock(entries, domain)
    domain.devices.emulator = entries.text("device_model_override")
    return domain


def _kind(entries: Entries) -> str:
    kinds = {"pv": PV, "pvh": PVH, "hvm": HVM}
    kind = entries.text("type")
    if kind is None:
        return HVM if entries.text("builder") == "hvm" else PV
    if kind not in kinds:
        raise refused("type", f"type {kind} is not supported", code=ErrorCode.CONFIG_UNSUPPORTED)
    return kinds[kind]


def _read_processors(entries: Entries, domain: Domain) -> None:
    count = entries.number("vcpus", 1, 4096)
    most = entries.number("maxvcpus", count, 4096)
    if not 0 < count <= most:
        raise refused("vcpus", f"Expecting 1 to {most} but found {count}")
    domain.vcpu = Vcpu(value=most, current=count if count < most else None)
    cpus = entries.text("cpus")
    if cpus is not None:
        domain.vcpu.cpuset = _numbers("cpus", cpus)


def _numbers(name: str, text: str) -> str:
    try:
        return format_numbers(parse_numbers(text))
    except ValueError as error:
        raise refused(name, f"'{text}' is no set of numbers: {error}", code=ErrorCode.INVALID_ARG) from None


def _read_features(entries: Entries, domain: Domain) -> None:
    features = Features()
    passthrough = entries.text("passthrough")
    if passthrough is not None:
        if passthrough not in ("disabled", "enabled", "sync_pt", "share_pt"):
            raise refused("passthrough", f"Invalid passthrough mode {passthrough}", code=ErrorCode.CONF_SYNTAX)
        mode = passthrough if passthrough.endswith("_pt") else None
        if passthrough != "disabled":
            features.xen = Xen(passthrough=XenPassthrough(state=True, mode=mode))
    if is_hvm(domain):
        features.pae = entries.boolean("pae", default=True)
        features.acpi = entries.boolean("acpi", default=True)
        features.apic = Apic() if entries.boolean("apic", default=True) else None
        features.hap = None if entries.boolean("hap", default=True) else False
        features.viridian = entries.boolean("viridian", default=False)
    elif entries.boolean("e820_host", default=False):
        features.xen = features.xen or Xen()
        features.xen.e820_host = True
    domain.features = features if not features.is_empty() else None


def _read_clock(entries: Entries, domain: Domain) -> None:
    is_local = entries.boolean("localtime", default=False)
    timers: list[Timer] = []
    mode = entries.text("tsc_mode")
    if mode is not None:
        timers.append(Timer(name="tsc", present=True, mode=_TSC_MODES.get(mode, "auto")))
    if not is_hvm(domain):
        domain.clock = Clock(offset="localtime" if is_local else "utc", timers=timers)
        return
    if entries.value("hpet") is not None:
        timers.append(Timer(name="hpet", present=entries.boolean("hpet", default=False)))
    offset = entries.value("rtc_timeoffset")
    adjustment = whole_number("rtc_timeoffset", str(offset)) if isinstance(offset, int | str) else 0
    basis = "localtime" if is_local else "utc"
    domain.clock = Clock(offset="variable", adjustment=str(adjustment), basis=basis, timers=timers)


def _boot(entries: Entries) -> list[BootDevice]:
    """What to boot, letter by letter: a floppy, the disk, a CD, the network."""
    return [_BOOT.get(letter, BootDevice.HD) for letter in (entries.text("boot") or "c")[:4]]


def _command_line(entries: Entries) -> str | None:
    """The kernel's; before ``cmdline`` it was in two parts."""
    whole, root, extra = (entries.text(name) for name in ("cmdline", "root", "extra"))
    if whole is not None:
        return whole
    parts = [part for part in (f"root={root}" if root is not None else None, extra) if part is not None]
    return " ".join(parts) if parts else None


def _read_kernel(entries: Entries, os: Os, domain: Domain) -> None:
    if not is_hvm(domain):
        domain.bootloader = entries.text("bootloader")
        domain.bootloader_args = entries.text("bootargs")
    os.kernel, os.initrd = entries.text("kernel"), entries.text("ramdisk")
    os.cmdline = _command_line(entries)


def _read_xl_os(entries: Entries, domain: Domain) -> None:
    os = domain.os
    assert os is not None
    _read_kernel(entries, os, domain)
    if not is_hvm(domain):
        return
    if entries.text("bios") == "ovmf":
        os.loader = Loader(type="pflash", readonly=True, path=OVMF)
    else:
        os.loader = Loader(path=_HVMLOADER)
    table = entries.text("acpi_firmware")
    if table is not None:
        os.acpi = OsAcpi(tables=[AcpiTable(type="slic", path=table)])
    os.boot = _boot(entries)
    if entries.value("nestedhvm") is not None:
        domain.cpu = Cpu(mode="host-passthrough")
        if not entries.boolean("nestedhvm", default=False):
            domain.cpu.features.append(CpuFeature(policy="disable", name="vmx"))


def _read_cpuid(entries: Entries, domain: Domain) -> None:
    text = entries.text("cpuid")
    if text is None:
        return
    cpu = domain.cpu = domain.cpu or Cpu(mode="host-passthrough")
    first, *parts = text.split(",")
    if first != "host":
        reason = f"cpuid starting with {first} is not supported, only libxl format is"
        raise refused("cpuid", reason, code=ErrorCode.CONF_SYNTAX)
    for part in parts:
        name, _, value = part.partition("=")
        if not name or value not in _POLICIES:
            raise refused("cpuid", f"Invalid libxl cpuid value: {part}", code=ErrorCode.CONF_SYNTAX)
        feature = CpuFeature(policy=_POLICIES[value], name=document_feature(name))
        if any(other.name == feature.name for other in cpu.features):
            raise refused("cpuid", f"CPU feature '{feature.name}' specified more than once")
        cpu.features.append(feature)


def _read_vnuma(entries: Entries, domain: Domain) -> None:
    nodes = entries.value("vnuma")
    if not isinstance(nodes, list) or not nodes:
        return
    cells = [_cell(position, node, len(nodes)) for position, node in enumerate(nodes)]
    count = sum(len(parse_numbers(cell.cpus or "")) for cell in cells)
    if domain.vcpu is not None and domain.vcpu.value < count:
        reason = f"vnuma configuration contains {count} vcpus, which is greater than {domain.vcpu.value} maxvcpus"
        raise refused("vnuma", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    cpu = domain.cpu = domain.cpu or Cpu()
    cpu.numa = Numa(cells=cells)


def _cell(position: int, node: object, count: int) -> Cell:
    """A cell of ``["pnode=0", "size=1024", "vcpus=0-1", "vdistances=10,20"]``."""
    words: dict[str, str] = {}
    for item in node if isinstance(node, list) else ():
        key, _, value = str(item).partition("=")
        if value:
            words[key] = value
    if not {"pnode", "size", "vcpus"} <= words.keys():
        raise refused("vnuma", f"Incomplete vnuma configuration for vnode {position}", code=ErrorCode.CONF_SYNTAX)
    if unknown := words.keys() - {"pnode", "size", "vcpus", "vdistances"}:
        reason = f"Invalid vnuma configuration for vnode {position}: {', '.join(sorted(unknown))}"
        raise refused("vnuma", reason, code=ErrorCode.CONF_SYNTAX)
    whole_number("vnuma", words["pnode"], 0, count - 1)
    cell = Cell(
        id=position,
        cpus=_numbers("vnuma", words["vcpus"]),
        memory=whole_number("vnuma", words["size"], 1, 2**53) * 1024,
        unit="KiB",
    )
    if "vdistances" in words:
        values = [whole_number("vnuma", part, 10, 255) for part in words["vdistances"].split(",")]
        if len(values) != count:
            reason = f"vnode {position} has {len(values)} distances to {count} vnodes"
            raise refused("vnuma", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        cell.distances = Distances(siblings=[Sibling(id=other, value=value) for other, value in enumerate(values)])
    return cell
