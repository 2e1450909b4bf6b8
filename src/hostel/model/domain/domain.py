"""The root of a domain's document, and its devices (``virDomainDefFormatInternalSetRootName``).

>>> domain = Domain.parse("<domain type='qemu'><name>web</name><memory unit='MiB'>512</memory>"
...     "<os><type>hvm</type></os><devices><disk><target dev='vda'/></disk></devices></domain>")
>>> domain.memory.to_kib(), domain.devices.disks[0].target.dev
(524288, 'vda')
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from hostel.codec.xml import (
    UUID,
    YES_NO,
    Element,
    Kind,
    attr,
    child,
    children,
    choice,
    content,
    enumeration,
    integer,
    setting,
    text,
    verbatim,
)
from hostel.errors import ErrorCode
from hostel.model.domain.clock import Clock
from hostel.model.domain.cpu import Cpu, Vcpu, Vcpus
from hostel.model.domain.devices.character import Channel, CharacterEnd, Console, Parallel, Serial
from hostel.model.domain.devices.controller import Controller
from hostel.model.domain.devices.device import BootableDevice, Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.hostdev import (
    Hostdev,
    MdevHostdev,
    MiscHostdev,
    NetHostdev,
    PciHostdev,
    ScsiHostdev,
    ScsiHostHostdev,
    StorageHostdev,
    UsbHostdev,
)
from hostel.model.domain.devices.input import Hub, Input
from hostel.model.domain.devices.interface import HostdevInterface, Interface
from hostel.model.domain.devices.paravirtual import MemoryBalloon, Rng, SharedMemory, Vsock
from hostel.model.domain.devices.platform import DeviceNvram, Iommu, Lease, MemoryDevice, Panic, Tpm, Watchdog
from hostel.model.domain.devices.redirection import Redirdev, RedirectionFilter, Smartcard
from hostel.model.domain.devices.seclabel import SecurityLabel
from hostel.model.domain.devices.sound import Audio, Sound
from hostel.model.domain.devices.video import Video
from hostel.model.domain.features import Features
from hostel.model.domain.memory import CurrentMemory, MaxMemory, Memory, MemoryBacking, Memtune, Numatune
from hostel.model.domain.os import Os
from hostel.model.domain.passthrough import QemuCapabilities, QemuCommandline, QemuDeprecation, QemuOverride
from hostel.model.domain.security import Keywrap, LaunchSecurity
from hostel.model.domain.sysinfo import Sysinfo
from hostel.model.domain.tune import Blkiotune, Cputune, DefaultIoThread, IdMap, IoThreadIds, Perf, Resource


def _action(event: str) -> Kind[str]:
    return choice(
        "destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart",
        code=ErrorCode.CONFIG_UNSUPPORTED, words=f"unknown {event} action: {{}}",
    )  # fmt: skip


class DomainType(enum.StrEnum):
    """``virDomainVirtType``."""

    NONE = "none"
    QEMU = "qemu"
    KQEMU = "kqemu"
    KVM = "kvm"
    XEN = "xen"
    LXC = "lxc"
    UML = "uml"
    OPENVZ = "openvz"
    TEST = "test"
    VMWARE = "vmware"
    HYPERV = "hyperv"
    VBOX = "vbox"
    PHYP = "phyp"
    PARALLELS = "parallels"
    BHYVE = "bhyve"
    VZ = "vz"
    HVF = "hvf"


class PowerManagement(Element, tag="pm", drop_empty=True):
    """Which ways of sleeping the guest is told of."""

    suspend_to_mem: bool | None = setting(YES_NO, tag="suspend-to-mem", name="enabled", default=None, implied=None)
    suspend_to_disk: bool | None = setting(YES_NO, tag="suspend-to-disk", name="enabled", default=None, implied=None)


class Devices(Element, tag="devices", keep_open=True):
    """Every device, kind by kind."""

    emulator: str | None = text(default=None)
    disks: list[Disk] = children(Disk, factory=list)
    controllers: list[Controller] = children(Controller, factory=list)
    leases: list[Lease] = children(Lease, factory=list)
    filesystems: list[Filesystem] = children(Filesystem, factory=list)
    interfaces: list[Interface] = children(HostdevInterface, Interface, factory=list)
    smartcards: list[Smartcard] = children(Smartcard, factory=list)
    serials: list[Serial] = children(Serial, factory=list)
    parallels: list[Parallel] = children(Parallel, factory=list)
    consoles: list[Console] = children(Console, factory=list)
    channels: list[Channel] = children(Channel, factory=list)
    inputs: list[Input] = children(Input, factory=list)
    tpms: list[Tpm] = children(Tpm, factory=list)
    graphics: list[Graphics] = children(Graphics, factory=list)
    sounds: list[Sound] = children(Sound, factory=list)
    audios: list[Audio] = children(Audio, factory=list)
    videos: list[Video] = children(Video, factory=list)
    hostdevs: list[Hostdev] = children(
        PciHostdev,
        UsbHostdev,
        ScsiHostdev,
        ScsiHostHostdev,
        MdevHostdev,
        StorageHostdev,
        MiscHostdev,
        NetHostdev,
        factory=list,
    )
    redirdevs: list[Redirdev] = children(Redirdev, factory=list)
    redirfilter: RedirectionFilter | None = child(RedirectionFilter, default=None)
    hubs: list[Hub] = children(Hub, factory=list)
    watchdogs: list[Watchdog] = children(Watchdog, factory=list)
    memballoon: MemoryBalloon | None = child(MemoryBalloon, default=None)
    rngs: list[Rng] = children(Rng, factory=list)
    nvram: DeviceNvram | None = child(DeviceNvram, default=None)
    panics: list[Panic] = children(Panic, factory=list)
    shmems: list[SharedMemory] = children(SharedMemory, factory=list)
    memories: list[MemoryDevice] = children(MemoryDevice, factory=list)
    iommu: Iommu | None = child(Iommu, default=None)
    vsock: Vsock | None = child(Vsock, default=None)

    def all(self) -> Iterator[Device]:
        """Every device that has an alias and an address, in output order."""
        return (element for element in self.elements() if isinstance(element, Device))

    def path(self, device: Element) -> str:
        """Where a device is in the document, such as ``/domain/devices/disk[2]``."""
        position = 0
        for field in self.FIELDS:
            value = getattr(self, field.name) if field.tag == device.TAG else None
            for position, element in enumerate(value if isinstance(value, list) else [value], 1):
                if element is device:
                    return f"/domain/devices/{device.TAG}[{position}]"
        return f"/domain/devices/{device.TAG}[{position}]"

    def bootable(self) -> Iterator[BootableDevice | Redirdev]:
        """Every device that firmware can boot from."""
        return (element for element in self.elements() if isinstance(element, BootableDevice | Redirdev))

    def characters(self) -> Iterator[CharacterEnd]:
        """Every device with an end on the host."""
        return (element for element in self.elements() if isinstance(element, CharacterEnd))


class GenerationId(Element, tag="genid"):
    """A number that changes when the guest goes back in time; empty asks for a new one."""

    value: str | None = content(UUID, default=None)


class Domain(Element, tag="domain"):
    """A domain, persistent or live; ``id`` only while it runs."""

    type: DomainType = attr(enumeration(DomainType, code=ErrorCode.CONFIG_UNSUPPORTED))
    id: int | None = attr(integer(), default=None)
    name: str = text(default="")
    uuid: str | None = text(UUID, default=None)
    genid: GenerationId | None = child(GenerationId, default=None)
    title: str | None = text(default=None)
    description: str | None = text(default=None)
    metadata: str | None = verbatim(default=None)
    max_memory: MaxMemory | None = child(MaxMemory, default=None)
    memory: Memory | None = child(Memory, default=None)
    current_memory: CurrentMemory | None = child(CurrentMemory, default=None)
    blkiotune: Blkiotune | None = child(Blkiotune, default=None)
    memtune: Memtune | None = child(Memtune, default=None)
    memory_backing: MemoryBacking | None = child(MemoryBacking, default=None)
    vcpu: Vcpu | None = child(Vcpu, default=None)
    vcpus: Vcpus | None = child(Vcpus, default=None)
    iothreads: int | None = text(integer(), default=None)
    iothread_ids: IoThreadIds | None = child(IoThreadIds, default=None)
    default_iothread: DefaultIoThread | None = child(DefaultIoThread, default=None)
    cputune: Cputune | None = child(Cputune, default=None)
    numatune: Numatune | None = child(Numatune, default=None)
    resource: Resource | None = child(Resource, default=None)
    sysinfos: list[Sysinfo] = children(Sysinfo, factory=list)
    bootloader: str | None = text(default=None)
    bootloader_args: str | None = text(default=None)
    os: Os | None = child(Os, default=None)
    idmap: IdMap | None = child(IdMap, default=None)
    features: Features | None = child(Features, default=None)
    cpu: Cpu | None = child(Cpu, default=None)
    clock: Clock | None = child(Clock, default=None)
    on_poweroff: str | None = text(_action("on_poweroff"), default=None)
    on_reboot: str | None = text(_action("on_reboot"), default=None)
    on_crash: str | None = text(_action("on_crash"), default=None)
    on_lockfailure: str | None = text(
        choice(
            "poweroff",
            "restart",
            "pause",
            "ignore",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="unknown on_lockfailure action: {}",
        ),
        default=None,
    )
    pm: PowerManagement | None = child(PowerManagement, default=None)
    perf: Perf | None = child(Perf, default=None)
    devices: Devices = child(Devices, factory=Devices)
    seclabels: list[SecurityLabel] = children(SecurityLabel, factory=list)
    keywrap: Keywrap | None = child(Keywrap, default=None)
    launch_security: LaunchSecurity | None = child(LaunchSecurity, default=None)
    qemu_commandline: QemuCommandline | None = child(QemuCommandline, default=None)
    qemu_capabilities: QemuCapabilities | None = child(QemuCapabilities, default=None)
    qemu_override: QemuOverride | None = child(QemuOverride, default=None)
    qemu_deprecation: QemuDeprecation | None = child(QemuDeprecation, default=None)
