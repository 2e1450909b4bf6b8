"""Rules for the machine itself: firmware, processor, features, clock (``qemuValidateDomainDef``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.clock import Timer
from hostel.model.domain.cpu import Cpu
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Features
from hostel.model.domain.os import Loader, Nvram, Os
from hostel.model.domain.platform import PPC64, S390, X86, Board
from hostel.model.domain.rules.rule import Machine, MachineRule, Rule, needs
from hostel.model.domain.tune import Resource

_DETAIL: Final = ErrorCode.XML_DETAIL
_APPID_LENGTH: Final = 128  # characters


def _loader(os: Os) -> Loader:
    return os.loader or Loader()


def _nvram(os: Os) -> Nvram:
    return os.nvram or Nvram()


def _has_nvram(os: Os) -> object:
    return os.nvram is not None and (os.nvram.path or os.nvram.source)


def has_uefi(os: Os | None) -> bool:
    """Whether firmware is UEFI: asked for, or in a flash of its own."""
    return os is not None and (os.firmware == "efi" or _loader(os).type == "pflash")


# virDomainDefOSValidate; what is found by itself cannot be named, and what is named is not found by itself.
_LONGEST_MENU: Final = 65535  # ms
OS_RULES: Final[tuple[Rule[Os], ...]] = (
    Rule(
        lambda os: os.bootmenu is not None and (os.bootmenu.timeout or 0) > _LONGEST_MENU,
        lambda _: f"invalid value for boot menu timeout, must be in range [0,{_LONGEST_MENU}]",
        below="/bootmenu/@timeout",
    ),
    *(
        Rule(
            lambda os, name=name: os.firmware is not None and getattr(_loader(os), name) is not None,  # type: ignore[misc]
            lambda _, name=name: (  # type: ignore[misc]
                f"loader attribute '{name}' cannot be specified when firmware autoselection is enabled"
            ),
            _DETAIL,
            f"/loader/@{name}",
        )
        for name in ("readonly", "type")
    ),
    Rule(
        lambda os: os.firmware is not None and _loader(os).path,
        lambda _: "loader path cannot be specified when firmware autoselection is enabled",
        _DETAIL,
        "/loader",
    ),
    Rule(
        lambda os: os.firmware is not None and _nvram(os).template,
        lambda _: "nvram attribute 'template' cannot be specified when firmware autoselection is enabled",
        _DETAIL,
        "/nvram/@template",
    ),
    Rule(
        lambda os: os.firmware is not None and _loader(os).secure is False,
        lambda _: "loader attribute 'secure' cannot be specified when firmware autoselection is enabled",
        _DETAIL,
        "/loader/@secure",
    ),
    Rule(
        lambda os: os.firmware not in (None, "efi") and _has_nvram(os),
        lambda os: f"firmware type '{os.firmware}' does not support nvram",
        _DETAIL,
        "/nvram",
    ),
    Rule(
        lambda os: os.firmware is None and os.firmware_features is not None,
        lambda _: "cannot use feature-based firmware autoselection when firmware autoselection is disabled",
        _DETAIL,
        "/firmware",
    ),
    Rule(
        lambda os: os.firmware is None and (os.loader or os.nvram) is not None and not _loader(os).path,
        lambda _: "no loader path specified and firmware auto selection disabled",
        _DETAIL,
        "/loader",
    ),
    Rule(
        lambda os: _loader(os).stateless and _nvram(os).template,
        lambda _: "NVRAM template is not permitted when loader is stateless",
        _DETAIL,
        "/nvram/@template",
    ),
    Rule(
        lambda os: _loader(os).stateless and _has_nvram(os),
        lambda _: "NVRAM is not permitted when loader is stateless",
        _DETAIL,
        "/nvram",
    ),
    Rule(
        lambda os: _loader(os).stateless is False and os.firmware is None and _loader(os).type != "pflash",
        lambda _: "Only pflash loader type permits NVRAM",
        _DETAIL,
        "/loader/@stateless",
    ),
    Rule(
        lambda os: _loader(os).stateless is False and os.firmware not in (None, "efi"),
        lambda _: "Only EFI firmware permits NVRAM",
        _DETAIL,
        "/loader/@stateless",
    ),
)


def _has_acpi(machine: Machine) -> bool:
    return machine.domain.features is not None and machine.domain.features.acpi


def _has_smm(machine: Machine) -> bool:
    smm = machine.domain.features.smm if machine.domain.features is not None else None
    return smm is not None and smm.state is not False


QEMU_OS_RULES: Final[tuple[MachineRule[Os], ...]] = (
    MachineRule(
        lambda os, machine: has_uefi(os) and machine.arch in X86 and not _has_acpi(machine),
        "UEFI requires ACPI on this architecture",
        "/loader",
    ),
    MachineRule(
        lambda os, machine: machine.arch == "aarch64" and _has_acpi(machine) and not has_uefi(os),
        "ACPI requires UEFI on this architecture",
        "/loader",
    ),
    MachineRule(
        lambda os, machine: _loader(os).secure and machine.board != Board.Q35,
        "Secure boot is supported with q35 machine types only",
        "/loader/@secure",
    ),
    MachineRule(
        lambda os, machine: _loader(os).secure and machine.arch != "x86_64",
        "Secure boot is supported for x86_64 architecture only",
        "/loader/@secure",
    ),
    MachineRule(
        lambda os, machine: _loader(os).secure and os.firmware is None and not _has_smm(machine),
        "Secure boot requires SMM feature enabled",
        "/loader/@secure",
    ),
    MachineRule(
        lambda os, _: _nvram(os).type not in (None, SourceType.FILE, SourceType.BLOCK, SourceType.NETWORK),
        lambda os, _: f"unsupported nvram disk type '{_nvram(os).type}'",
        "/nvram/@type",
    ),
    MachineRule(
        lambda os, machine: os.bios is not None and os.bios.use_serial and machine.arch not in X86,
        "BIOS serial console only supported on x86 architectures",
        "/bios/@useserial",
    ),
)


def _elsewhere(name: str) -> str:
    return f"The '{name}' feature is not supported for architecture '{{}}' or machine type '{{}}'"


def _power_feature(name: str, flag: str, words: str) -> tuple[MachineRule[Features], ...]:
    """A feature of POWER's machines that not every QEMU has."""
    field = name.replace("-", "_")
    return (
        MachineRule(
            lambda features, machine: getattr(features, field) is not None and machine.board != Board.PSERIES,
            lambda _, machine: _elsewhere(name).format(machine.arch, machine.name),
            f"/{name}",
        ),
        needs(flag, lambda features: getattr(features, field) is not None, words, f"/{name}"),
    )


