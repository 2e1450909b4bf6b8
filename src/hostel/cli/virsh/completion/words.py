"""Values that are always the same words, in libvirt's order."""

from __future__ import annotations

from typing import Final

from hostel.cli.virsh.dumping import FORMATS as DUMP_FORMATS
from hostel.cli.virsh.dumping import MODES as DIRTY_RATE_MODES
from hostel.cli.virsh.dumping import SIGNALS
from hostel.cli.virsh.network import SECTIONS
from hostel.drivers.events import DOMAIN_EVENTS, NETWORK_EVENTS, NODE_DEVICE_EVENTS, POOL_EVENTS, SECRET_EVENTS
from hostel.drivers.tuning.limits import MODES as NUMA_MODES
from hostel.drivers.tuning.parameter import PERF
from hostel.model.domain.devices.source import FORMATS

_ARCHITECTURES: Final = (
    "none alpha armv6l armv7l armv7b aarch64 cris i686 ia64 lm32 m68k microblaze microblazeel mips mipsel mips64 "
    "mips64el openrisc parisc parisc64 ppc ppcle ppc64 ppc64le ppcemb riscv32 riscv64 s390 s390x sh4 sh4eb sparc "
    "sparc64 unicore32 x86_64 xtensa xtensaeb"
)
_CAPABILITIES: Final = (
    "system pci usb_device usb net scsi_host scsi_target scsi storage fc_host vports scsi_generic drm mdev_types mdev "
    "ccw css vdpa ap_card ap_queue ap_matrix vpd"
)
# Kinds whose name ends in "-list" take several, with commas between them.
WORDS: Final[dict[str, tuple[str, ...]]] = {
    "address-source": ("lease", "agent", "arp"),
    "arch": tuple(_ARCHITECTURES.split()),
    "capability-list": tuple(_CAPABILITIES.split()),
    "codeset": ("linux", "xt", "atset1", "atset2", "atset3", "os_x", "xt_kbd", "usb", "win32", "qnum"),
    "compression-list": ("xbzrle", "mt"),
    "dirty-rate-mode": tuple(DIRTY_RATE_MODES),
    "domain-event": DOMAIN_EVENTS,
    "dump-format": tuple(DUMP_FORMATS),
    "hostname-source": ("agent", "lease"),
    "image-format": ("none", *FORMATS),
    "interface-source-mode": ("server", "client"),
    "lifecycle": ("poweroff", "reboot", "crash"),
    "lifecycle-action": (
        "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart",
    ),
    "network-event": NETWORK_EVENTS,
    "node-device-event": NODE_DEVICE_EVENTS,
    "numa-mode": NUMA_MODES,
    "pci-driver": ("default", "kvm", "vfio", "xen"),
    "perf-list": tuple(PERF),
    "pool-event": POOL_EVENTS,
    "pool-type-list": (
        "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog",
        "gluster", "zfs", "vstorage",
    ),
    "secret-event": SECRET_EVENTS,
    "shutdown-mode-list": ("acpi", "agent", "initctl", "signal", "paravirt"),
    "signal": tuple(SIGNALS),
    "suspend-target": ("mem", "disk", "hybrid"),
    "update-command": ("add", "modify", "delete", "add-last", "add-first"),
    "update-section": SECTIONS,
    "virtualization": (
        "none", "qemu", "kqemu", "kvm", "xen", "lxc", "uml", "openvz", "test", "vmware", "hyperv", "vbox", "phyp",
        "parallels", "bhyve", "vz", "hvf",
    ),
    "wipe-algorithm": (
        "zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random", "trim",
    ),
}  # fmt: skip
