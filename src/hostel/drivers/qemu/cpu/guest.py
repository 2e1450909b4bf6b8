"""The processor of a guest that shall be as the host's: a model that can be named, so that it is the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.drivers.qemu.cpu.decode import host_model
from hostel.drivers.qemu.cpu.feature import HOST_ALONE
from hostel.drivers.qemu.cpu.known import known
from hostel.model.domain.cpu import Cpu, CpuFeature, CpuModel
from hostel.model.domain.domain import Domain, DomainType

_OFF: Final = ("disable", "forbid")


def drop_unknown(cpu: Cpu, emulator: str, cache: Path, *, kvm: bool) -> None:
    """Leave out features that no QEMU has, and what a guest is not to have that this QEMU cannot give it anyway.

    Documents of older hosts say such things, and QEMU refuses what it does not know (``qemuProcessUpdateGuestCPU``).
    """
    cpu.features = [item for item in cpu.features if item.name not in HOST_ALONE]
    if any(item.policy in _OFF for item in cpu.features):
        whole = known(emulator, cache, kvm=kvm).whole
        if whole is not None:
            cpu.features = [item for item in cpu.features if item.policy not in _OFF or item.name in whole.names]


def name_host_model(domain: Domain, cpu: Cpu, emulator: str, cache: Path) -> None:
    """Write into the ``<cpu>`` of a live document what ``host-model`` means here, as libvirt does (``virCPUUpdate``).

    What the document itself says of features stays. Where QEMU knows no models, so does the mode.
    """
    named = host_model(known(emulator, cache, kvm=domain.type == DomainType.KVM))
    if named is None:
        return
    policies: dict[str, str | None] = {**dict.fromkeys(named.more, "require"), **dict.fromkeys(named.less, "disable")}
    policies |= {feature.name: feature.policy for feature in cpu.features}
    vendor_id = cpu.model.vendor_id if cpu.model is not None else None
    cpu.mode, cpu.match, cpu.check, cpu.vendor = "custom", "exact", "full", named.vendor
    cpu.model = CpuModel(name=named.model, fallback="forbid", vendor_id=vendor_id)
    cpu.features = [CpuFeature(policy=policy, name=name) for name, policy in policies.items()]