def _only(name: str, boards: tuple[Board, ...], archs: tuple[str, ...]) -> MachineRule[Features]:
    """A feature of some machines."""
    field = name.replace("-", "_")
    return MachineRule(
        lambda features, machine: (
            getattr(features, field) not in (None, False) and machine.board not in boards and machine.arch not in archs
        ),
        lambda _, machine: _elsewhere(name).format(machine.arch, machine.name),
        f"/{name}",
    )


FEATURE_RULES: Final[tuple[MachineRule[Features], ...]] = (
    _only("ioapic", (), X86),
    _only("hpt", (Board.PSERIES,), ()),
    needs(
        "machine.pseries.cap-hpt-max-page-size",
        lambda features: features.hpt is not None and features.hpt.max_page_size is not None,
        "Configuring the page size for HPT guests is not supported by this QEMU binary",
        "/hpt/maxpagesize",
    ),
    *_power_feature("htm", "machine.pseries.cap-htm", "HTM configuration is not supported by this QEMU binary"),
    *_power_feature(
        "nested-hv", "machine.pseries.cap-nested-hv", "Nested HV configuration is not supported by this QEMU binary"
    ),
    *_power_feature(
        "ccf-assist", "machine.pseries.cap-ccf-assist", "ccf-assist configuration is not supported by this QEMU binary"
    ),
    *_power_feature("cfpc", "machine.pseries.cap-cfpc", "cfpc configuration is not supported by this QEMU binary"),
    *_power_feature("sbbc", "machine.pseries.cap-sbbc", "sbbc configuration is not supported by this QEMU binary"),
    *_power_feature("ibs", "machine.pseries.cap-ibs", "ibs configuration is not supported by this QEMU binary"),
    _only("gic", (Board.ARM_VIRT,), ()),
    needs(
        "vmcoreinfo",
        lambda features: features.vmcoreinfo,
        "vmcoreinfo is not available with this QEMU binary",
        "/vmcoreinfo",
    ),
    MachineRule(
        lambda features, machine: (
            features.apic is not None and features.apic.eoi is not None and machine.arch not in X86
        ),
        lambda _, machine: (
            "The 'eoi' attribute of the 'apic' feature is not supported for architecture "
            f"'{machine.arch}' or machine type '{machine.name}'"
        ),
        "/apic/@eoi",
    ),
    MachineRule(
        lambda features, machine: features.pvspinlock is not None and machine.arch not in X86,
        lambda _, machine: _elsewhere("pvspinlock").format(machine.arch, machine.name),
        "/pvspinlock",
    ),
    MachineRule(
        lambda features, machine: (
            features.hyperv is not None and machine.arch not in X86 and machine.board != Board.ARM_VIRT
        ),
        lambda _, machine: (
            f"Hyperv features are not supported for architecture '{machine.arch}' or machine type '{machine.name}'"
        ),
        "/hyperv",
    ),
    MachineRule(
        lambda features, machine: features.pmu is False and machine.arch in PPC64,
        lambda _, machine: f"PMU is always enabled for architecture '{machine.arch}'",
        "/pmu",
    ),
    MachineRule(
        lambda features, machine: features.tcg is not None and machine.domain.type != DomainType.QEMU,
        lambda _, machine: f"TCG features are incompatible with domain type '{machine.domain.type}'",
        "/tcg",
    ),
    MachineRule(
        lambda features, _: (
            features.tcg is not None and features.tcg.tb_cache is not None and features.tcg.tb_cache.to_kib() & 0x3FF
        ),
        "tb-cache size must be an integer multiple of MiB",
        "/tcg/tb-cache",
    ),
    MachineRule(
        lambda features, machine: _segment(features) is not None and machine.board != Board.Q35,
        "SMM TSEG is only supported with q35 machine type",
        "/smm/tseg",
    ),
    needs(
        "mch.extended-tseg-mbytes",
        lambda features: _segment(features) is not None,
        "Setting TSEG size is not supported with this QEMU binary",
        "/smm/tseg",
    ),
    MachineRule(
        lambda features, _: (_segment(features) or 0) & 0xFFFFF,
        "SMM TSEG size must be divisible by 1 MiB",
        "/smm/tseg",
    ),
)


