"""A domain document as Xen's configuration (``xenFormatXL``, ``xenFormatXM``)."""

from __future__ import annotations

import math
from typing import Final

from hostel.codec.assignments import Value
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Cell
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import BootDevice
from hostel.model.native.xen.character import write_character
from hostel.model.native.xen.cpuid import xen_feature
from hostel.model.native.xen.device_writing import (
    write_cards,
    write_host_devices,
    write_pointers,
    write_screen,
    write_xl_devices,
)
from hostel.model.native.xen.disk_writing import write_xl_disks, write_xm_disks
from hostel.model.native.xen.document import PVH, is_hvm, kind_of, parse_document
from hostel.model.native.xen.entries import EntryWriter
from hostel.model.native.xen.vnuma import distance

_LETTERS: Final = {BootDevice.FD: "a", BootDevice.CDROM: "d", BootDevice.NETWORK: "n", BootDevice.HD: "c"}
_TSC_MODES: Final = {"native": "native", "paravirt": "native_paravirt", "emulate": "always_emulate"}
_NESTING: Final = ("vmx", "svm")
_POLICIES: Final = {"force": "1", "require": "1", None: "1", "optional": "x", "disable": "0", "forbid": "0"}


def write_xl(xml: str) -> str:
    """Write a document as a file of xl's.

    Raises:
        ModelError: it is no such document, or has what Xen cannot have; the path is the element's or the entry's.
    """
    domain = parse_document(xml)
    writer = EntryWriter()
    _write_common(domain, writer, card_type="vif")
    _write_serials(domain, writer)
    _write_sounds(domain, writer)
    _write_xl_os(domain, writer)
    _write_cpuid(domain, writer)
    _write_vnuma(domain, writer)
    _write_limits(domain, writer)
    write_xl_disks(domain, writer)
    write_xl_devices(domain, writer)
    return writer.text()


