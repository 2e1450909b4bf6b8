"""What there is to say of emulators and processors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.base.capabilities import BaselineFlag, CompareFlag, CpuComparison
from hostel.drivers.fault import fault
from hostel.drivers.qemu.capabilities import host_processor
from hostel.drivers.qemu.cpu import decode, document, feature
from hostel.drivers.qemu.cpu.decode import Models, Request
from hostel.drivers.qemu.cpu.known import Known, known
from hostel.drivers.qemu.domain_capabilities import domain_capabilities
from hostel.drivers.qemu.emulator import ARCHITECTURES, Chosen, choose
from hostel.drivers.qemu.firmware.descriptor import Firmware
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.platform import X86

# What libvirt compares the processors of; of others it says that it knows none.
_WITH_MODELS: Final = (*X86, "ppc64", "ppc64le", "s390", "s390x", "armv6l", "armv7b", "armv7l", "aarch64")


class Answers:
    """Implements :class:`hostel.drivers.base.capabilities.ProcessorDriver`, and the one before it.

    Args:
        cache: where QEMU's answers are remembered.
        firmware: gives the firmware that machines may be given.
    """

    def __init__(self, cache: Path, firmware: Callable[[], Sequence[Firmware]]) -> None:
        self._cache = cache
        self._firmware = firmware

    def connect_get_domain_capabilities(
        self,
        emulator: str | None = None,
        arch: str | None = None,
        machine: str | None = None,
        type: str | None = None,
    ) -> str:
        """What an emulator can do for a machine."""
        chosen = choose(self._cache, emulator, arch, machine, type)
        return domain_capabilities(chosen, self._cache, self._firmware()).format()

    def connect_get_cpu_model_names(self, arch: str) -> list[str]:
        """The models of an architecture; none where any may be, since nobody here runs it."""
        if arch not in ARCHITECTURES:
            raise fault(ErrorCode.INVALID_ARG, f"cannot find architecture {arch}", ErrorDomain.QEMU)
        if arch not in X86:
            return []
        return list(self._plain(arch))[::-1]

    def connect_compare_cpu(self, xml: str, flags: CompareFlag = CompareFlag.NONE) -> int:
        """How the host is to a processor."""
        models = self._plain()
        host = host_processor(self._cache)
        return _compared(document.request_of(host), document.read(xml), models, flags)

    def connect_compare_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml: str,
        flags: CompareFlag = CompareFlag.NONE,
    ) -> int:
        """How what an emulator gives on this host is to a processor."""
        chosen = choose(self._cache, emulator, arch, machine, type)
        knows = self._known(chosen)
        named = decode.host_model(knows)
        if named is None:
            what = f"QEMU '{chosen.path}' does not support reporting CPU model for virttype '{chosen.type}'"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        policies = dict.fromkeys(named.more, "require") | dict.fromkeys(named.less, "disable")
        return _compared(Request(named.model, named.vendor, policies), document.read(xml), knows.models, flags)

    def connect_baseline_cpu(self, xml_cpus: Sequence[str], flags: BaselineFlag = BaselineFlag.NONE) -> str:
        """The processor that hosts have in common."""
        cpus = _read(xml_cpus, for_host=True)
        if cpus[0].arch not in _WITH_MODELS:
            what = f"'{cpus[0].arch}' architecture is not supported by CPU driver"
            raise fault(ErrorCode.NO_SUPPORT, what, ErrorDomain.CPU)
        return _common(cpus, self._plain(), flags, left_out=feature.HOST_ALONE)

    def connect_baseline_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml_cpus: Sequence[str],
        flags: BaselineFlag = BaselineFlag.NONE,
    ) -> str:
        """The processor that an emulator gives on this host and that others have, too."""
        cpus = _read(xml_cpus, for_host=None)
        chosen = choose(self._cache, emulator, arch, machine, type)
        knows = self._known(chosen)
        if not knows.models:
            what = f"QEMU '{chosen.path}' does not support any CPU models for virttype '{chosen.type}'"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        limit = None
        if knows.whole is not None:
            limit = knows.whole.migratable if flags & BaselineFlag.MIGRATABLE else knows.whole.features
        return _common(cpus, knows.models, flags, allowed=knows.models, limit=limit, fallback="forbid")

    def _plain(self, arch: str | None = None) -> Models:
        """What models are by themselves, without what KVM gives to every guest: capabilities name the host by these."""
        return known(choose(self._cache, arch=arch).path, self._cache, kvm=False).models

    def _known(self, chosen: Chosen) -> Known:
        return known(chosen.path, self._cache, kvm=chosen.is_kvm)


def _read(xml_cpus: Sequence[str], *, for_host: bool | None) -> list[Request]:
    if not xml_cpus:
        raise _wrong("no CPUs given")
    cpus = [document.read(xml, for_host=for_host) for xml in xml_cpus]
    for index, cpu in enumerate(cpus):
        if cpu.model is None:
            raise _wrong(f"no CPU model specified at index {index}")
    return cpus


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, ErrorDomain.CPU)


def _compared(host: Request, wanted: Request, models: Models, flags: CompareFlag) -> int:
    fails = bool(flags & CompareFlag.FAIL_INCOMPATIBLE)
    if host.model is None:
        if fails:
            raise fault(ErrorCode.CPU_INCOMPATIBLE, "unknown host CPU", ErrorDomain.CPU)
        return CpuComparison.INCOMPATIBLE
    result, reason = decode.compare(host, wanted, models)
    if result is CpuComparison.INCOMPATIBLE and fails:
        raise fault(ErrorCode.CPU_INCOMPATIBLE, reason, ErrorDomain.CPU)
    return result


def _common(
    cpus: Sequence[Request],
    models: Models,
    flags: BaselineFlag,
    *,
    allowed: Collection[str] | None = None,
    limit: frozenset[str] | None = None,
    left_out: Collection[str] = (),
    fallback: str | None = None,
) -> str:
    found = decode.baseline(cpus, models, allowed, limit)
    dropped = {*left_out, *(feature.NOT_MIGRATABLE if flags & BaselineFlag.MIGRATABLE else ())}
    more = [name for name in found.cpu.more if name not in dropped]
    less = [name for name in found.cpu.less if name not in left_out]
    found = found._replace(cpu=found.cpu._replace(more=more, less=less))
    return document.write(found, models, expand=bool(flags & BaselineFlag.EXPAND_FEATURES), fallback=fallback)
