"""What this host's QEMU brings to documents: its machine types, its processor models, its devices.

Features have the names of libvirt's capability flags (``virQEMUCaps``). Most are devices, under the same names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from hostel.drivers.qemu import probe
from hostel.model.domain.platform import Platform

_EMULATOR: Final = "qemu-system-x86_64"
_DEVICE: Final = re.compile(r'^name "([^"]+)"', re.MULTILINE)
_OTHER_NAMES: Final = {
    "lsi53c895a": "lsi",
    "virtio-net-pci": "virtio-net",
    "virtio-blk-pci-non-transitional": "virtio-pci-non-transitional",
    "vfio-pci": "vfio-pci.display",
}
# Since QEMU 4.2, the oldest that libvirt 9.0 knows.
_ALWAYS: Final = frozenset({"cpu.migratable", "mch.extended-tseg-mbytes", "query-hotpluggable-cpus"})


def platform(cache: Path) -> Platform:
    """What this host's QEMU brings; without machine types and devices where it is not installed."""
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
        features=features(emulator, cache) if emulator is not None else USUAL,
    )


def features(emulator: str, cache: Path) -> frozenset[str]:
    """What an emulator can do; asked once per QEMU, then remembered."""
    devices = {found[1] for found in _DEVICE.finditer(probe.devices(emulator, cache))}
    renamed = {flag for device, flag in _OTHER_NAMES.items() if device in devices}
    return frozenset(devices | renamed | _ALWAYS) if devices else USUAL


# What Debian's QEMU has of what completing a document asks for.
USUAL: Final = _ALWAYS | {
    "VGA", "cirrus-vga", "e1000", "ich9-usb-ehci1", "ioh3420", "lsi", "nec-usb-xhci", "pci-ohci", "pcie-pci-bridge",
    "pcie-root-port", "piix3-usb-uhci", "qemu-xhci", "rtl8139", "vfio-pci.display", "virtio-net",
    "virtio-pci-non-transitional", "virtio-scsi-pci",
}  # fmt: skip