def _segment(features: Features) -> int | None:
    """The size of the memory of system management, in bytes."""
    smm = features.smm
    return smm.tseg.to_bytes() if smm is not None and smm.state is not False and smm.tseg is not None else None


CPU_RULES: Final[tuple[MachineRule[Cpu], ...]] = (
    MachineRule(
        lambda cpu, machine: cpu.maxphysaddr is not None and machine.arch not in X86,
        lambda _, machine: (
            f"CPU maximum physical address bits specification is not supported for '{machine.arch}' architecture"
        ),
        "/maxphysaddr",
    ),
    MachineRule(
        lambda cpu, _: (
            cpu.maxphysaddr is not None and cpu.maxphysaddr.mode == "passthrough" and cpu.maxphysaddr.bits is not None
        ),
        "CPU maximum physical address bits number specification cannot be used with mode='passthrough'",
        "/maxphysaddr/@bits",
    ),
    MachineRule(
        lambda cpu, _: (
            cpu.maxphysaddr is not None and cpu.maxphysaddr.mode == "emulate" and cpu.maxphysaddr.bits is None
        ),
        "if using CPU maximum physical address mode='emulate', bits= must be specified too",
        "/maxphysaddr/@bits",
    ),
    MachineRule(
        lambda cpu, machine: cpu.cache is not None and machine.arch not in X86,
        lambda _, machine: f"CPU cache specification is not supported for '{machine.arch}' architecture",
        "/cache",
    ),
    MachineRule(
        lambda cpu, _: cpu.cache is not None and cpu.cache.mode == "emulate" and cpu.cache.level != 3,
        "CPU cache mode 'emulate' can only be used with level='3'",
        "/cache/@level",
    ),
    MachineRule(
        lambda cpu, _: (
            cpu.cache is not None
            and cpu.cache.mode == "passthrough"
            and cpu.mode not in ("host-passthrough", "maximum")
        ),
        "CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs",
        "/cache/@mode",
    ),
    MachineRule(
        lambda cpu, _: cpu.cache is not None and cpu.cache.mode != "emulate" and cpu.cache.level is not None,
        lambda cpu, _: f"unsupported CPU cache level for mode '{cpu.cache.mode if cpu.cache else ''}'",
        "/cache/@level",
    ),
    MachineRule(
        lambda cpu, machine: (
            cpu.mode == "host-passthrough"
            and machine.arch == "armv7l"
            and machine.platform.host_arch == "aarch64"
            and not machine.has("aarch64-off")
        ),
        "QEMU binary does not support CPU host-passthrough for armv7l on aarch64 host",
        "/@mode",
    ),
    MachineRule(
        lambda cpu, machine: (
            machine.board == Board.PSERIES
            and cpu.topology is not None
            and machine.has("query-hotpluggable-cpus")
            and _present(machine) % cpu.topology.threads
        ),
        lambda cpu, _: (
            "vCPUs count must be a multiple of the vCPU hotplug granularity "
            f"({cpu.topology.threads if cpu.topology else 1})"
        ),
        "/topology/@threads",
    ),
)


