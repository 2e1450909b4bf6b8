"""Processors, and what of the hypervisor the guest sees through them (``qemuBuildCpuCommandLine``)."""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.command.context import escape
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.cpu import Cpu
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import Features, Hyperv
from hostel.model.domain.platform import X86, arch_of
from hostel.model.domain.vcpus import is_at_start, states

_WHOLE: Final = ("host-passthrough", "host-model", "maximum")
_HYPERV: Final = (
    "relaxed", "vapic", "vpindex", "runtime", "synic", "reset", "frequencies", "reenlightenment", "tlbflush", "ipi",
    "evmcs", "avic",
)  # fmt: skip
_OFF: Final = ("disable", "forbid")


def arguments(domain: Domain, emulator: str) -> list[str]:
    """``-cpu`` and ``-smp`` for an emulator."""
    words = [_model(domain), *_features(domain.cpu or Cpu(), emulator), *_timers(domain), *_hypervisor(domain.features)]
    words += ["hv-crash"] if any(panic.model == "hyperv" for panic in domain.devices.panics) else []
    model, *changes = words
    return [*(["-cpu", ",".join([model, *changes])] if model else []), *_smp(domain)]


def _model(domain: Domain) -> str:
    """The model; empty where the board has its own."""
    cpu = domain.cpu or Cpu()
    if cpu.mode in _WHOLE:
        return "host" if domain.type == DomainType.KVM and cpu.mode != "maximum" else "max"
    model = cpu.model.name if cpu.model is not None else None
    return escape(model or ("qemu64" if arch_of(domain) in X86 else ""))


def _features(cpu: Cpu, emulator: str) -> list[str]:
    words = [
        f"{escape(feature.name)}={'off' if feature.policy in _OFF else 'on'}"
        for feature in cpu.features
        if feature.policy != "optional"
    ]
    if cpu.model is not None and cpu.model.vendor_id is not None:
        words.append(f"vendor={escape(cpu.model.vendor_id)}")
    # libvirt does not know of i386's QEMU that it has this, and writes "off" into documents that say nothing of it.
    if cpu.mode == "host-passthrough" and cpu.migratable is False and not emulator.endswith("-i386"):
        words.append("migratable=off")
    if cpu.maxphysaddr is not None:
        bits = cpu.maxphysaddr.bits
        words.append("host-phys-bits=on" if cpu.maxphysaddr.mode == "passthrough" else f"phys-bits={bits or 0}")
    return [*words, *_cache(cpu)]


def _cache(cpu: Cpu) -> list[str]:
    """The cache that the guest is told of: the host's, one that QEMU invents, or none."""
    if cpu.cache is None:
        return []
    mode = cpu.cache.mode
    words = {"emulate": ["l3-cache=on"], "passthrough": ["host-cache-info=on"]}.get(mode, [])
    if mode != "passthrough" and cpu.mode in ("host-passthrough", "maximum"):
        words.append("host-cache-info=off")
    return [*words, "l3-cache=off"] if mode != "emulate" else words


def _timers(domain: Domain) -> list[str]:
    words: list[str] = []
    for timer in domain.clock.timers if domain.clock is not None else []:
        if timer.name == "kvmclock" and timer.present is not None:
            words.append(f"kvmclock={'on' if timer.present else 'off'}")
        elif timer.name == "hypervclock" and timer.present:
            words.append("hv-time=on")
        elif timer.name == "armvtimer" and timer.tickpolicy in ("delay", "discard"):
            words.append(f"kvm-no-adjvtime={'on' if timer.tickpolicy == 'discard' else 'off'}")
        elif timer.name == "tsc" and timer.frequency:
            words.append(f"tsc-frequency={timer.frequency}")
    return words


def _hypervisor(features: Features | None) -> list[str]:
    if features is None:
        return []
    words: list[str] = []
    if features.apic is not None and features.apic.eoi is not None:
        words.append(f"kvm-pv-eoi={'on' if features.apic.eoi else 'off'}")
    if features.pvspinlock is not None:
        words.append(f"kvm-pv-unhalt={'on' if features.pvspinlock else 'off'}")
    if features.hyperv is not None:
        words += _hyperv(features.hyperv)
    if features.kvm is not None:
        if features.kvm.hidden:
            words.append("kvm=off")
        if features.kvm.hint_dedicated:
            words.append("kvm-hint-dedicated=on")
        if features.kvm.poll_control:
            words.append("kvm-poll-control=on")
        if features.kvm.pv_ipi is False:
            words.append("kvm-pv-ipi=off")
    if features.pmu is not None:
        words.append(f"pmu={'on' if features.pmu else 'off'}")
    return words


def _hyperv(hyperv: Hyperv) -> list[str]:
    if hyperv.mode == "passthrough":
        return ["hv-passthrough=on"]
    words = [f"hv-{name}=on" for name in _HYPERV if getattr(hyperv, name)]
    if hyperv.spinlocks is not None and hyperv.spinlocks.state:
        words.append(f"hv-spinlocks=0x{hyperv.spinlocks.retries or 0xFFF:x}")
    if hyperv.stimer is not None and hyperv.stimer.state:
        words.append("hv-stimer=on")
        if hyperv.stimer.direct:
            words.append("hv-stimer-direct=on")
    if hyperv.vendor_id is not None and hyperv.vendor_id.state:
        words.append(f"hv-vendor-id={escape(hyperv.vendor_id.value or '')}")
    return words


def _smp(domain: Domain) -> list[str]:
    vcpu = domain.vcpu
    most = vcpu.value if vcpu is not None else 1
    now = sum(map(is_at_start, states(domain)))
    count = str(now) if now == most else f"{now},maxcpus={most}"
    topology = domain.cpu.topology if domain.cpu is not None else None
    if topology is None:
        return ["-smp", f"{count},sockets={most},cores=1,threads=1"]
    parts = topology.sockets * topology.dies * topology.cores * topology.threads
    if parts != most:
        raise unsupported("CPU topology doesn't match maximum vcpu count: sockets x dies x cores x threads must be it")
    dies = f",dies={topology.dies}" if topology.dies > 1 else ""
    return ["-smp", f"{count},sockets={topology.sockets}{dies},cores={topology.cores},threads={topology.threads}"]
