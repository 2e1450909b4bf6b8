"""Processors of a command line, and what of the hypervisor the guest sees through them: ``-cpu``, ``-smp``."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.clock import Clock, Timer
from hostel.model.domain.cpu import Cpu, CpuCache, CpuFeature, CpuModel, MaxPhysicalAddress, Topology, Vcpu
from hostel.model.domain.devices.platform import Panic
from hostel.model.domain.domain import Domain
from hostel.model.domain.features import Apic, Features, Hyperv, Kvm, Spinlocks, SyntheticTimer, VendorId
from hostel.model.native.qemu.commandline import Option, Properties
from hostel.model.native.settings import refused

_WHOLE: Final = {"host": "host-passthrough", "max": "maximum"}
_HYPERV: Final = (
    "relaxed", "vapic", "vpindex", "runtime", "synic", "reset", "frequencies", "reenlightenment", "tlbflush", "ipi",
    "evmcs", "avic",
)  # fmt: skip
_LEAST_RETRIES, _MOST_RETRIES = 0xFFF, 0xFFFFFFFF
_MOST_BITS: Final = 64


def read_cpu(domain: Domain, features: Features, option: Option) -> None:
    """Read ``-cpu``: the model, what is switched on and off in it, and what the guest is told of the hypervisor.

    Args:
        domain: gets the processor, timers, and the panic device of Hyper-V.
        features: the domain's.
        option: the option.

    Raises:
        ModelError: a document has no place for something.
    """
    model, *words = option.value.split(",")
    found = Properties.of("cpu", dict(map(_property, words)))
    cpu = Cpu(mode=_WHOLE.get(model))
    if cpu.mode is None:
        cpu = Cpu(mode="custom", match="exact", check="none", model=CpuModel(fallback="forbid", name=model))
    cpu.topology = domain.cpu.topology if domain.cpu is not None else None
    _read_model(cpu, found)
    _read_hyperv(domain, features, found)
    _read_kvm(features, found)
    _read_timers(domain, found)
    for name in list(found.all()):
        policy = "require" if found.flag(name) else "disable"
        cpu.features.append(CpuFeature(policy=policy, name=name))
    domain.cpu = cpu


def _property(word: str) -> tuple[str, str]:
    """Name and value of ``name=value``, ``+name``, ``-name`` or ``name``; what is no CPU's own has one spelling."""
    name, equals, value = word.partition("=")
    if word[:1] in ("+", "-"):
        name, value = word[1:], "on" if word[0] == "+" else "off"
    elif not equals:
        value = "on"
    is_ours = name.startswith(("hv_", "kvm_", "host_", "phys_", "l3_", "tsc_freq"))
    return name.replace("_", "-") if is_ours else name, value


def _read_model(cpu: Cpu, found: Properties) -> None:
    if cpu.mode == "host-passthrough":
        cpu.migratable = found.flag("migratable")
    if cpu.model is not None:
        cpu.model.vendor_id = found.take("vendor")
    bits, is_hosts = found.number("phys-bits", low=1, high=_MOST_BITS), found.flag("host-phys-bits")
    if is_hosts:
        cpu.maxphysaddr = MaxPhysicalAddress(mode="passthrough")
    elif bits is not None:
        cpu.maxphysaddr = MaxPhysicalAddress(mode="emulate", bits=bits)
    invented, told = found.flag("l3-cache"), found.flag("host-cache-info")
    if told:
        cpu.cache = CpuCache(mode="passthrough")
    elif invented:
        cpu.cache = CpuCache(level=3, mode="emulate")
    elif invented is False:
        cpu.cache = CpuCache(mode="disable")


def _read_hyperv(domain: Domain, features: Features, found: Properties) -> None:
    hyperv = Hyperv(mode="passthrough" if found.flag("hv-passthrough") else None)
    for name in _HYPERV:
        setattr(hyperv, name, found.flag(f"hv-{name}"))
    retries = found.number("hv-spinlocks", low=_LEAST_RETRIES, high=_MOST_RETRIES)
    hyperv.spinlocks = Spinlocks(state=True, retries=retries) if retries is not None else None
    timers, direct = found.flag("hv-stimer"), found.flag("hv-stimer-direct")
    hyperv.stimer = SyntheticTimer(state=timers, direct=direct) if timers is not None else None
    vendor = found.take("hv-vendor-id")
    hyperv.vendor_id = VendorId(state=True, value=vendor) if vendor is not None else None
    if found.flag("hv-crash"):
        domain.devices.panics.append(Panic(model="hyperv"))
    if hyperv != Hyperv():
        features.hyperv = hyperv


def _read_kvm(features: Features, found: Properties) -> None:
    shown = found.flag("kvm")
    kvm = features.kvm or Kvm()
    kvm.hidden = None if shown is None else not shown
    kvm.hint_dedicated, kvm.poll_control = found.flag("kvm-hint-dedicated"), found.flag("kvm-poll-control")
    kvm.pv_ipi = found.flag("kvm-pv-ipi")
    if kvm != Kvm():
        features.kvm = kvm
    eoi = found.flag("kvm-pv-eoi")
    features.apic = Apic(eoi=eoi) if eoi is not None else features.apic
    features.pvspinlock = found.flag("kvm-pv-unhalt")
    features.pmu = found.flag("pmu")


def _read_timers(domain: Domain, found: Properties) -> None:
    timers = []
    has_clock = found.flag("kvmclock")
    if has_clock is not None:
        timers.append(Timer(name="kvmclock", present=has_clock))
    if found.flag("hv-time"):
        timers.append(Timer(name="hypervclock", present=True))
    frequency = found.number("tsc-frequency", low=1)
    if frequency is not None:
        timers.append(Timer(name="tsc", frequency=frequency))
    if timers:
        domain.clock = domain.clock or Clock(offset="utc")
        domain.clock.timers += timers


def read_smp(domain: Domain, option: Option) -> None:
    """Read ``-smp``: how many processors there are, and how they are laid out.

    Raises:
        ModelError: the parts do not make the whole.
    """
    found = Properties("smp", option.value, "cpus")
    count, most = found.number("cpus", low=1, high=65535), found.number("maxcpus", low=1, high=65535)
    parts = {name: found.number(name, low=1, high=65535) for name in ("sockets", "dies", "cores", "threads")}
    found.end()
    total = 1
    for part in parts.values():
        total *= part or 1
    most = most or (total if any(parts.values()) and count is None else count) or 1
    if any(parts.values()):
        missing, _ = divmod(most, total)
        sockets = parts["sockets"] or max(missing, 1)
        shape = {name: parts[name] or 1 for name in ("dies", "cores", "threads")}
        if sockets * shape["dies"] * shape["cores"] * shape["threads"] != most:
            raise refused("-smp", f"sockets, dies, cores and threads do not make {most} processors")
        domain.cpu = domain.cpu or Cpu()
        domain.cpu.topology = Topology(sockets=sockets, **shape)
    now = count or most
    domain.vcpu = Vcpu(value=most, current=now if now != most else None)