def _present(machine: Machine) -> int:
    vcpu = machine.domain.vcpu
    return 1 if vcpu is None else vcpu.current or vcpu.value


def _no_timer(timer: Timer, machine: Machine) -> str:
    return (
        f"Configuring the '{timer.name}' timer is not supported for virtType={machine.domain.type} "
        f"arch={machine.arch} machine={machine.name} guests"
    )


QEMU_TIMER_RULES: Final[tuple[MachineRule[Timer], ...]] = (
    MachineRule(
        lambda timer, _: timer.name == "platform",
        lambda timer, _: f"unsupported timer type (name) '{timer.name}'",
        "/@name",
    ),
    MachineRule(
        lambda timer, machine: (
            timer.name in ("tsc", "kvmclock", "hypervclock") and timer.present and machine.arch not in X86
        ),
        _no_timer,
        "/@name",
    ),
    MachineRule(
        lambda timer, _: timer.name == "rtc" and timer.track == "boot",
        lambda timer, _: f"unsupported rtc timer track '{timer.track}'",
        "/@track",
    ),
    MachineRule(
        lambda timer, _: timer.name == "rtc" and timer.tickpolicy in ("merge", "discard"),
        lambda timer, _: f"unsupported rtc timer tickpolicy '{timer.tickpolicy}'",
        "/@tickpolicy",
    ),
    MachineRule(
        lambda timer, machine: (
            timer.name == "pit"
            and (
                timer.tickpolicy == "merge"
                or (timer.tickpolicy == "catchup" and not machine.has("kvm-pit-lost-tick-policy"))
            )
        ),
        lambda timer, _: f"unsupported pit tickpolicy '{timer.tickpolicy}'",
        "/@tickpolicy",
    ),
    MachineRule(
        lambda timer, machine: (
            timer.name == "armvtimer" and (machine.domain.type != DomainType.KVM or machine.board != Board.ARM_VIRT)
        ),
        _no_timer,
        "/@name",
    ),
    MachineRule(
        lambda timer, _: timer.name == "armvtimer" and timer.present is False,
        "The 'armvtimer' timer can't be disabled",
        "/@present",
    ),
    MachineRule(
        lambda timer, _: timer.name == "armvtimer" and timer.tickpolicy in ("catchup", "merge"),
        lambda timer, _: f"The 'armvtimer' timer does not support tickpolicy '{timer.tickpolicy}'",
        "/@tickpolicy",
    ),
)


