"""Rules for what is on the board: TPM, IOMMU, panic notifier, watchdog; and for small virtio devices."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.devices.address import IsaAddress, PciAddress
from hostel.model.domain.devices.character import Console
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import MemoryBalloon, Rng, Vsock
from hostel.model.domain.devices.platform import DeviceNvram, Iommu, IommuDriver, Panic, Tpm, Watchdog
from hostel.model.domain.devices.redirection import Redirdev, Smartcard
from hostel.model.domain.devices.sound import Audio, Sound
from hostel.model.domain.platform import PPC64, S390, X86, Board
from hostel.model.domain.rules.character import has_spice
from hostel.model.domain.rules.memory import cells_of
from hostel.model.domain.rules.rule import Machine, MachineRule, needs

_XML: Final = ErrorCode.XML_ERROR

TPM_RULES: Final[tuple[MachineRule[Tpm], ...]] = (
    MachineRule(
        lambda tpm, _: (
            tpm.backend.type == "emulator" and tpm.backend.banks is not None and tpm.backend.version != "2.0"
        ),
        "<active_pcr_banks/> requires TPM version '2.0'",
        "/backend/active_pcr_banks",
        _XML,
    ),
    MachineRule(
        lambda tpm, _: (
            tpm.backend.type == "external" and (tpm.backend.source is None or tpm.backend.source.path is None)
        ),
        "missing socket path for external TPM device",
        "/backend/source/@path",
        _XML,
    ),
)

QEMU_TPM_RULES: Final[tuple[MachineRule[Tpm], ...]] = (
    MachineRule(
        lambda tpm, machine: (
            tpm.backend.type == "emulator" and tpm.backend.version not in machine.platform.tpm_versions
        ),
        lambda tpm, _: f"TPM version '{tpm.backend.version}' is not supported",
        "/backend/@version",
    ),
    MachineRule(
        lambda tpm, _: tpm.backend.type == "emulator" and tpm.backend.version == "1.2" and tpm.model == "tpm-crb",
        "Unsupported interface 'tpm-crb' for TPM 1.2",
        "/@model",
    ),
    MachineRule(
        lambda tpm, _: tpm.backend.type == "emulator" and tpm.backend.version == "1.2" and tpm.model == "tpm-spapr",
        "TPM 1.2 is not supported with the SPAPR device model",
        "/@model",
    ),
    MachineRule(
        lambda tpm, machine: (
            tpm.backend.type == "emulator" and tpm.backend.version == "1.2" and machine.board == Board.ARM_VIRT
        ),
        "TPM 1.2 is not supported on ARM",
        "/backend/@version",
    ),
    MachineRule(
        lambda tpm, machine: (
            machine.arch in PPC64 and tpm.model == "spapr-tpm-proxy" and tpm.backend.type != "passthrough"
        ),
        "TPM Proxy model spapr-tpm-proxy requires 'Passthrough' backend",
        "/backend/@type",
    ),
    MachineRule(
        lambda tpm, machine: (
            machine.platform.features and not (machine.has(_model(tpm)) or machine.has(f"{tpm.model}-device"))
        ),
        lambda tpm, machine: f"The QEMU executable {_program(machine)} does not support TPM model {_model(tpm)}",
        "/@model",
    ),
    MachineRule(
        lambda tpm, machine: _is_second(tpm, machine, is_proxy=True),
        "only a single TPM Proxy device is supported",
    ),
    MachineRule(
        lambda tpm, machine: _is_second(tpm, machine, is_proxy=False),
        "only a single TPM non-proxy device is supported",
    ),
)


def _model(tpm: Tpm) -> str:
    return tpm.model or "tpm-tis"


def _program(machine: Machine) -> str:
    return machine.domain.devices.emulator or machine.platform.emulator or "(null)"


def _is_second(tpm: Tpm, machine: Machine, *, is_proxy: bool) -> bool:
    same = [item for item in machine.domain.devices.tpms if (item.model == "spapr-tpm-proxy") == is_proxy]
    return tpm in same and tpm is not same[0]


def _options(iommu: Iommu) -> IommuDriver:
    return iommu.driver or IommuDriver()


def _is_split(machine: Machine) -> bool:
    return machine.domain.features is not None and machine.domain.features.ioapic == "qemu"


IOMMU_RULES: Final[tuple[MachineRule[Iommu], ...]] = (
    MachineRule(
        lambda iommu, _: iommu.model in ("smmuv3", "virtio") and iommu.driver is not None,
        lambda iommu, _: f"iommu model '{iommu.model}' doesn't support additional attributes",
        "/driver",
        _XML,
    ),
    MachineRule(
        lambda iommu, _: iommu.model in ("smmuv3", "intel") and iommu.address is not None,
        lambda iommu, _: f"iommu model '{iommu.model}' can't have address",
        "/address",
        _XML,
    ),
    MachineRule(
        lambda iommu, machine: _options(iommu).intremap and not _is_split(machine),
        "IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')",
        "/driver/@intremap",
    ),
    MachineRule(
        lambda iommu, _: _options(iommu).eim and not _options(iommu).intremap,
        "IOMMU eim requires interrupt remapping to be enabled",
        "/driver/@eim",
    ),
)

_IOMMU_BOARDS: Final = {
    "intel": ((Board.Q35,), "Q35 machines"),
    "smmuv3": ((Board.ARM_VIRT,), "ARM Virt machines"),
    "virtio": ((Board.Q35, Board.ARM_VIRT), "Q35 and ARM Virt machines"),
}
_IOMMU_FEATURES: Final = {
    "intel": ("intel-iommu",),
    "smmuv3": ("machine.virt.iommu",),
    "virtio": ("virtio-iommu-pci", "virtio-iommu.boot-bypass"),
}

QEMU_IOMMU_RULES: Final[tuple[MachineRule[Iommu], ...]] = (
    MachineRule(
        lambda iommu, machine: machine.board not in _IOMMU_BOARDS[iommu.model][0],
        lambda iommu, _: f"IOMMU device: '{iommu.model}' is only supported with {_IOMMU_BOARDS[iommu.model][1]}",
        "/@model",
    ),
    MachineRule(
        lambda iommu, machine: not all(machine.has(feature) for feature in _IOMMU_FEATURES[iommu.model]),
        lambda iommu, _: f"IOMMU device: '{iommu.model}' is not supported with this QEMU binary",
        "/@model",
    ),
    MachineRule(
        lambda iommu, machine: (
            iommu.model == "virtio" and not (machine.domain.features is not None and machine.domain.features.acpi)
        ),
        "IOMMU device: 'virtio' requires ACPI",
        "/@model",
    ),
    MachineRule(
        lambda iommu, _: iommu.model == "virtio" and not isinstance(iommu.address, PciAddress | None),
        "IOMMU device: 'virtio' needs a PCI address",
        "/address/@type",
    ),
    *(
        needs(
            f"intel-iommu.{feature}",
            lambda iommu, name=name: getattr(_options(iommu), name) is not None,  # type: ignore[misc]
            f"iommu: {words} is not supported with this QEMU binary",
            f"/driver/@{name}",
        )
        for name, feature, words in (
            ("intremap", "intremap", "interrupt remapping"),
            ("caching_mode", "caching-mode", "caching mode"),
            ("eim", "eim", "eim"),
            ("iotlb", "device-iotlb", "device IOTLB"),
            ("aw_bits", "aw-bits", "aw_bits"),
        )
    ),
)

PANIC_RULES: Final[tuple[MachineRule[Panic], ...]] = (
    MachineRule(
        lambda panic, machine: panic.model == "s390" and machine.arch not in S390,
        "only S390 guests support panic device of model 's390'",
        "/@model",
    ),
    MachineRule(
        lambda panic, machine: panic.model == "hyperv" and machine.arch not in X86,
        "only i686 and x86_64 guests support panic device of model 'hyperv'",
        "/@model",
    ),
    MachineRule(
        lambda panic, machine: panic.model == "pseries" and machine.board != Board.PSERIES,
        "only pSeries guests support panic device of model 'pseries'",
        "/@model",
    ),
    MachineRule(
        lambda panic, _: panic.model in ("s390", "hyperv", "pseries") and panic.address is not None,
        lambda panic, _: f"setting the panic device address is not supported for model '{panic.model}'",
        "/address",
    ),
    MachineRule(
        lambda panic, _: panic.model == "isa" and not isinstance(panic.address, IsaAddress | None),
        "panic is supported only with ISA address type",
        "/address/@type",
    ),
)

WATCHDOG_RULES: Final[tuple[MachineRule[Watchdog], ...]] = (
    MachineRule(
        lambda item, _: item.model == "i6300esb" and not isinstance(item.address, PciAddress | None),
        "i6300esb model of watchdog can go only on PCI bus",
        "/address/@type",
    ),
    MachineRule(
        lambda item, _: item.model == "ib700" and item.address is not None,
        "ib700 model of watchdog does not support configuring the address",
        "/address",
    ),
    MachineRule(
        lambda item, _: item.model == "diag288" and item.address is not None,
        "diag288 model of watchdog is virtual and cannot go on any bus.",
        "/address",
    ),
    MachineRule(
        lambda item, machine: item.model == "diag288" and machine.arch not in S390,
        "diag288 model of watchdog is allowed for s390 and s390x only",
        "/@model",
    ),
)

BALLOON_RULES: Final[tuple[MachineRule[MemoryBalloon], ...]] = (
    MachineRule(
        lambda item, _: item.model == "xen",
        "Memory balloon device type 'xen' is not supported by this version of qemu",
        "/@model",
    ),
    needs(
        "virtio-balloon.free-page-reporting",
        lambda item: item.free_page_reporting is not None,
        "freePageReporting is not supported by this QEMU binary",
        "/@freePageReporting",
    ),
)

VSOCK_RULES: Final[tuple[MachineRule[Vsock], ...]] = (
    needs("vhost-vsock", lambda _: True, "vsock device is not supported with this QEMU binary"),
)

RNG_RULES: Final[tuple[MachineRule[Rng], ...]] = (
    MachineRule(
        lambda item, _: item.backend.model == "egd" and item.backend.type is None,
        "missing EGD backend type",
        "/backend/@type",
        _XML,
    ),
    MachineRule(
        lambda item, _: (
            item.backend.model == "egd"
            and item.backend.type in ("unix", "dev", "file", "pipe")
            and not (item.backend.sources and item.backend.sources[0].path)
        ),
        "Missing source path attribute for char device",
        "/backend/source",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda item, _: (
            item.backend.model == "egd"
            and item.backend.type == "tcp"
            and not (item.backend.sources and item.backend.sources[0].host)
        ),
        "Missing source host attribute for char device",
        "/backend/source",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda item, _: (
            item.backend.model == "egd"
            and item.backend.type in ("tcp", "udp")
            and not any(source.service for source in item.backend.sources)
        ),
        "Missing source service attribute for char device",
        "/backend/source",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda item, _: (
            item.backend.model == "egd"
            and item.backend.type in ("spiceport", "dbus")
            and not (item.backend.sources and item.backend.sources[0].channel)
        ),
        "Missing source channel attribute for char device",
        "/backend/source",
    ),
)

CONSOLE_RULES: Final[tuple[MachineRule[Console], ...]] = (
    MachineRule(
        lambda item, _: _console_type(item) not in (None, "none", "serial", "virtio", "sclp", "sclplm"),
        lambda item, _: f"unsupported console target type {_console_type(item)}",
        "/target/@type",
    ),
    MachineRule(
        lambda item, machine: _console_type(item) in ("sclp", "sclplm") and machine.arch not in S390,
        lambda item, _: f"{_console_type(item)}console is not supported in this QEMU binary",
        "/target/@type",
    ),
)


def _console_type(console: Console) -> str | None:
    return console.target.type if console.target is not None else None


SOUND_RULES: Final[tuple[MachineRule[Sound], ...]] = (
    MachineRule(
        lambda item, _: item.model == "ich7",
        lambda item, _: f"sound card model '{item.model}' is not supported by qemu",
        "/@model",
    ),
)
AUDIO_RULES: Final[tuple[MachineRule[Audio], ...]] = (
    MachineRule(
        lambda item, machine: item.type == "spice" and not has_spice(machine),
        "Spice audio is not supported without spice graphics",
        "/@type",
    ),
)

NVRAM_RULES: Final[tuple[MachineRule[DeviceNvram], ...]] = (
    MachineRule(
        lambda _, machine: machine.board != Board.PSERIES,
        "nvram device is only supported for PPC64",
    ),
)

SMARTCARD_RULES: Final[tuple[MachineRule[Smartcard], ...]] = (
    MachineRule(
        lambda _, machine: len(machine.domain.devices.smartcards) > 1,
        "this QEMU binary lacks multiple smartcard support",
    ),
    needs(
        "ccid-emulated",
        lambda item: item.mode in ("host", "host-certificates"),
        "this QEMU binary lacks smartcard host mode support",
        "/@mode",
    ),
    needs(
        "ccid-passthru",
        lambda item: item.mode == "passthrough",
        "this QEMU binary lacks smartcard passthrough mode support",
        "/@mode",
    ),
)

REDIRDEV_RULES: Final[tuple[MachineRule[Redirdev], ...]] = (
    needs("usb-redir", lambda _: True, "USB redirection is not supported by this version of QEMU"),
)


def shares_memory(machine: Machine) -> bool:
    """Whether another program can look at all of the guest's memory."""
    backing = machine.domain.memory_backing
    is_shared = backing is not None and backing.access == "shared"
    cells = cells_of(machine.domain)
    if not cells:
        return is_shared and machine.platform.shares_memory
    return all(cell.mem_access == "shared" or (cell.mem_access is None and is_shared) for cell in cells)