def write_xm(xml: str) -> str:
    """Write a document as a file of xm's.

    Raises:
        ModelError: as :func:`write_xl`.
    """
    domain = parse_document(xml)
    serials = domain.devices.serials
    if len(serials) > 1 or any(serial.target is not None and serial.target.port for serial in serials):
        reason = "Multiple serial devices are not supported by xen-xm"
        raise ModelError(domain.devices.path(serials[-1]), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    writer = EntryWriter()
    _write_common(domain, writer, card_type="netfront")
    _write_serials(domain, writer)
    _write_sounds(domain, writer)
    assert domain.os is not None
    if is_hvm(domain):
        writer.add("builder", "hvm")
        writer.add("kernel", domain.os.loader.path if domain.os.loader is not None else None)
        writer.add("boot", _boot(domain))
    else:
        _write_kernel(domain, writer, command_line="extra")
    write_xm_disks(domain, writer)
    write_pointers(domain, writer, most=1)
    return writer.text()


def _write_common(domain: Domain, writer: EntryWriter, *, card_type: str) -> None:
    writer.add("name", domain.name)
    writer.add("uuid", domain.uuid)
    memory = domain.memory.value if domain.memory is not None else 0
    current = domain.current_memory.value if domain.current_memory is not None else memory
    writer.add("maxmem", math.ceil(memory / 1024))
    writer.add("memory", math.ceil(current / 1024))
    if domain.vcpu is not None:
        if domain.vcpu.current is not None:
            writer.add("maxvcpus", domain.vcpu.value)
        writer.add("vcpus", domain.vcpu.current or domain.vcpu.value)
        writer.add("cpus", domain.vcpu.cpuset)
    _write_features(domain, writer)
    _write_timers(domain, writer)
    _write_clock(domain, writer)
    for name in ("on_poweroff", "on_reboot", "on_crash"):
        writer.add(name, getattr(domain, name))
    writer.add("device_model_override", domain.devices.emulator)
    write_screen(domain, writer)
    write_cards(domain, writer, card_type=card_type)
    write_host_devices(domain, writer)


def _write_features(domain: Domain, writer: EntryWriter) -> None:
    features = domain.features
    xen = features.xen if features is not None else None
    if is_hvm(domain):
        writer.add("pae", features is not None and features.pae)
        writer.add("acpi", features is not None and features.acpi)
        writer.add("apic", features is not None and features.apic is not None)
        if features is not None and features.hap is False:
            writer.add("hap", False)
        writer.add("viridian", features is not None and features.viridian)
    elif xen is not None and xen.e820_host:
        writer.add("e820_host", True)
    if xen is not None and xen.passthrough is not None and xen.passthrough.state:
        writer.add("passthrough", xen.passthrough.mode or "enabled")


def _write_timers(domain: Domain, writer: EntryWriter) -> None:
    for position, timer in enumerate(domain.clock.timers if domain.clock is not None else [], 1):
        if timer.name == "tsc":
            writer.add("tsc_mode", _TSC_MODES.get(timer.mode or "", "default"))
        elif timer.name == "hpet" and is_hvm(domain):
            writer.add("hpet", timer.present is not False)
        else:
            path = f"/domain/clock/timer[{position}]/@name"
            reason = f"unsupported timer type (name) '{timer.name}'"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _write_clock(domain: Domain, writer: EntryWriter) -> None:
    clock = domain.clock
    offset = clock.offset if clock is not None else "utc"
    known = ("utc", "localtime", "variable") if is_hvm(domain) else ("utc", "localtime")
    if clock is None or offset not in known:
        reason = f"unsupported clock offset='{offset}'"
        raise ModelError("/domain/clock/@offset", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    is_local = offset == "localtime"
    if is_hvm(domain):
        adjustment = "0"
        if offset == "variable":
            adjustment, is_local = clock.adjustment or "0", clock.basis == "localtime"
        elif clock.adjustment == "reset":
            reason = "unsupported clock adjustment='reset'"
            raise ModelError("/domain/clock/@adjustment", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        writer.add("rtc_timeoffset", _adjustment(adjustment))
    writer.add("localtime", is_local)


def _adjustment(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ModelError("/domain/clock/@adjustment", f"'{text}' is no number of seconds") from None


def _write_serials(domain: Domain, writer: EntryWriter) -> None:
    if not is_hvm(domain):
        return
    devices = domain.devices
    parallels = [write_character(devices.path(item), item) for item in devices.parallels[:1]]
    writer.add("parallel", parallels[0] if parallels else "none")
    ports: dict[int, str] = {}
    for serial in devices.serials:
        port = serial.target.port if serial.target is not None and serial.target.port is not None else 0
        if port > 15:
            raise ModelError(devices.path(serial), f"Serial port index {port} out of [0..15] range")
        ports[port] = write_character(devices.path(serial), serial)
    if list(ports) in ([], [0]):
        writer.add("serial", ports.get(0, "none"))
    else:
        writer.add("serial", [ports.get(port, "none") for port in range(max(ports) + 1)])


def _write_sounds(domain: Domain, writer: EntryWriter) -> None:
    if is_hvm(domain) and domain.devices.sounds:
        writer.add("soundhw", ",".join(sound.model for sound in domain.devices.sounds))


def _boot(domain: Domain) -> str:
    return "".join(_LETTERS[device] for device in (domain.os.boot if domain.os is not None else [])) or "c"


def _write_kernel(domain: Domain, writer: EntryWriter, *, command_line: str) -> None:
    os = domain.os
    assert os is not None
    writer.add("bootloader", domain.bootloader)
    writer.add("bootargs", domain.bootloader_args)
    writer.add("kernel", os.kernel)
    writer.add("ramdisk", os.initrd)
    writer.add(command_line, os.cmdline)


def _write_xl_os(domain: Domain, writer: EntryWriter) -> None:
    os = domain.os
    assert os is not None
    if not is_hvm(domain):
        if kind_of(domain) == PVH:
            writer.add("type", "pvh")
        _write_kernel(domain, writer, command_line="cmdline")
        return
    writer.add("builder", "hvm")
    loader = os.loader
    if loader is not None and loader.type == "pflash" and loader.readonly:
        writer.add("bios", "ovmf")
    if os.acpi is not None and os.acpi.tables:
        writer.add("acpi_firmware", os.acpi.tables[0].path)
    writer.add("kernel", os.kernel)
    writer.add("ramdisk", os.initrd)
    writer.add("cmdline", os.cmdline)
    writer.add("boot", _boot(domain))
    if domain.cpu is not None and domain.cpu.mode == "host-passthrough":
        forbidden = {item.name for item in domain.cpu.features if item.policy in ("disable", "forbid")}
        writer.add("nestedhvm", forbidden.isdisjoint(_NESTING))


def _write_cpuid(domain: Domain, writer: EntryWriter) -> None:
    if domain.cpu is None or domain.cpu.mode != "host-passthrough":
        return
    features = [item for item in domain.cpu.features if item.name not in _NESTING]
    parts = [f"{xen_feature(item.name)}={_POLICIES[item.policy]}" for item in features]
    if parts:
        writer.add("cpuid", ",".join(["host", *parts]))


def _write_vnuma(domain: Domain, writer: EntryWriter) -> None:
    cells: list[Cell] = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    nodes: list[Value] = []
    for cell in cells:
        number = cell.id or 0
        distances = ",".join(str(distance(cell, other.id or 0)) for other in cells)
        if not cell.cpus:
            path = f"/domain/cpu/numa/cell[{number + 1}]/@cpus"
            reason = "Xen has no cell without processors"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        nodes.append(
            [f"pnode={number}", f"size={cell.memory // 1024}", f"vcpus={cell.cpus}", f"vdistances={distances}"]
        )
    writer.add("vnuma", nodes)


def _write_limits(domain: Domain, writer: EntryWriter) -> None:
    for controller in domain.devices.controllers:
        if controller.type == "xenbus":
            writer.add("max_event_channels", controller.max_event_channels or None)
            writer.add("max_grant_frames", controller.max_grant_frames or None)
