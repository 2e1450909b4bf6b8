"""Completing a document: what libvirt fills in before it stores one (``domain_postparse.c``, ``qemu_domain.c``).

>>> from hostel.model.domain.platform import Platform
>>> os = "<os><type>hvm</type></os>"
>>> domain = Domain.parse(f"<domain type='qemu'><name>web</name><memory>65536</memory>{os}</domain>")
>>> complete(domain, Platform(arch="x86_64"))
>>> domain.on_reboot, domain.os.boot, domain.vcpu.value
('restart', [<BootDevice.HD: 'hd'>], 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hostel.codec.xml import Element
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain import vcpus
from hostel.model.domain.clock import Clock
from hostel.model.domain.completing.character import complete_serials
from hostel.model.domain.completing.clock import complete_clock
from hostel.model.domain.completing.controller import complete_controller
from hostel.model.domain.completing.display import complete_video
from hostel.model.domain.completing.numa import complete_numa, fill_cells
from hostel.model.domain.completing.processor import complete_cpu, complete_qemu_cpu
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.device_defaults import arrange_devices, complete_devices
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.paravirtual import ShmemSize
from hostel.model.domain.devices.redirection import RedirectionFilter
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Features, Gic, TopSegment
from hostel.model.domain.implicit import (
    add_implicit_devices,
    add_qemu_devices,
    add_scsi_controllers,
    mirror_consoles,
    number_controllers,
)
from hostel.model.domain.memory import CurrentMemory, HugePage, Memory
from hostel.model.domain.os import BootDevice, FirmwareFeature, Nvram
from hostel.model.domain.placing.pci import assign_pci
from hostel.model.domain.placing.ports import (
    assign_ccid,
    assign_memory_slots,
    assign_usb,
    assign_virtio_serial,
    check_usb,
)
from hostel.model.domain.placing.virtio import assign_channels, assign_registers, choose_virtio_transport
from hostel.model.domain.platform import Board, Platform, board_of
from hostel.model.domain.tune import (
    PERF_EVENTS,
    Cputune,
    IoThread,
    IoThreadScheduler,
    VcpuScheduler,
)
from hostel.model.numberset import format_numbers, parse_numbers
from hostel.model.scaled import Scaled
from hostel.units import KiB

_UNLIMITED: Final = (2**63 - 1) >> 10  # VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, in KiB


def complete(domain: Domain, platform: Platform, *, is_new: bool = True, is_live: bool = False) -> None:
    """Fill in what a document leaves out, in place, in libvirt's order.

    What only changes a machine's hardware is filled in where the domain ``is_new``, not where it exists already and its
    document is read once more (``VIR_DOMAIN_DEF_PARSE_ABI_UPDATE``).

    Raises:
        ModelError: something written is in the way of it.
    """
    if domain.uuid is None:
        domain.uuid = platform.new_uuid()
    if domain.genid is not None and domain.genid.value is None:
        domain.genid.value = platform.new_uuid()
    check_usb(domain)
    _normalise_sizes(domain)
    _complete_machine(domain, platform)
    _complete_small(domain)
    _complete_labels(domain, platform, is_live=is_live)
    number_controllers(domain)
    arrange_devices(domain)
    add_scsi_controllers(domain)
    if domain.cpu is not None:
        complete_cpu(domain.cpu)
    complete_numa(domain)
    if platform.is_qemu:
        _complete_nvram(domain, platform)
        add_qemu_devices(domain, platform)
        _canonicalise_machine(domain, platform)
        complete_qemu_cpu(domain, platform)
        _complete_gic(domain, platform)
        fill_cells(domain)
    complete_devices(domain, platform, is_new=is_new, is_live=is_live)
    _complete_memory(domain, is_new=is_new)
    _complete_boot(domain)
    assign_ccid(domain)
    add_implicit_devices(domain)
    for video in domain.devices.videos[:1]:
        complete_video(domain, video, platform, is_first=True)
    complete_serials(domain, platform)
    for controller in domain.devices.controllers:
        if controller.type == ControllerType.SCSI:
            complete_controller(domain, controller, platform, is_new=is_new)
    mirror_consoles(domain)
    if platform.is_qemu:
        assign_virtio_serial(domain)
        assign_registers(domain)
        assign_channels(domain, platform)
        choose_virtio_transport(domain, platform)
        assign_pci(domain, platform)
        assign_usb(domain, is_new=is_new)
        assign_memory_slots(domain)
        mirror_consoles(domain)


def _walk(element: Element) -> Iterator[Element]:
    yield element
    for below in element.elements():
        yield from _walk(below)


def _complete_nvram(domain: Domain, platform: Platform) -> None:
    """Give UEFI whose flash is read-only a file for its variables, where it may have one and names none."""
    os = domain.os
    if os is None or os.loader is None or platform.nvram_directory is None:
        return
    loader, nvram = os.loader, os.nvram or Nvram()
    is_wanted = loader.type == "pflash" and loader.readonly and not loader.stateless
    if os.firmware is None and loader.path and is_wanted and not nvram.path and nvram.source is None:
        ending = "qcow2" if nvram.format_name == "qcow2" else "fd"
        nvram.path = f"{platform.nvram_directory}/{domain.name}_VARS.{ending}"
        os.nvram = nvram


def _normalise_sizes(domain: Domain) -> None:
    for element in _walk(domain):
        if isinstance(element, ShmemSize):
            element.value, element.unit = element.to_bytes() >> 20, "M"
        elif isinstance(element, TopSegment):
            element.value, element.unit = _pretty(element.to_bytes())
        elif isinstance(element, Scaled):
            element.normalise()


def _pretty(size: int) -> tuple[int, str]:
    """The largest unit in which a size is whole."""
    for unit, scale in (("GiB", KiB**3), ("MiB", KiB**2), ("KiB", KiB)):
        if size and size % scale == 0:
            return size // scale, unit
    return size, "B"


def _complete_machine(domain: Domain, platform: Platform) -> None:
    if domain.os is None:
        raise ModelError("/domain/os/type", "an os <type> must be specified")
    kind = domain.os.type
    if kind.arch is None:
        kind.arch = platform.arch
    if kind.machine is None:
        kind.machine = platform.machine
    if domain.devices.emulator is None:
        domain.devices.emulator = platform.emulator
    if domain.os.loader is not None and domain.os.loader.path is not None and domain.os.loader.type is None:
        domain.os.loader.type = "rom"
    if domain.os.smbios == "none":
        domain.os.smbios = None
    if domain.os.bootmenu is not None and not domain.os.bootmenu.enable:
        domain.os.bootmenu.timeout = None
    features = domain.os.firmware_features.features if domain.os.firmware_features is not None else []
    enabled = {feature.name: feature.enabled for feature in features}
    if enabled.get("enrolled-keys"):
        if enabled.get("secure-boot") is False:
            reason = (
                "firmware feature 'enrolled-keys' cannot be enabled when firmware feature 'secure-boot' is disabled"
            )
            raise ModelError("/domain/os/firmware", reason, code=ErrorCode.XML_DETAIL)
        if "secure-boot" not in enabled:
            features.append(FirmwareFeature(enabled=True, name="secure-boot"))


def _complete_gic(domain: Domain, platform: Platform) -> None:
    """Boards of ARM have an interrupt controller; of its versions the newest is taken that works with PCI Express."""
    features = domain.features
    gic = features.gic if features is not None else None
    if (gic is None and board_of(domain) != Board.ARM_VIRT) or (gic is not None and gic.version is not None):
        return
    # The emulated version 3 has no message-signalled interrupts.
    usable = [item for item in platform.gic_versions if item != 3 or domain.type != DomainType.QEMU]
    features = domain.features = features or Features()
    features.gic = Gic(version=str(max(usable, default=2)))


def _canonicalise_machine(domain: Domain, platform: Platform) -> None:
    if domain.os is not None and domain.os.type.machine is not None:
        machine = domain.os.type.machine
        domain.os.type.machine = platform.aliases.get(machine, machine)


def _complete_small(domain: Domain) -> None:
    domain.vcpu = domain.vcpu or Vcpu(value=1)
    if domain.vcpu.placement is None:
        domain.vcpu.placement = "static"
    if domain.vcpu.current == domain.vcpu.value:
        domain.vcpu.current = None
    domain.on_poweroff = domain.on_poweroff or "destroy"
    domain.on_reboot = domain.on_reboot or "restart"
    domain.on_crash = domain.on_crash or "destroy"
    domain.clock = domain.clock or Clock()
    complete_clock(domain.clock)
    balloon = domain.devices.memballoon
    if balloon is not None and balloon.model == "none":
        balloon.address = None
    if domain.features is not None and domain.features.hyperv is not None and domain.features.hyperv.mode is None:
        domain.features.hyperv.mode = "custom"
    _complete_limits(domain)
    if domain.memory_backing is not None and domain.memory_backing.hugepages is not None:
        has_cells = domain.cpu is not None and domain.cpu.numa is not None
        _complete_pages(domain.memory_backing.hugepages.pages, has_cells=has_cells)
    _complete_threads(domain)
    _complete_counters(domain)
    if domain.devices.redirfilter is not None:
        _complete_redirection(domain.devices.redirfilter)
    vcpus.complete(domain)


def _complete_pages(pages: list[HugePage], *, has_cells: bool) -> None:
    for page in pages:
        if page.nodeset == "0" and not has_cells:
            page.nodeset = None  # all there is
        page.size, page.unit = Scaled(unit=page.unit, value=page.size).to_kib(), "KiB"


def _complete_limits(domain: Domain) -> None:
    """Leave out limits that are none (``virMemoryLimitIsSet``)."""
    tune = domain.memtune
    if tune is not None:
        for name in ("hard_limit", "soft_limit", "swap_hard_limit"):
            limit = getattr(tune, name)
            if limit is not None and limit.value >= _UNLIMITED:
                setattr(tune, name, None)


def _complete_labels(domain: Domain, platform: Platform, *, is_live: bool) -> None:
    """A label without a security driver is one for the host's."""
    labels = domain.seclabels
    if len(labels) == 1 and labels[0].model is None and platform.is_qemu:
        label = labels[0]
        is_dynamic = label.type in (None, "dynamic") and label.base_label is None and not is_live
        if label.type == "none" or is_dynamic:
            label.model = platform.security_model
    for label in labels:
        if label.type == "none" and label.model is None:
            label.model = "none"
        if label.model == "none" and not is_live:
            label.type, label.relabel = "none", None
        if label.type in (None, "dynamic", "static"):
            label.type = label.type or "dynamic"
            label.relabel = label.type == "dynamic" if label.relabel is None else label.relabel


