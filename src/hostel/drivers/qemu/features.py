"""What this host's QEMU brings to documents: its machine types, its processor models, its devices.

Features have the names of libvirt's capability flags (``virQEMUCaps``). Most are devices, under the same names; what
devices and machines can do beyond being there goes by QEMU's version.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from hostel.drivers.qemu import confidential, probe
from hostel.model.domain.platform import Platform
from hostel.model.numberset import parse_numbers

_EMULATOR: Final = "qemu-system-x86_64"
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
        "cpu.migratable", "disable-s3", "disable-s4", "ich9-disable-s3", "ich9-disable-s4", "intel-iommu.aw-bits",
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
# What of a host's SEV, by the first version that has it; 2.12 is the first that starts such guests.
_SEV_SINCE: Final = {0: "sev-guest", 6_000_000: "sev-inject-launch-secret", 6_002_000: "sev-guest-kernel-hashes"}
# What Debian's QEMU has of what documents ask for, for a host that has none yet.
USUAL: Final = frozenset(flag for flags in _SINCE.values() for flag in flags) | {
    "VGA", "am53c974", "ccid-emulated", "ccid-passthru", "cirrus-vga", "dc390", "dmi-to-pci-bridge", "e1000", "i8042",
    "ich9-ahci", "ich9-usb-ehci1", "intel-iommu", "ioh3420", "ivshmem-doorbell", "ivshmem-plain", "lsi", "megasas",
    "mptsas1068", "nec-usb-xhci", "nvdimm", "pc-dimm", "pci-bridge", "pci-ohci", "pcie-pci-bridge", "pcie-root-port",
    "piix3-usb-uhci", "piix4-usb-uhci", "pvscsi", "pxb", "pxb-pcie", "qemu-xhci", "rtl8139", "usb-ehci", "usb-redir",
    "vfio-pci", "vfio-pci.display", "vhost-scsi", "vhost-vsock", "virtio-iommu-pci", "virtio-mem-pci", "virtio-net",
    "virtio-pci-non-transitional", "virtio-pmem-pci", "virtio-scsi-pci", "vmcoreinfo", "x3130-upstream",
    "xio3130-downstream",
}  # fmt: skip


def platform(cache: Path) -> Platform:
    """What this host's QEMU brings; where it is not installed, what Debian's does, and no program."""
    emulator = shutil.which(_EMULATOR)
    aliases = probe.machine_aliases(emulator, cache) if emulator is not None else {}
    return Platform(
        is_qemu=True,
        arch="x86_64",
        emulator=emulator,
        machine="pc",
        aliases=aliases,
        cpu="qemu64",
        cpus={"isapc": "486"},
        host_nodes=host_nodes(),
        features=features(emulator, cache) if emulator is not None else USUAL,
        sev=confidential.sev(emulator, cache) if emulator is not None else None,
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
    if confidential.sev(emulator, cache) is not None:
        renamed |= {flag for since, flag in _SEV_SINCE.items() if version >= since}
    return frozenset(devices | renamed).union(*(flags for since, flags in _SINCE.items() if version >= since))