def _is_virtiofs(filesystem: Filesystem) -> bool:
    return filesystem.driver is not None and filesystem.driver.type == "virtiofs"


def _is_started(filesystem: Filesystem) -> bool:
    """Whether the program that serves the files is ours to start."""
    return _is_virtiofs(filesystem) and not (filesystem.source is not None and filesystem.source.socket)


FILESYSTEM_RULES: Final[tuple[MachineRule[Filesystem], ...]] = (
    MachineRule(lambda item, _: item.type != "mount", "only supports mount filesystem type", "/@type"),
    MachineRule(
        lambda item, _: (item.fmode is not None or item.dmode is not None) and item.accessmode != "mapped",
        "fmode and dmode must be used with accessmode=mapped",
        "/@fmode",
    ),
    MachineRule(
        lambda item, _: item.driver is not None and item.driver.type in ("loop", "nbd", "ploop"),
        "Filesystem driver type not supported",
        "/driver/@type",
    ),
    MachineRule(
        lambda item, _: item.driver is not None and item.driver.type == "handle" and item.accessmode != "passthrough",
        "only supports passthrough accessmode",
        "/@accessmode",
    ),
    MachineRule(
        lambda item, _: _is_started(item) and item.readonly,
        "virtiofs does not yet support read-only mode",
        "/readonly",
    ),
    MachineRule(
        lambda item, _: _is_started(item) and item.accessmode != "passthrough",
        "virtiofs only supports passthrough accessmode",
        "/@accessmode",
    ),
    MachineRule(
        lambda item, _: _is_virtiofs(item) and item.model not in (None, "default"),
        "virtiofs does not support model",
        "/@model",
    ),
    MachineRule(
        lambda item, _: _is_virtiofs(item) and item.multidevs not in (None, "default"),
        "virtiofs does not support multidevs",
        "/@multidevs",
    ),
    MachineRule(
        lambda item, machine: _is_virtiofs(item) and not shares_memory(machine),
        "'virtiofs' requires shared memory",
        "/driver/@type",
    ),
)

QEMU_INPUT_RULES: Final[tuple[MachineRule[Input], ...]] = (
    MachineRule(
        lambda item, machine: item.bus == "ps2" and machine.arch not in X86 and not machine.has("i8042"),
        "ps2 is not supported by this QEMU binary",
        "/@bus",
    ),
    MachineRule(
        lambda item, _: item.bus == "virtio" and item.model in ("virtio-transitional", "virtio-non-transitional"),
        lambda item, _: f"virtio (non-)transitional models are not supported for input type={item.type}",
        "/@model",
    ),
)
