"""Which of the host's CPUs a domain's threads run on, as its document says."""

from __future__ import annotations

from collections.abc import Collection

from hostel.drivers.fault import fault
from hostel.drivers.tuning.cpumap import cpus_of
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.tune import Cputune, IoThreadPin, VcpuPin
from hostel.model.numberset import format_numbers, parse_numbers


def wanted(raw: bytes, speaker: ErrorDomain, what: str = "cpu list") -> frozenset[int]:
    """The CPUs that a call asks for.

    Raises:
        VirtError: ``INVALID_ARG``: it asks for none.
    """
    cpus = cpus_of(raw)
    if not cpus:
        raise fault(ErrorCode.INVALID_ARG, f"Empty {what} for pinning", speaker)
    return cpus


def common(domain: Domain) -> frozenset[int] | None:
    """Where everything runs that is not pinned; None: anywhere."""
    return _numbers(domain.vcpu.cpuset if domain.vcpu is not None else None)


def vcpu_pin(domain: Domain, vcpu: int) -> frozenset[int] | None:
    """Where a virtual CPU runs."""
    for pin in domain.cputune.vcpupins if domain.cputune is not None else ():
        if pin.vcpu == vcpu:
            return parse_numbers(pin.cpuset)
    return common(domain)


def emulator_pin(domain: Domain) -> frozenset[int] | None:
    """Where the emulator's own threads run."""
    return _numbers(domain.cputune.emulatorpin if domain.cputune is not None else None) or common(domain)


def iothread_pin(domain: Domain, iothread: int) -> frozenset[int] | None:
    """Where an I/O thread runs."""
    for pin in domain.cputune.iothreadpins if domain.cputune is not None else ():
        if pin.iothread == iothread:
            return parse_numbers(pin.cpuset)
    return common(domain)


def most_vcpus(domain: Domain) -> int:
    """How many virtual CPUs there may be."""
    return 1 if domain.vcpu is None else domain.vcpu.value


def pin_vcpu(domain: Domain, vcpu: int, cpus: Collection[int]) -> None:
    """Pin a virtual CPU, in the document; the caller knows that there is one of this number."""
    tune = _tune(domain)
    others = [pin for pin in tune.vcpupins if pin.vcpu != vcpu]
    tune.vcpupins = sorted([*others, VcpuPin(vcpu=vcpu, cpuset=_text(cpus))], key=lambda pin: pin.vcpu)


def pin_emulator(domain: Domain, cpus: Collection[int]) -> None:
    """Pin the emulator's own threads, in the document."""
    _tune(domain).emulatorpin = _text(cpus)


def pin_iothread(domain: Domain, iothread: int, cpus: Collection[int]) -> None:
    """Pin an I/O thread, in the document; the caller knows that there is one of this number."""
    unpin_iothread(domain, iothread)
    tune = _tune(domain)
    pins = [*tune.iothreadpins, IoThreadPin(iothread=iothread, cpuset=_text(cpus))]
    tune.iothreadpins = sorted(pins, key=lambda pin: pin.iothread)


def unpin_iothread(domain: Domain, iothread: int) -> None:
    """Forget where an I/O thread runs, and how it is scheduled."""
    if (tune := domain.cputune) is not None:
        tune.iothreadpins = [pin for pin in tune.iothreadpins if pin.iothread != iothread]
        tune.iothreadscheds = [each for each in tune.iothreadscheds if each.iothreads != str(iothread)]


def _tune(domain: Domain) -> Cputune:
    if domain.cputune is None:
        domain.cputune = Cputune()
    return domain.cputune


def _text(cpus: Collection[int]) -> str:
    return format_numbers(frozenset(cpus))


def _numbers(text: str | None) -> frozenset[int] | None:
    return parse_numbers(text) if text else None
