"""What the guest's processor is like where its document does not say."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Cpu, CpuFeature, CpuModel
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import ARM, PPC64, S390, X86, Platform, arch_of

_CPU_ARCHS: Final = (*ARM, *PPC64, *S390, *X86)  # those whose processors libvirt knows
# Machines of s390x whose processors QEMU has no models for.
_UNMODELLED: Final = tuple(f"s390-ccw-virtio-2.{number}" for number in range(4, 8))


def complete_cpu(cpu: Cpu) -> None:
    """What parsing itself fills in (``virCPUDefParseXML``)."""
    if cpu.mode not in (None, "custom"):
        cpu.match = None
    elif cpu.model is not None and cpu.model.name is not None:
        cpu.mode, cpu.match = "custom", cpu.match or "exact"
    else:
        if cpu.features:
            raise ModelError("/domain/cpu/feature", "Non-empty feature list specified without CPU model")
        cpu.mode = cpu.match = None  # only a topology, or nothing at all
    if cpu.model is not None:
        is_named = cpu.model.name is not None
        if cpu.mode in ("host-passthrough", "maximum") or not (is_named or cpu.model.vendor_id):
            cpu.model = None
        else:
            cpu.model.fallback = (cpu.model.fallback or "allow") if is_named else None
    for feature in cpu.features:
        feature.policy = feature.policy or "require"


def complete_qemu_cpu(domain: Domain, platform: Platform) -> None:
    """QEMU's default model, and how strictly it is checked (``qemuDomainDefSetDefaultCPU``, ``…CPUPostParse``)."""
    arch = arch_of(domain)
    machine = (domain.os.type.machine if domain.os is not None else None) or ""
    cpu = domain.cpu
    model = platform.cpus.get(machine, platform.cpu)
    is_open = cpu is None or (cpu.mode is None and (cpu.model is None or cpu.model.name is None))
    has_default = arch in _CPU_ARCHS and (arch in (*X86, *S390, *PPC64) or domain.type == DomainType.QEMU)
    if is_open and model is not None and has_default:
        cpu = domain.cpu = cpu or Cpu()
        if model == "host":
            is_modelled = arch in S390 and platform.has_host_model and machine not in _UNMODELLED
            cpu.mode = "host-model" if is_modelled else "host-passthrough"
        else:
            cpu.mode, cpu.match, cpu.check = "custom", "exact", "none"
            cpu.model = CpuModel(fallback="forbid", name=model)
    if cpu is None:
        return
    _require_vectors(cpu)
    if cpu.mode == "host-passthrough" and cpu.migratable is None and domain.id is None:
        if platform.has("cpu.migratable"):
            cpu.migratable = True
        elif arch in X86:
            cpu.migratable = False
    if cpu.check is None and cpu.mode is not None:
        if cpu.mode in ("host-passthrough", "maximum"):
            cpu.check = "none"
        elif cpu.mode == "host-model" or domain.type != DomainType.QEMU:
            cpu.check = "partial"
        else:
            cpu.check = "none"


def _require_vectors(cpu: Cpu) -> None:
    """Lengths of ARM's scalable vectors need these vectors."""
    lengths = [item for item in cpu.features if item.name.startswith("sve") and item.name != "sve"]
    if not lengths:
        return
    sve = next((item for item in cpu.features if item.name == "sve"), None)
    if sve is None:
        cpu.features.append(CpuFeature(policy="require", name="sve"))
    elif sve.policy in ("disable", "forbid"):
        reason = "SVE disabled, but SVE vector lengths provided"
        raise ModelError("/domain/cpu/feature", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    else:
        sve.policy = "require"