def _complete_threads(domain: Domain) -> None:
    """One entry a virtual CPU or I/O thread, in order; I/O threads that are only counted get numbers."""
    ids = domain.iothread_ids
    if ids is not None:
        used = {item.id for item in ids.iothreads}
        free = (number for number in range(1, len(used) + (domain.iothreads or 0) + 1) if number not in used)
        while len(ids.iothreads) < (domain.iothreads or 0):
            ids.iothreads.append(IoThread(id=next(free)))
        domain.iothreads = len(ids.iothreads)
    tune = domain.cputune
    if tune is None:
        return
    _complete_shares(tune, domain.vcpu.value if domain.vcpu is not None else 1)
    tune.iothreadpins.sort(key=lambda pin: pin.iothread)
    tune.vcpupins.sort(key=lambda pin: pin.vcpu)
    tune.vcpuscheds = [
        VcpuScheduler(vcpus=str(number), scheduler=item.scheduler, priority=item.priority)
        for item in tune.vcpuscheds
        for number in sorted(parse_numbers(item.vcpus))
    ]
    tune.vcpuscheds.sort(key=lambda item: int(item.vcpus))
    tune.iothreadscheds = [
        IoThreadScheduler(iothreads=str(number), scheduler=item.scheduler, priority=item.priority)
        for item in tune.iothreadscheds
        for number in sorted(parse_numbers(item.iothreads))
    ]
    tune.iothreadscheds.sort(key=lambda item: int(item.iothreads))