# virDomainDefResourceValidate
RESOURCE_RULES: Final[tuple[Rule[Resource], ...]] = (
    Rule(
        lambda resource: resource.appid and not (resource.appid.isascii() and resource.appid.isprintable()),
        lambda _: "Fibre Channel 'appid' is not a printable string",
        ErrorCode.XML_ERROR,
        "/fibrechannel/@appid",
    ),
    Rule(
        lambda resource: resource.appid is not None and not 1 <= len(resource.appid) <= _APPID_LENGTH,
        lambda _: f"Fibre Channel 'appid' string length must be between [1, {_APPID_LENGTH}]",
        ErrorCode.INVALID_ARG,
        "/fibrechannel/@appid",
    ),
)


def _sleeps(domain: Domain, name: str) -> bool:
    return domain.pm is not None and getattr(domain.pm, name) is not None


DOMAIN_RULES: Final[tuple[MachineRule[Domain], ...]] = (
    MachineRule(
        lambda domain, machine: machine.platform.types is not None and domain.type not in machine.platform.types,
        lambda domain, _: f"Emulator '{domain.devices.emulator}' does not support virt type '{domain.type}'",
        "/@type",
    ),
    MachineRule(
        lambda domain, machine: (
            domain.devices.emulator == machine.platform.emulator and machine.arch not in (machine.platform.arch, *X86)
        ),
        lambda domain, machine: f"Emulator '{domain.devices.emulator}' does not support arch '{machine.arch}'",
        "/os/type/@arch",
    ),
    MachineRule(
        lambda domain, _: domain.bootloader is not None or domain.bootloader_args is not None,
        "bootloader is not supported by QEMU",
        "/bootloader",
    ),
    MachineRule(
        lambda domain, _: domain.memtune is not None and domain.memtune.min_guarantee is not None,
        "Parameter 'min_guarantee' not supported by QEMU.",
        "/memtune/min_guarantee",
    ),
    MachineRule(
        lambda domain, _: "rename-restart" in (domain.on_poweroff, domain.on_reboot, domain.on_crash),
        "qemu driver doesn't support the 'rename-restart' action for 'on_reboot'/'on_poweroff'/'on_crash'",
    ),
    MachineRule(
        lambda domain, _: "preserve" in (domain.on_poweroff, domain.on_reboot),
        "qemu driver doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'",
    ),
    MachineRule(
        lambda domain, _: domain.on_poweroff == "restart" and domain.on_reboot == "destroy",
        "qemu driver doesn't support 'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'",
    ),
    MachineRule(
        lambda domain, machine: (
            _sleeps(domain, "suspend_to_mem")
            and not machine.has("disable-s3")
            and not (machine.board == Board.Q35 and machine.has("ich9-disable-s3"))
        ),
        "setting ACPI S3 not supported",
        "/pm/suspend-to-mem",
    ),
    MachineRule(
        lambda domain, machine: (
            _sleeps(domain, "suspend_to_disk")
            and not machine.has("disable-s4")
            and not (machine.board == Board.Q35 and machine.has("ich9-disable-s4"))
        ),
        "setting ACPI S4 not supported",
        "/pm/suspend-to-disk",
    ),
    MachineRule(
        lambda domain, _: (
            domain.cputune is not None
            and (domain.cputune.cachetunes or domain.cputune.memorytunes)
            and domain.type != DomainType.KVM
        ),
        "cachetune is only supported for KVM domains",
        "/cputune",
    ),
    MachineRule(
        lambda domain, machine: (
            domain.clock is not None and domain.clock.offset == "absolute" and (domain.clock.start or 0) > 253402300799
        ),
        "The maximum 'start' value for <clock offset='absolute'> is 253402300799",
        "/clock/@start",
    ),
    MachineRule(
        lambda domain, machine: (machine.arch in S390 or machine.board == Board.PSERIES) and domain.devices.parallels,
        "parallel ports are not supported",
        "/devices/parallel",
    ),
)
