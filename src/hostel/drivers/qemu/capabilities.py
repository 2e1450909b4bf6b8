"""What the host and its QEMU can do: the document of capabilities."""

from __future__ import annotations

import json
import re
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostel.drivers.host.driver import LinuxHostDriver
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.architecture import GUESTS, Architecture, host_architecture, program, runs_natively
from hostel.drivers.qemu.confinement.module import DOI, SecurityModule
from hostel.drivers.qemu.cpu.cpuid import host_cpu, kernel_cpu
from hostel.drivers.qemu.cpu.decode import Subject, decode
from hostel.drivers.qemu.cpu.known import known, vendor_of
from hostel.drivers.qemu.ownership.label import DAC
from hostel.drivers.qemu.ownership.user import Owner
from hostel.drivers.topology import host_bandwidth, host_cache, host_topology
from hostel.model.capabilities import (
    BaseLabel,
    Capabilities,
    CpuSignature,
    Guest,
    GuestAcpi,
    GuestApic,
    GuestArchitecture,
    GuestDomain,
    GuestFeatures,
    GuestMachine,
    GuestSnapshots,
    Host,
    HostAddressBits,
    HostCpu,
    HostTopology,
    MigrationFeatures,
    PageSize,
    PowerManagement,
    SecurityModel,
    Transports,
)
from hostel.model.domain.cpu import CpuFeature, Topology
from hostel.model.domain.platform import X86


def capabilities(
    cache: Path, root: Path = Path("/"), owner: Owner | None = None, modules: Sequence[SecurityModule] = ()
) -> Capabilities:
    """The host, and what guests its QEMU runs.

    Args:
        cache: where it is remembered what was asked of QEMU.
        root: where the host's files lie.
        owner: who QEMU runs as, where that is another than who starts it.
        modules: the kernel's security modules that guests are kept by.
    """
    guests = []
    for arch, row in GUESTS.items():
        emulator = program(arch)
        if emulator is not None:
            guests.append(_guest(arch, row, emulator, cache))
    return Capabilities(host=_host(root, cache, _security(owner, modules)), guests=guests)


def _host(root: Path, emulators: Path, security: list[SecurityModel]) -> Host:
    topology = host_topology(root / "sys/devices/system")
    cache = host_cache(root / "sys/devices/system", root / "sys/fs/resctrl")
    groups = root / "sys/kernel/iommu_groups"
    return Host(
        uuid=host_uuid(root),
        cpu=host_processor(emulators, root, topology),
        power_management=PowerManagement(),
        iommu=groups.is_dir() and any(groups.iterdir()),
        migration=MigrationFeatures(live=True, transports=Transports(names=["tcp"])),
        topology=topology,
        cache=cache,
        bandwidth=host_bandwidth(cache, root / "sys/fs/resctrl"),
        security=security,
    )


def _security(owner: Owner | None, modules: Sequence[SecurityModule]) -> list[SecurityModel]:
    """What keeps guests apart: the kernel's modules, or nothing, and owners where they have any."""
    found = []
    for module in modules:
        bases = [(kind, module.base_label(kind)) for kind in ("kvm", "qemu")]
        labels = [BaseLabel(type=kind, label=base) for kind, base in bases if base is not None]
        found.append(SecurityModel(model=module.model, doi=DOI, labels=labels))
    found = found or [SecurityModel(model="none", doi=DOI)]
    if owner is not None:
        labels = [BaseLabel(type=kind, label=owner.label) for kind in ("kvm", "qemu")]
        found.append(SecurityModel(model=DAC, doi=DOI, labels=labels))
    return found


def host_uuid(root: Path = Path("/")) -> str:
    """The firmware's, where we may read it; else one that is always the same on this host."""
    for path in ("sys/class/dmi/id/product_uuid", "etc/machine-id"):
        try:
            text = (root / path).read_text().strip()
        except OSError:
            continue
        try:
            found = uuids.UUID(text)
        except ValueError:
            continue
        if path.startswith("sys"):
            return str(found)
        # The machine's identity is not to be told to others as it is (machine-id(5)).
        return str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{found.hex}.host.hostel"))
    return str(uuids.UUID(int=0))


