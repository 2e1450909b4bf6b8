"""What this host's QEMU brings to documents: its machine types, its processor models, its devices.

Features have the names of libvirt's capability flags (``virQEMUCaps``). Most are devices, under the same names; what
devices and machines can do beyond being there goes by QEMU's version.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from hostel.drivers.qemu import confidential, probe
from hostel.drivers.qemu.architecture import GUESTS, host_architecture, program, runs_natively
from hostel.drivers.qemu.capabilities import machines
from hostel.model.domain.platform import X86, Platform
from hostel.model.numberset import parse_numbers

_NODES: Final = Path("/sys/devices/system/node/online")
_DEVICE: Final = re.compile(r'^name "([^"]+)"', re.MULTILINE)
_OTHER_NAMES: Final = {
    "ccid-card-emulated": "ccid-emulated",
    "ccid-card-passthru": "ccid-passthru",
    "i82801b11-bridge": "dmi-to-pci-bridge",
    "lsi53c895a": "lsi",
    "vfio-pci": "vfio-pci.display",
    "vhost-vsock-pci": "vhost-vsock",
    "virtio-blk-pci-non-transitional": "virtio-pci-non-transitional",
    "virtio-net-pci": "virtio-net",
}
# By the first version that has them; 4.2 is the oldest that libvirt 9.0 knows.
_SINCE: Final = {
    4_002_000: (
        "disable-s3", "disable-s4", "ich9-disable-s3", "ich9-disable-s4", "intel-iommu.aw-bits",
        "intel-iommu.caching-mode", "intel-iommu.device-iotlb", "intel-iommu.eim", "intel-iommu.intremap",
        "iothread", "kvm-pit-lost-tick-policy", "mch.extended-tseg-mbytes", "query-hotpluggable-cpus",
        "usb-host.guest-resets-all",
    ),
    5_000_000: ("pcie-root-port.hotplug",),
    5_001_000: ("netdev.vhost-vdpa", "virtio-balloon.free-page-reporting", "virtio-net.rss"),
    5_002_000: ("piix4.acpi-root-pci-hotplug",),
    6_001_000: ("rbd-encryption",),
    6_000_000: ("confidential-guest-support",),
    7_000_000: ("blockdev.nbd.tls-hostname", "virtio-iommu.boot-bypass"),
}  # fmt: skip
# By QEMU's name for the architecture of its guests.
_OF_TARGET: Final = {
    "x86_64": ("cpu.migratable",),
    "aarch64": ("machine.virt.iommu",),
    "arm": ("machine.virt.iommu",),
}
# What of a host's SEV, by the first version that has it; 2.12 is the first that starts such guests.
_SEV_SINCE: Final = {0: "sev-guest", 6_000_000: "sev-inject-launch-secret", 6_002_000: "sev-guest-kernel-hashes"}
# What Debian's QEMU has of what documents ask for, for a host that has none yet.
USUAL: Final = frozenset(flag for flags in _SINCE.values() for flag in flags) | {
    "VGA", "am53c974", "ccid-emulated", "ccid-passthru", "cirrus-vga", "cpu.migratable", "dc390", "dmi-to-pci-bridge",
    "e1000", "i8042", "ich9-ahci", "ich9-usb-ehci1", "intel-iommu", "ioh3420", "ivshmem-doorbell", "ivshmem-plain",
    "lsi", "megasas", "mptsas1068", "nec-usb-xhci", "nvdimm", "pc-dimm", "pci-bridge", "pci-ohci", "pcie-pci-bridge",
    "pcie-root-port", "piix3-usb-uhci", "piix4-usb-uhci", "pvscsi", "pxb", "pxb-pcie", "qemu-xhci", "rtl8139",
    "tpm-crb", "tpm-tis", "usb-ehci", "usb-redir", "vfio-pci", "vfio-pci.display", "vhost-scsi", "vhost-vsock",
    "virtio-iommu-pci", "virtio-mem-pci", "virtio-net", "virtio-pci-non-transitional", "virtio-pmem-pci",
    "virtio-scsi-pci", "vmcoreinfo", "x3130-upstream", "xio3130-downstream",
}  # fmt: skip


def platform(cache: Path, arch: str | None = None, named: str | None = None) -> Platform:
    """What QEMU brings to guests of an architecture, which is the host's where none is named.

    It is the QEMU that is ``named``, where that is there; else the host's. Where it is not installed, what Debian's
    does, and no program.
    """
    host = host_architecture()
    arch = arch or host
    emulator = named if named and probe.target(named, cache) is not None else program(arch)
    is_x86, is_narrow = arch in X86, emulator is not None and probe.target(emulator, cache) == "i386"
    common = Platform(
        is_qemu=True,
        arch=arch,
        host_arch=host,
        emulator=emulator,
        machine="pc" if is_x86 else None,
        cpu=("qemu32" if is_narrow else "qemu64") if is_x86 else None,
        cpus={"isapc": "486"} if is_x86 else {},
        host_nodes=host_nodes(),
        features=USUAL if is_x86 else frozenset(),
    )
    if emulator is None:
        return common
    aliases, has = probe.machine_aliases(emulator, cache), features(emulator, cache)
    common = common._replace(aliases=aliases, features=has, sev=confidential.sev(emulator, cache) if is_x86 else None)
    return common if is_x86 else _foreign(common, emulator, cache)


def _foreign(common: Platform, emulator: str, cache: Path) -> Platform:
    """What QEMU itself says of machines that are not of x86: which of them is the usual one, and their processors."""
    kinds = json.loads(probe.machine_types(emulator, cache) or "[]")
    models = json.loads(probe.cpu_definitions(emulator, cache, "tcg") or "[]")
    names = {str(model.get("typename")): str(model["name"]) for model in models}
    cpus = {str(kind["name"]): kind["default-cpu-type"] for kind in kinds if "default-cpu-type" in kind}
    row = GUESTS.get(common.arch or "")
    first = next(iter(machines(json.dumps(kinds), row.machine if row is not None else None)), None)
    gic = json.loads(probe.gic_capabilities(emulator, cache) or "[]")
    way = "kernel" if runs_natively(common.arch or "") and probe.kvm_runs(emulator, cache) else "emulated"
    types = {str(item["name"]) for item in json.loads(probe.object_types(emulator, cache) or "[]")}
    return common._replace(
        features=common.features | types,
        machine=first.name if first is not None else None,
        cpus={name: names.get(cpu, cpu) for name, cpu in cpus.items()},
        gic_versions=tuple(sorted(int(item["version"]) for item in gic if item[way])),
    )


def host_nodes(path: Path = _NODES) -> frozenset[int] | None:
    """The host's NUMA nodes; None where the kernel tells of none."""
    try:
        return parse_numbers(path.read_text().strip())
    except (OSError, ValueError):
        return None


def features(emulator: str, cache: Path) -> frozenset[str]:
    """What an emulator can do; asked once per QEMU, then remembered."""
    devices = {found[1] for found in _DEVICE.finditer(probe.devices(emulator, cache))}
    if not devices:
        return USUAL
    version = probe.known_version(emulator, cache)
    renamed = {flag for device, flag in _OTHER_NAMES.items() if device in devices}
    renamed.update(_OF_TARGET.get(probe.target(emulator, cache) or "", ()))
    if confidential.sev(emulator, cache) is not None:
        renamed |= {flag for since, flag in _SEV_SINCE.items() if version >= since}
    return frozenset(devices | renamed).union(*(flags for since, flags in _SINCE.items() if version >= since))