def _complete_counters(domain: Domain) -> None:
    """Each event once, in libvirt's order."""
    events = domain.perf.events if domain.perf is not None else []
    names = [event.name for event in events]
    for index, name in enumerate(names):
        if name in names[:index]:
            path, reason = f"/domain/perf/event[{index + 1}]/@name", f"perf event '{name}' was already specified"
            raise ModelError(path, reason, code=ErrorCode.XML_ERROR)
    events.sort(key=lambda event: PERF_EVENTS.index(event.name))


def _complete_shares(tune: Cputune, count: int) -> None:
    """Leave out shares of caches for processors that there are not, and shares of nothing."""
    there = frozenset(range(count))
    for item in tune.resctrls:
        item.vcpus = format_numbers(parse_numbers(item.vcpus) & there) if item.vcpus else ""
    tune.cachetunes = [item for item in tune.cachetunes if item.vcpus and (item.caches or item.monitors)]
    tune.memorytunes = [item for item in tune.memorytunes if item.vcpus and (item.nodes or item.monitors)]


def _complete_redirection(filter: RedirectionFilter) -> None:
    """Leave out what stands for everything, and write versions with two digits."""
    for rule in filter.rules:
        for name in ("usb_class", "vendor", "product"):
            if getattr(rule, name) == -1:
                setattr(rule, name, None)
        if rule.version == "-1":
            rule.version = None
        elif rule.version is not None and "." in rule.version:
            major, _, minor = rule.version.partition(".")
            rule.version = f"{major}.{minor.ljust(2, '0')}"