def host_processor(cache: Path, root: Path = Path("/"), topology: HostTopology | None = None) -> HostCpu:
    """The host's processor; with a model and features where there is a QEMU that knows models."""
    topology = topology or host_topology(root / "sys/devices/system")
    said: dict[str, str] = {}
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    for line in text.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        said[name.strip()] = value.strip()
    info = LinuxHostDriver(root).node_get_info()
    family, model = _number(said.get("cpu family")), _number(said.get("model"))
    bits = re.match(r"(\d+) bits physical", said.get("address sizes", ""))
    pages = sorted({page.size for cell in topology.cells.cells for page in cell.pages}) if topology.cells else []
    named, features = _named(cache, text, is_here=root == Path("/"))
    return HostCpu(
        arch=info.model,
        model=named,
        vendor=vendor_of(said.get("vendor_id", "")),
        microcode=_number(said.get("microcode"), 0),
        signature=None
        if family is None
        else CpuSignature(family=family, model=model, stepping=_number(said.get("stepping"))),
        topology=Topology(sockets=max(1, info.sockets), cores=max(1, info.cores), threads=max(1, info.threads)),
        address_bits=None if bits is None else HostAddressBits(mode="emulate", bits=int(bits[1])),
        features=[CpuFeature(name=name) for name in features],
        pages=[PageSize(unit="KiB", size=size) for size in pages],
    )


def _named(cache: Path, cpuinfo: str, *, is_here: bool) -> tuple[str | None, list[str]]:
    """The model that the processor is nearest to, as QEMU knows models, and what it has besides."""
    emulator = program(host_architecture())
    found = host_cpu(cpuinfo) if is_here else kernel_cpu(cpuinfo)
    if emulator is None or found is None:
        return None, []
    named = decode(Subject(*found), known(emulator, cache, kvm=False).models, for_host=True)
    return (None, []) if named is None else (named.model, named.more)


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return int(text or "", base)
    except ValueError:
        return None


def _guest(arch: str, row: Architecture, emulator: str, cache: Path) -> Guest:
    kinds = ["qemu", *(["kvm"] if runs_natively(arch) and probe.kvm_runs(emulator, cache) else [])]
    is_x86, is_narrow = arch in X86, arch == "i686"
    return Guest(
        os_type="hvm",
        arch=GuestArchitecture(
            name=arch,
            wordsize=row.bits,
            emulator=emulator,
            machines=machines(probe.machine_types(emulator, cache), row.machine),
            domains=[GuestDomain(type=kind) for kind in kinds],
        ),
        features=GuestFeatures(
            pae=is_narrow,
            nonpae=is_narrow,
            acpi=GuestAcpi(default=True, toggle=True) if is_x86 or arch == "aarch64" else None,
            apic=GuestApic(default=True, toggle=False) if is_x86 else None,
            cpuselection=True,
            deviceboot=True,
            disksnapshot=GuestSnapshots(default=True, toggle=False),
        ),
    )


def machines(answer: str, preferred: str | None) -> list[GuestMachine]:
    """Machine types of QEMU's answer to ``query-machines``: the one that is taken where none is named comes first."""
    found: list[dict[str, Any]] = [item for item in json.loads(answer or "[]") if item["name"] != "none"]
    first = next((item for item in found if preferred in (item.get("alias"), item["name"])), None)
    first = first or next((item for item in found if item.get("is-default")), None)
    found.sort(key=lambda item: item is not first)
    types: list[GuestMachine] = []
    for item in found:
        name, most = str(item["name"]), int(item["cpu-max"])
        is_deprecated = True if item.get("deprecated") else None
        types.append(GuestMachine(name=name, max_cpus=most, deprecated=is_deprecated))
        if "alias" in item:
            types.append(GuestMachine(name=str(item["alias"]), canonical=name, max_cpus=most, deprecated=is_deprecated))
    return types
