"""Which module has which command; a module is imported when one of its commands is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from hostel.cli.options import Command
from hostel.cli.virsh.aliases import ALIASES
from hostel.cli.virsh.session import CommandError
from hostel.errors import UsageError


class Group(NamedTuple):
    """Commands that belong together: virsh's title and keyword for them, their names, and where each is.

    Attributes:
        title: what ``help`` calls the group.
        keyword: what the group is asked for by.
        module: the module of the commands that ``others`` does not have.
        names: their names, in virsh's order.
        others: more modules, and the names of what each of them has.
    """

    title: str
    keyword: str
    module: str
    names: str
    others: Mapping[str, str] = {}

    def modules(self) -> dict[str, str]:
        """Each command's module, in the group's order."""
        elsewhere = {name: module for module, names in self.others.items() for name in names.split()}
        return {name: elsewhere.get(name, self.module) for name in self.names.split()}


GROUPS: Final = (
    Group(
        "Domain Management",
        "domain",
        "domain",
        "attach-device attach-disk attach-interface autostart blkdeviotune blkiotune blockcommit blockcopy blockjob "
        "blockpull blockresize change-media console cpu-stats create define desc destroy detach-device "
        "detach-device-alias detach-disk detach-interface domdisplay domfsfreeze domfsthaw domfsinfo domfstrim "
        "domhostname domid domif-setlink domiftune domjobabort domjobinfo domlaunchsecinfo domsetlaunchsecstate "
        "domname domrename dompmsuspend dompmwakeup domuuid domxml-from-native domxml-to-native dump dumpxml edit "
        "get-user-sshkeys inject-nmi iothreadinfo iothreadpin iothreadadd iothreadset iothreaddel send-key "
        "send-process-signal lxc-enter-namespace managedsave managedsave-remove managedsave-edit managedsave-dumpxml "
        "managedsave-define memtune perf metadata migrate migrate-setmaxdowntime migrate-getmaxdowntime "
        "migrate-compcache migrate-setspeed migrate-getspeed migrate-postcopy numatune qemu-attach "
        "qemu-monitor-command qemu-monitor-event qemu-agent-command guest-agent-timeout reboot reset restore resume "
        "save save-image-define save-image-dumpxml save-image-edit schedinfo screenshot set-lifecycle-action "
        "set-user-sshkeys set-user-password setmaxmem setmem setvcpus shutdown start suspend ttyconsole undefine "
        "update-device update-memory-device vcpucount vcpuinfo vcpupin emulatorpin vncdisplay guestvcpus setvcpu "
        "domblkthreshold guestinfo domdirtyrate-calc dom-fd-associate",
        {
            "device": "attach-device detach-device detach-device-alias update-device",
            "domain_disk": "attach-disk change-media detach-disk",
            "domain_interface": "attach-interface detach-interface domif-setlink",
            "saving": (
                "managedsave managedsave-remove managedsave-dumpxml managedsave-define restore save save-image-define "
                "save-image-dumpxml"
            ),
            "job": "domjobabort domjobinfo",
            "migration": (
                "migrate migrate-compcache migrate-getmaxdowntime migrate-getspeed migrate-postcopy "
                "migrate-setmaxdowntime migrate-setspeed"
            ),
            "agent": "domfsfreeze domfsthaw domfstrim qemu-agent-command",
            "inside": (
                "domfsinfo domhostname dompmsuspend dompmwakeup get-user-sshkeys guest-agent-timeout guestinfo "
                "guestvcpus set-user-password set-user-sshkeys"
            ),
            "machine": "domrename inject-nmi qemu-monitor-command screenshot send-key setmaxmem setmem setvcpus",
            "counting": "setvcpu vcpucount",
            "memory_device": "update-memory-device",
            "object_event": "qemu-monitor-event",
            "editing": "edit managedsave-edit save-image-edit",
            "dumping": (
                "domdirtyrate-calc dump lxc-enter-namespace qemu-attach send-process-signal set-lifecycle-action"
            ),
            "display": "domdisplay",
            "hostmemory": "domlaunchsecinfo domsetlaunchsecstate",
            "pinning": (
                "cpu-stats emulatorpin iothreadadd iothreaddel iothreadinfo iothreadpin iothreadset vcpuinfo vcpupin"
            ),
            "limits": "blkiotune domiftune memtune numatune perf schedinfo",
            "metadata": "desc metadata",
            "native": "domxml-from-native domxml-to-native",
            "block": "blkdeviotune blockcommit blockcopy blockjob blockpull blockresize domblkthreshold",
        },
    ),
    Group(
        "Domain Monitoring",
        "monitor",
        "domain_monitor",
        "domblkerror domblkinfo domblklist domblkstat domcontrol domif-getlink domifaddr domiflist domifstat dominfo "
        "dommemstat domstate domstats domtime list",
        {
            "device_monitor": "domblkerror domblkinfo domblkstat domif-getlink domifaddr domiflist domifstat",
            "machine": "dommemstat domstats",
            "counting": "domcontrol",
            "inside": "domtime",
        },
    ),
    Group("Domain Events", "events", "event", "event"),
    Group(
        "Host and Hypervisor",
        "host",
        "host",
        "allocpages capabilities cpu-baseline cpu-compare cpu-models domcapabilities freecell freepages hostname "
        "hypervisor-cpu-baseline hypervisor-cpu-compare maxvcpus node-memory-tune nodecpumap nodecpustats nodeinfo "
        "nodememstats nodesevinfo nodesuspend sysinfo uri version",
        {
            "capability": (
                "cpu-baseline cpu-compare cpu-models domcapabilities hypervisor-cpu-baseline hypervisor-cpu-compare"
            ),
            "hostmemory": "allocpages freepages node-memory-tune nodesevinfo nodesuspend sysinfo",
        },
    ),
    Group(
        "Checkpoint",
        "checkpoint",
        "checkpoint",
        "checkpoint-create checkpoint-create-as checkpoint-delete checkpoint-dumpxml checkpoint-edit checkpoint-info "
        "checkpoint-list checkpoint-parent",
        {
            "editing": "checkpoint-edit",
        },
    ),
    Group(
        "Interface",
        "interface",
        "interface",
        "iface-begin iface-bridge iface-commit iface-define iface-destroy iface-dumpxml iface-edit iface-list "
        "iface-mac iface-name iface-rollback iface-start iface-unbridge iface-undefine",
        {
            "editing": "iface-edit",
            "bridging": "iface-bridge iface-unbridge",
        },
    ),
    Group(
        "Network Filter",
        "filter",
        "nwfilter",
        "nwfilter-define nwfilter-dumpxml nwfilter-edit nwfilter-list nwfilter-undefine nwfilter-binding-create "
        "nwfilter-binding-delete nwfilter-binding-dumpxml nwfilter-binding-list",
        {
            "editing": "nwfilter-edit",
        },
    ),
    Group(
        "Networking",
        "network",
        "network",
        "net-autostart net-create net-define net-destroy net-dhcp-leases net-dumpxml net-edit net-event net-info "
        "net-list net-name net-start net-undefine net-update net-uuid net-port-list net-port-create net-port-dumpxml "
        "net-port-delete",
        {
            "editing": "net-edit",
            "network_port": (
                "net-dhcp-leases net-event net-port-list net-port-create net-port-dumpxml net-port-delete"
            ),
        },
    ),
    Group(
        "Node Device",
        "nodedev",
        "nodedev",
        "nodedev-create nodedev-destroy nodedev-detach nodedev-dumpxml nodedev-list nodedev-reattach nodedev-reset "
        "nodedev-event nodedev-define nodedev-undefine nodedev-start nodedev-autostart nodedev-info",
        {
            "object_event": "nodedev-event",
        },
    ),
    Group(
        "Secret",
        "secret",
        "secret",
        "secret-define secret-dumpxml secret-event secret-get-value secret-list secret-set-value secret-undefine",
        {
            "object_event": "secret-event",
        },
    ),
    Group(
        "Snapshot",
        "snapshot",
        "snapshot",
        "snapshot-create snapshot-create-as snapshot-current snapshot-delete snapshot-dumpxml snapshot-edit "
        "snapshot-info snapshot-list snapshot-parent snapshot-revert",
        {
            "editing": "snapshot-edit",
        },
    ),
    Group("Backup", "backup", "backup", "backup-begin backup-dumpxml"),
    Group(
        "Storage Pool",
        "pool",
        "pool",
        "find-storage-pool-sources-as find-storage-pool-sources pool-autostart pool-build pool-create-as pool-create "
        "pool-define-as pool-define pool-delete pool-destroy pool-dumpxml pool-edit pool-info pool-list pool-name "
        "pool-refresh pool-start pool-undefine pool-uuid pool-event pool-capabilities",
        {
            "editing": "pool-edit",
            "object_event": "pool-event",
        },
    ),
    Group(
        "Storage Volume",
        "volume",
        "volume",
        "vol-clone vol-create-as vol-create vol-create-from vol-delete vol-download vol-dumpxml vol-info vol-key "
        "vol-list vol-name vol-path vol-pool vol-resize vol-upload vol-wipe",
    ),
    Group("Virsh itself", "virsh", "shell", "cd echo exit help pwd quit connect"),
)
# What no list names: where it is, and what is another name of which command.
_HIDDEN: Final = {"complete": "shell"}
_OTHER_NAMES: Final = {"nodedev-dettach": "nodedev-detach"}
COMMANDS: Final = {name: group for group in GROUPS for name in group.modules()}


def find_group(keyword: str) -> Group | None:
    """The group of a keyword, or of its whole title."""
    return next((group for group in GROUPS if keyword in (group.keyword, group.title)), None)


def commands_of(group: Group) -> tuple[Command, ...]:
    """The commands of a group, in its order."""
    modules = group.modules()
    found = {command.name: command for module in dict.fromkeys(modules.values()) for command in _commands_in(module)}
    return tuple(found[name] for name in modules)


def _commands_in(module: str) -> tuple[Command, ...]:
    return cast("tuple[Command, ...]", importlib.import_module(f"hostel.cli.virsh.{module}").COMMANDS)


def find(name: str, *, for_help: bool = False) -> Command:
    """The command of this name.

    Raises:
        UsageError: virsh has no such command.
        CommandError: the same, when ``help`` asks.
    """
    name = _OTHER_NAMES.get(name, name)
    group = COMMANDS.get(name)
    module = group.modules()[name] if group is not None else _HIDDEN.get(name)
    if module is not None:
        found = next(command for command in _commands_in(module) if command.name == name)
        return found._replace(aliases=ALIASES[name]) if name in ALIASES else found
    if for_help:
        raise CommandError(f"command or command group '{name}' doesn't exist")
    raise UsageError(f"unknown command: '{name}'")