def _complete_memory(domain: Domain, *, is_new: bool) -> None:
    cells = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    added = sum(item.target.size.to_kib() for item in domain.devices.memories)
    written = domain.memory.value if domain.memory is not None else 0
    in_cells = sum(cell.memory for cell in cells) if is_new or not written else 0
    if in_cells:
        dump = domain.memory.dump_core if domain.memory is not None else None
        domain.memory = Memory(unit="KiB", value=in_cells + added, dump_core=dump)
    elif added > written:
        raise ModelError("/domain/memory", "Total size of memory devices exceeds the total memory size")
    if domain.memory is None or domain.memory.value == added:
        reason = "Memory size must be specified via <memory> or in the <numa> configuration"
        raise ModelError("/domain/memory", reason)
    current = domain.current_memory
    if current is None or current.value == 0 or current.value > domain.memory.value:
        domain.current_memory = CurrentMemory(unit="KiB", value=domain.memory.value)
    if domain.max_memory is not None and domain.max_memory.value < domain.memory.value:
        reason = "maximum memory size must be equal or greater than the actual memory size"
        raise ModelError("/domain/maxMemory", reason)


def _complete_boot(domain: Domain) -> None:
    """Boot from the first disk where nothing is said (``virDomainDefBootOrderPostParse``)."""
    if domain.os is None or domain.os.type.value != "hvm":
        return
    orders: set[int] = set()
    for device in domain.devices.bootable():
        if device.boot is None:
            continue
        if device.boot.order in orders:
            path = f"{domain.devices.path(device)}/boot/@order"
            reason = f"boot order '{device.boot.order}' used for more than one device"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        orders.add(device.boot.order)
    if domain.os.boot and orders:
        reason = "per-device boot elements cannot be used together with os/boot elements"
        raise ModelError("/domain/os/boot", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if domain.bootloader is not None:
        domain.os.boot = []  # the bootloader chooses
    elif not domain.os.boot and not orders and not any(item.name == "boot" for item in domain.os.unknown):
        domain.os.boot = [BootDevice.HD]
