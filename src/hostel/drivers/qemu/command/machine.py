"""The whole command line: machine, processors, memory, boot, and then the devices (``qemuBuildCommandLine``)."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Mapping
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.qemu.command import (
    audio,
    character,
    controller,
    disk,
    display,
    filesystem,
    firmware,
    hostdev,
    memory,
    network,
    passage,
    peripheral,
    processor,
    security,
    sysinfo,
    tpm,
)
from hostel.drivers.qemu.command.context import Context, escape, option
from hostel.drivers.qemu.command.override import compatibility, overridden
from hostel.drivers.qemu.command.support import FIELDS, refuse_unknown
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.tuning.iothread import entries
from hostel.model.domain.clock import Clock, Timer
from hostel.model.domain.devices.address import SpaprVioAddress
from hostel.model.domain.devices.disk import DiskDevice
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Features, ring_size
from hostel.model.domain.os import BootDevice, Os
from hostel.model.domain.platform import X86, Board, arch_of, board_of
from hostel.units import MiB

_KINDS: Final = {
    BootDevice.HD: (DiskDevice.DISK, DiskDevice.LUN),
    BootDevice.CDROM: (DiskDevice.CDROM,),
    BootDevice.FD: (DiskDevice.FLOPPY,),
}
_SLEEP: Final = {Board.I440FX: "PIIX4_PM", Board.Q35: "ICH9-LPC"}
_AS_JSON: Final = ("-netdev", "-object")


def build(domain: Domain, context: Context, fields: Mapping[type[Element], frozenset[str]] = FIELDS) -> list[str]:
    """QEMU's command line for a live document: completed, with aliases, its volumes resolved to files.

    Sockets that are chosen here are written into the document.

    Args:
        domain: the document.
        context: what is not in it.
        fields: what of it is acted on (:mod:`~hostel.drivers.qemu.command.support`).

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU, or this driver, cannot do.
    """
    refuse_unknown(domain, fields)
    order = bootindexes(domain)
    argv = [context.emulator, "-name", _name(domain, context)]
    argv += [*compatibility(domain, context.settings), "-S"]
    argv += firmware.flash(domain, context)
    argv += ["-machine", _machine(domain, context), "-accel", _accelerator(domain)]
    argv += [*processor.arguments(domain, context.emulator), *firmware.arguments(domain)]
    argv += [*memory.arguments(domain, context), *memory.cells(domain), *_iothreads(domain)]
    argv += ["-uuid", domain.uuid or "", *_generation(domain), *sysinfo.arguments(domain, context)]
    argv += ["-no-user-config", "-nodefaults"]
    argv += ["-chardev", f"socket,id=charmonitor,path={escape(str(context.monitor))},server=on,wait=off"]
    argv += ["-mon", "chardev=charmonitor,id=monitor,mode=control"]
    argv += ["-chardev", f"socket,id=charevents,path={escape(str(context.events))},server=on,wait=off"]
    argv += ["-mon", "chardev=charevents,id=events,mode=control"]
    argv += [*_clock(domain.clock or Clock()), *_actions(domain), *_sleep(domain), *_management(domain)]
    argv += _boot(domain.os)
    argv += [*peripheral.iommu(domain), *controller.arguments(domain, order, context)]
    argv += [*memory.devices(domain, context), *peripheral.hubs(domain)]
    argv += [*disk.arguments(domain, context, order), *filesystem.arguments(domain, context, order)]
    argv += network.arguments(domain, context, order)
    argv += character.arguments(domain, context)
    argv += [*tpm.arguments(domain, context), *peripheral.inputs(domain)]
    argv += audio.backends(domain)
    argv += display.graphics(domain, context)
    argv += display.videos(domain, context)
    argv += audio.cards(domain)
    argv += [*passage.arguments(domain, context, order), *hostdev.arguments(domain, context, order)]
    argv += peripheral.watchdogs(domain)
    argv += peripheral.balloon(domain)
    argv += peripheral.rngs(domain, context)
    argv += [*peripheral.panics(domain), *_memory_of_firmware(domain)]
    if domain.features is not None and domain.features.vmcoreinfo:
        argv += option("-device", {"driver": "vmcoreinfo"})
    argv += security.arguments(domain, context)
    argv += _confinement(argv, context)
    argv += ["-msg", "timestamp=on"] if context.settings.timestamps else []
    if domain.qemu_commandline is not None:
        argv += [argument.value for argument in domain.qemu_commandline.arguments]
    return overridden(argv, domain)


def devices(domain: Domain, context: Context) -> list[str]:
    """What the command line has of firmware, memory and boot order, and of devices but for ports and screens."""
    order = bootindexes(domain)
    board = [*memory.machine_properties(domain), *security.machine_properties(domain, context)]
    board += firmware.machine_properties(domain)
    argv = [*firmware.flash(domain, context), "-machine", ",".join(board)]
    argv += [*memory.arguments(domain, context), *memory.cells(domain), *memory.devices(domain, context)]
    argv += [*firmware.arguments(domain), *_iothreads(domain), *_boot(domain.os), *sysinfo.arguments(domain, context)]
    argv += [*peripheral.iommu(domain), *controller.arguments(domain, order, context)]
    argv += [*peripheral.hubs(domain), *peripheral.panics(domain), *passage.arguments(domain, context, order)]
    argv += [*disk.arguments(domain, context, order), *filesystem.arguments(domain, context, order)]
    argv += network.arguments(domain, context, order)
    argv += security.arguments(domain, context)
    argv += [*audio.backends(domain), *display.videos(domain, context), *audio.cards(domain)]
    argv += [*peripheral.inputs(domain), *peripheral.watchdogs(domain), *peripheral.balloon(domain)]
    argv += [*peripheral.rngs(domain, context), *tpm.arguments(domain, context)]
    return overridden([*argv, *hostdev.arguments(domain, context, order)], domain)


def _name(domain: Domain, context: Context) -> str:
    process = f",process=qemu:{escape(domain.name)}" if context.settings.process_names else ""
    return f"guest={escape(domain.name)}{process},debug-threads=on"


def _confinement(argv: list[str], context: Context) -> list[str]:
    """What QEMU has the kernel refuse it, as far as it can and the host wants it."""
    if context.settings.sandbox is False:
        return ["-sandbox", "off"]
    if context.settings.sandbox and not context.is_confined:
        raise unsupported("seccomp_sandbox = 1 in qemu.conf, and this QEMU has no seccomp")
    return _sandbox(argv) if context.is_confined else []


def _sandbox(argv: list[str]) -> list[str]:
    """System calls that QEMU has no use for.

    A machine for which QEMU itself runs scripts, or the helper that connects to bridges, has none: the helper gets
    root's rights, which nobody gets behind such a filter.
    """
    given = [(word, json.loads(value)) for word, value in itertools.pairwise(argv) if word in _AS_JSON]
    for word, found in given:
        scripts = {found.get("script"), found.get("downscript")} - {None, "no"}
        if word == "-netdev" and (found["type"] == "bridge" or scripts):
            return []
    # Threads that fill memory go to its nodes by themselves.
    places_threads = any(found.get("qom-type") == "thread-context" for _, found in given)
    words = "on,obsolete=deny,elevateprivileges=deny,spawn=deny"
    return ["-sandbox", words if places_threads else f"{words},resourcecontrol=deny"]


def _machine(domain: Domain, context: Context) -> str:
    features = domain.features or Features()
    machine = domain.os.type.machine if domain.os is not None else None
    options = [escape(machine or "pc"), "usb=off"]
    if features.vmport is not None:
        options.append(f"vmport={'on' if features.vmport else 'off'}")
    if features.smm is not None and features.smm.state is not None:
        options.append(f"smm={'on' if features.smm.state else 'off'}")
    if features.ioapic is not None:
        options.append(f"kernel_irqchip={'split' if features.ioapic == 'qemu' else 'on'}")
    dump = domain.memory.dump_core if domain.memory is not None else None
    dump = context.settings.dump_guest_core if dump is None else dump
    options.append(f"dump-guest-core={'on' if dump else 'off'}")
    if not features.acpi and (arch_of(domain) in X86 or board_of(domain) == Board.ARM_VIRT):
        options.append("acpi=off")
    options += _power(features)
    if features.gic is not None and features.gic.version is not None:
        options.append(f"gic-version={features.gic.version}")
    if domain.devices.iommu is not None and domain.devices.iommu.model == "smmuv3":
        options.append("iommu=smmuv3")
    if (speaker := audio.speaker(domain)) is not None:
        options.append(f"pcspk-audiodev={speaker}")
    options += memory.machine_properties(domain)
    options += [*security.machine_properties(domain, context), *firmware.machine_properties(domain)]
    if domain.os is not None and domain.os.bios is not None and domain.os.bios.use_serial:
        options.append("graphics=off")  # the BIOS and its boot menu are on the serial port
    hpet = next((timer.present for timer in _timers(domain) if timer.name == "hpet"), None)
    if hpet is not None:
        options.append(f"hpet={'on' if hpet else 'off'}")
    return ",".join(options)


def _power(features: Features) -> list[str]:
    """What machines of POWER can be told."""
    table = features.hpt
    words = [f"resize-hpt={table.resizing}"] if table is not None and table.resizing is not None else []
    if table is not None and table.max_page_size is not None:
        words.append(f"cap-hpt-max-page-size={table.max_page_size.to_kib()}k")
    switches = (("htm", features.htm), ("nested-hv", features.nested_hv), ("ccf-assist", features.ccf_assist))
    words += [f"cap-{name}={'on' if value else 'off'}" for name, value in switches if value is not None]
    mended = (("cfpc", features.cfpc), ("sbbc", features.sbbc), ("ibs", features.ibs))
    return [*words, *(f"cap-{name}={value}" for name, value in mended if value is not None)]


def _memory_of_firmware(domain: Domain) -> list[str]:
    """Where the memory is in which firmware of POWER keeps its settings."""
    device = domain.devices.nvram
    if device is None or not isinstance(device.address, SpaprVioAddress) or device.address.reg is None:
        return []
    return ["-global", f"spapr-nvram.reg=0x{device.address.reg:x}"]


def _accelerator(domain: Domain) -> str:
    if domain.type == DomainType.KVM:
        size = ring_size(domain.features)
        return "kvm" if size is None else f"kvm,dirty-ring-size={size}"
    tcg = domain.features.tcg if domain.features is not None else None
    cache = tcg.tb_cache.to_bytes() if tcg is not None and tcg.tb_cache is not None else None
    return "tcg" if cache is None else f"tcg,tb-size={cache // MiB}"


def _management(domain: Domain) -> list[str]:
    """Memory of the system management mode."""
    management = domain.features.smm if domain.features is not None else None
    if management is None or management.tseg is None:
        return []
    return ["-global", f"mch.extended-tseg-mbytes={management.tseg.to_bytes() // MiB}"]


def _timers(domain: Domain) -> list[Timer]:
    return domain.clock.timers if domain.clock is not None else []


def _iothreads(domain: Domain) -> list[str]:
    argv: list[str] = []
    for entry in entries(domain):
        limits = {"thread-pool-min": entry.thread_pool_min, "thread-pool-max": entry.thread_pool_max}
        argv += option("-object", {"qom-type": "iothread", "id": f"iothread{entry.id}", **limits})
    if (main := domain.default_iothread) is not None:
        limits = {"thread-pool-min": main.thread_pool_min, "thread-pool-max": main.thread_pool_max}
        argv += option("-object", {"qom-type": "main-loop", "id": "main-loop", **limits})
    return argv


def _generation(domain: Domain) -> list[str]:
    if domain.genid is None or domain.genid.value is None:
        return []
    return option("-device", {"driver": "vmgenid", "guid": domain.genid.value, "id": "vmgenid0"})


def _clock(clock: Clock) -> list[str]:
    """What the guest's clock shows at the start, and what becomes of ticks that it misses."""
    now = datetime.datetime.now(datetime.UTC)
    if clock.offset == "variable":
        if clock.basis == "localtime":
            now = datetime.datetime.now()
        seconds = _adjustment(clock)
        base = (now + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    elif clock.offset == "absolute":
        base = datetime.datetime.fromtimestamp(clock.start or 0, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    else:
        # A time zone is told by the environment.
        base = "localtime" if clock.offset == "timezone" else clock.offset
    words, globals_ = f"base={base}", []
    for timer in clock.timers:
        if timer.name == "rtc":
            clocks = {"guest": ",clock=vm", "wall": ",clock=host", "realtime": ",clock=rt"}
            words += clocks.get(timer.track or "", "")
            words += ",driftfix=slew" if timer.tickpolicy == "catchup" else ""
        elif timer.name == "pit" and timer.tickpolicy in ("delay", "discard"):
            globals_ += ["-global", f"kvm-pit.lost_tick_policy={timer.tickpolicy}"]
    return ["-rtc", words, *globals_]


def _adjustment(clock: Clock) -> int:
    try:
        return 0 if clock.adjustment in (None, "reset") else int(clock.adjustment or "0")
    except ValueError:
        raise unsupported(f"<clock adjustment='{clock.adjustment}'>; write seconds") from None


def _actions(domain: Domain) -> list[str]:
    return ["-no-reboot"] if domain.on_reboot == "destroy" else []


def _sleep(domain: Domain) -> list[str]:
    owner = _SLEEP.get(board_of(domain))
    if domain.pm is None or owner is None:
        return []
    argv: list[str] = []
    for name, enabled in (("s3", domain.pm.suspend_to_mem), ("s4", domain.pm.suspend_to_disk)):
        if enabled is not None:
            argv += ["-global", f"{owner}.disable_{name}={0 if enabled else 1}"]
    return argv


def _boot(os: Os | None) -> list[str]:
    if os is None:
        return []
    options: list[str] = []
    if os.bootmenu is not None:
        options.append(f"menu={'on' if os.bootmenu.enable else 'off'}")
        if os.bootmenu.timeout is not None:
            options.append(f"splash-time={os.bootmenu.timeout}")
    if os.bios is not None and os.bios.reboot_timeout is not None:
        options.append(f"reboot-timeout={os.bios.reboot_timeout}")
    options.append("strict=on")
    argv = ["-boot", ",".join(options)]
    for name, value in (("-kernel", os.kernel), ("-initrd", os.initrd), ("-append", os.cmdline), ("-dtb", os.dtb)):
        if value:
            argv += [name, value]
    for table in os.acpi.tables if os.acpi is not None else []:
        argv += ["-acpitable", f"sig={table.type.upper()},file={escape(table.path or '')}"]
    return argv


def bootindexes(domain: Domain) -> dict[int, int]:
    """Each bootable device's place, by ``id()``: its ``<boot order>``, or the first device of each ``<boot dev>``."""
    devices = domain.devices
    explicit = {id(device): device.boot.order for device in devices.bootable() if device.boot is not None}
    if explicit:
        return explicit
    order: dict[int, int] = {}
    for position, kind in enumerate((domain.os.boot if domain.os is not None else None) or [BootDevice.HD], 1):
        if kind == BootDevice.NETWORK:
            first = next(iter(devices.interfaces), None)
            if first is not None:
                order[id(first)] = position
        else:
            drive = next((item for item in devices.disks if item.device in _KINDS[kind]), None)
            if drive is not None:
                order[id(drive)] = position
    return order
