"""Which values the options of commands take: the kinds that ``words`` and ``objects`` know how to list."""

from __future__ import annotations

from typing import Final

# The option, the kind of its values, and the commands that have it; without commands: all others that have it.
_ROWS: Final = (
    ("domain", "domain", ""),
    (
        "domain", "active-domain",
        "backup-begin backup-dumpxml blockcommit blockcopy blockjob blockpull blockresize checkpoint-create "
        "checkpoint-create-as console cpu-stats destroy domblkerror domblkstat domblkthreshold domcontrol domdisplay "
        "domfsfreeze domfsinfo domfsthaw domfstrim domhostname domid domifaddr domifstat domjobabort domjobinfo "
        "dommemstat domtime dump get-user-sshkeys guestinfo guestvcpus inject-nmi lxc-enter-namespace managedsave "
        "migrate-compcache migrate-getmaxdowntime migrate-getspeed migrate-postcopy migrate-setmaxdowntime "
        "migrate-setspeed qemu-agent-command qemu-monitor-command reboot reset save screenshot send-key "
        "send-process-signal set-user-password set-user-sshkeys shutdown ttyconsole vncdisplay",
    ),
    ("domain", "active-domain-with-checkpoint", "checkpoint-delete"),
    (
        "domain", "domain-with-checkpoint",
        "checkpoint-dumpxml checkpoint-edit checkpoint-info checkpoint-list checkpoint-parent",
    ),
    (
        "domain", "domain-with-snapshot",
        "snapshot-current snapshot-delete snapshot-dumpxml snapshot-edit snapshot-info snapshot-list snapshot-parent "
        "snapshot-revert",
    ),
    ("domain", "inactive-domain", "domrename"),
    ("domain", "other-domain", "dompmwakeup"),
    ("domain", "paused-domain", "resume"),
    ("domain", "persistent-domain", "autostart undefine"),
    ("domain", "running-domain", "dompmsuspend suspend"),
    ("domain", "saved-domain", "managedsave-define managedsave-dumpxml managedsave-edit managedsave-remove"),
    ("domain", "shutoff-domain", "start"),
    ("domain", "domain-uuid", "domname"),
    ("network", "network", ""),
    (
        "network", "active-network",
        "net-destroy net-dhcp-leases net-port-create net-port-delete net-port-dumpxml net-port-list",
    ),
    ("network", "inactive-network", "net-start"),
    ("network", "persistent-network", "net-autostart net-undefine"),
    ("network", "network-uuid", "net-name"),
    ("pool", "pool", ""),
    (
        "pool", "active-pool",
        "pool-destroy pool-refresh vol-clone vol-create vol-create-as vol-create-from vol-delete vol-download "
        "vol-dumpxml vol-info vol-key vol-list vol-path vol-resize vol-upload vol-wipe",
    ),
    ("pool", "inactive-pool", "pool-delete pool-start"),
    ("pool", "persistent-pool", "pool-autostart pool-undefine"),
    ("inputpool", "pool", ""),
    ("vol", "volume", ""),
    ("vol", "volume-key", "vol-name vol-pool"),
    ("secret", "secret", ""),
    ("nwfilter", "nwfilter", ""),
    ("binding", "nwfilter-binding", ""),
    ("device", "node-device", ""),
    ("device", "disk", "blkdeviotune domblkinfo domblkstat"),
    ("interface", "host-interface", ""),
    ("interface", "active-host-interface", "iface-destroy"),
    ("interface", "inactive-host-interface", "iface-start"),
    ("interface", "host-interface-mac", "iface-name"),
    ("interface", "interface", "domif-getlink domif-setlink domifaddr domifstat domiftune"),
    ("mac", "interface-mac", "detach-interface"),
    ("mac", "lease-mac", "net-dhcp-leases"),
    ("port", "network-port", "net-port-delete net-port-dumpxml"),
    ("snapshotname", "snapshot", ""),
    ("from", "snapshot", "snapshot-list"),
    ("checkpointname", "checkpoint", ""),
    ("from", "checkpoint", "checkpoint-list"),
    ("dev", "disk", "domblkthreshold"),
    ("path", "disk", "blockcommit blockcopy blockjob blockpull blockresize change-media"),
    ("target", "disk", "detach-disk"),
    ("migrate-disks", "disk-list", "migrate"),
    ("storage", "disk-list", "undefine"),
    ("base", "chain", "blockcommit blockpull"),
    ("top", "chain", "blockcommit"),
    ("alias", "alias", "detach-device-alias update-memory-device"),
    ("devname", "console", "console"),
    ("state", "link-state", "domif-setlink"),
    ("id", "iothread", "iothreaddel iothreadset"),
    ("iothread", "iothread", "attach-disk iothreadpin"),
    ("vcpu", "vcpu", "vcpupin"),
    ("vcpulist", "vcpu-list", "setvcpu"),
    ("cpulist", "cpu-list", "emulatorpin iothreadpin vcpupin"),
    ("cpulist", "guest-vcpu-list", "guestvcpus"),
    ("cpu", "online-cpu", "nodecpustats"),
    ("mountpoint", "mountpoint", "domfsfreeze domfsthaw domfstrim"),
    ("pagesize", "page-size", "allocpages freepages"),
    ("cellno", "cell", "allocpages freecell freepages"),
    ("model", "cpu-model", "hypervisor-cpu-baseline"),
    ("keycode", "keycode", "send-key"),
    ("command", "command", "help"),
    # Words that are always the same.
    ("action", "lifecycle-action", "set-lifecycle-action"),
    ("algorithm", "wipe-algorithm", "vol-wipe"),
    ("arch", "arch", "cpu-models domcapabilities hypervisor-cpu-baseline hypervisor-cpu-compare"),
    ("cap", "capability-list", "nodedev-list"),
    ("codeset", "codeset", "send-key"),
    ("command", "update-command", "net-update"),
    ("comp-methods", "compression-list", "migrate"),
    ("disable", "perf-list", "perf"),
    ("driver", "pci-driver", "nodedev-detach"),
    ("enable", "perf-list", "perf"),
    ("event", "domain-event", "event"),
    ("event", "network-event", "net-event"),
    ("event", "node-device-event", "nodedev-event"),
    ("event", "pool-event", "pool-event"),
    ("event", "secret-event", "secret-event"),
    ("format", "dump-format", "dump"),
    ("format", "image-format", "blockcopy"),
    ("mode", "dirty-rate-mode", "domdirtyrate-calc"),
    ("mode", "numa-mode", "numatune"),
    ("mode", "shutdown-mode-list", "reboot shutdown"),
    ("section", "update-section", "net-update"),
    ("signame", "signal", "send-process-signal"),
    ("source", "address-source", "domifaddr"),
    ("source", "hostname-source", "domhostname"),
    ("source-mode", "interface-source-mode", "attach-interface"),
    ("target", "suspend-target", "dompmsuspend nodesuspend"),
    ("type", "lifecycle", "set-lifecycle-action"),
    ("type", "pool-type-list", "pool-create-as pool-define-as pool-list"),
    ("type", "virtualization", "maxvcpus"),
    ("virttype", "virtualization", "domcapabilities hypervisor-cpu-baseline hypervisor-cpu-compare"),
)  # fmt: skip
_KINDS: Final = {(option, command): kind for option, kind, commands in _ROWS for command in commands.split() or ("",)}


def kind_of(command: str, option: str) -> str | None:
    """The kind of values of a command's option; None where nothing can be offered."""
    return _KINDS.get((option, command), _KINDS.get((option, "")))
