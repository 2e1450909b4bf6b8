"""What the profile of a machine lets its QEMU open: ``get_files`` of ``virt-aa-helper.c``, and what is of our run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.qemu.command.host import Sysfs
from hostel.drivers.qemu.confinement.apparmor.rules import Rules
from hostel.drivers.qemu.hostdevs import functions, needs_vfio, of_host
from hostel.drivers.qemu.ownership.claims import written_below
from hostel.drivers.qemu.status import Status
from hostel.errors import VirtError
from hostel.model.domain.devices.character import CharacterBackend, CharacterType
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.hostdev import ScsiHostdev, UsbHostdev
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.devices.paravirtual import SharedMemory
from hostel.model.domain.devices.source import BackingStore, DiskSource, SourceType
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.os import Os

_SYS: Final = Path("/sys")
_PCI_FILES: Final = ("config", "rom", "reset", "vendor", "device")
_PATHS: Final = (CharacterType.PTY, CharacterType.DEV, CharacterType.FILE, CharacterType.UNIX, CharacterType.PIPE)
_LOCAL: Final = (SourceType.FILE, SourceType.BLOCK, SourceType.DIR)
# What a driver of the host for OpenGL looks at.
_RENDERING: Final = (
    ("/usr/lib{,32,64}/dri/*.so*", "rm"), ("/usr/lib/@{multiarch}/dri/*.so*", "rm"),
    ("/usr/lib/fglrx/dri/*.so*", "rm"), ("/etc/drirc", "r"), ("/usr/share/drirc.d/{,*.conf}", "r"),
    ("/etc/glvnd/egl_vendor.d/{,*}", "r"), ("/usr/share/glvnd/egl_vendor.d/{,*}", "r"),
    ("/usr/share/egl/egl_external_platform.d/", "r"), ("/usr/share/egl/egl_external_platform.d/*", "r"),
    ("/proc/modules", "r"), ("/proc/driver/nvidia/params", "r"), ("/dev/nvidiactl", "rw"), ("/dev/dri/", "r"),
    ("/sys/devices/**/{uevent,vendor,device,subsystem_vendor,subsystem_device,config,revision}", "r"),
)  # fmt: skip
# What programs beside QEMU make for it in the run's directory, what it reads there, and what we have it write.
_RUN_FILES: Final = (
    ("*.sock", "rw"), ("tpm/*.sock", "rw"), ("*.passt", "rw"),
    ("*.base64", "r"), ("*.secret", "r"), ("memory", "rw"), ("screen.ppm", "rw"),
)  # fmt: skip


class Run(NamedTuple):
    """Where a run has its files.

    Attributes:
        folder: the run's directory.
        ground: where QEMU makes its sockets and files.
        log: what QEMU says.
    """

    folder: Path
    ground: Path
    log: Path


def rules(status: Status, run: Run, files: tuple[str, ...] = ()) -> list[str]:
    """The rules of a machine's profile, a line each.

    Args:
        status: the machine, with the marks of what is under way.
        run: where it has its files.
        files: what it is given open.

    Raises:
        Restricted: it is to open what no machine may.
    """
    found = _Machine(status)
    found.run(run)
    found.all()
    for path in files:
        found.rules.file(path, "rwk")
    return [*found.rules.lines()]


class _Machine:
    def __init__(self, status: Status) -> None:
        self.rules = Rules()
        self._status = status
        self._domain: Domain = status.domain
        self._written = written_below(status)

    def run(self, run: Run) -> None:
        """What is of the run itself."""
        rules = self.rules
        rules.own(str(run.log), "", "w")
        rules.own(str(run.ground), "/{,**}", "rwk")
        for pattern, permissions in _RUN_FILES:
            rules.own(str(run.folder), f"/{pattern}", permissions)
        if self._domain.memory_backing is not None:
            # Files of the guest's memory are in directories of this name, on file systems of several kinds.
            rules.raw(f"/**/{run.folder.name}/{{,**}}", "rwk")
        if emulator := self._domain.devices.emulator:
            rules.own(emulator, "", "rm")

    def all(self) -> None:
        """What the document names."""
        self._disks()
        self._characters()
        if self._domain.os is not None:
            self._boot(self._domain.os)
        for screen in self._domain.devices.graphics:
            self._screen(screen)
        self._hostdevs()
        self._devices()

    def _disks(self) -> None:
        marked = [plug.disk for plug in self._status.plugs if plug.disk is not None]
        for disk in [*self._domain.devices.disks, *marked]:
            self._disk(disk)
        for item in self._status.backup.disks.disks if self._status.backup is not None else ():
            if item.store is not None:
                self._image(item.type or SourceType.FILE, item.store, "rwk")

    def _disk(self, disk: Disk) -> None:
        is_read_only = disk.readonly or disk.device == DiskDevice.CDROM
        if disk.source is not None:
            self._image(disk.type, disk.source, "rk" if is_read_only else "rwk")
        self._below(disk.backing_store)
        if disk.mirror is not None and disk.mirror.source is not None:
            self._image(disk.mirror.type or SourceType.FILE, disk.mirror.source, "rwk")
            self._below(disk.mirror.backing_store)

    def _below(self, below: BackingStore | None) -> None:
        while below is not None and below.source is not None and below.type is not None:
            is_written = bool({below.index, below.source.index} - {None} & self._written)
            self._image(below.type, below.source, "rwk" if is_written else "rk")
            below = below.backing_store

    def _image(self, kind: SourceType, source: DiskSource, permissions: str) -> None:
        if kind in _LOCAL:
            path = {SourceType.FILE: source.file, SourceType.BLOCK: source.dev, SourceType.DIR: source.dir}[kind]
            self.rules.file(path, permissions)

    def _characters(self) -> None:
        devices = self._domain.devices
        consoles = {id(item) for item in devices.consoles}
        for end in [*devices.serials, *devices.consoles, *devices.parallels, *devices.channels]:
            self._character(end, is_console=id(end) in consoles)
        for interface in devices.interfaces:
            if interface.type == InterfaceType.VHOSTUSER and interface.source is not None:
                self.rules.file(interface.source.path, "rw")

    def _character(self, end: CharacterBackend, *, is_console: bool) -> None:
        if end.log is not None:
            self.rules.file(end.log.file, "rw")
        if end.type not in _PATHS or end.source is None or not end.source.path:
            return
        if end.type == CharacterType.PIPE and not is_console:
            self.rules.file(f"{end.source.path}.in", "rw")
            self.rules.file(f"{end.source.path}.out", "rw")
            if os.path.exists(f"{end.source.path}.in"):
                return
        self.rules.file(end.source.path, "rw")

    def _boot(self, os_: Os) -> None:
        tables = [table.path for table in os_.acpi.tables] if os_.acpi is not None else []
        for path in (os_.kernel, os_.initrd, os_.dtb, *tables):
            self.rules.file(path, "r")
        if os_.loader is not None:
            self.rules.file(os_.loader.path, "rk")
        if (nvram := os_.nvram) is not None:
            if nvram.source is not None:
                self._image(nvram.type or SourceType.FILE, nvram.source, "rwk")
            self.rules.file(nvram.path, "rwk")

    def _screen(self, screen: Graphics) -> None:
        node = screen.gl.rendernode if screen.gl is not None else None
        if node is not None:
            self.rules.file(node, "rw")
        if node is not None or (screen.gl is not None and screen.gl.enable):
            for pattern, permissions in _RENDERING:
                self.rules.raw(pattern, permissions)
        for listen in screen.listens:
            self.rules.file(listen.socket, "rw")
        if screen.type == GraphicsType.SDL:
            self.rules.file(screen.xauth, "r")

    def _hostdevs(self) -> None:
        devices = of_host(self._domain)
        for device in devices:
            if isinstance(device, UsbHostdev) and device.source.address is not None and not device.source.missing:
                bus, number = device.source.address.bus, device.source.address.device
                self.rules.file(f"/dev/bus/usb/{bus:03}/{number:03}", "rw")
            elif isinstance(device, ScsiHostdev) and device.source.adapter is not None and device.source.address:
                unit = device.source.address
                try:
                    node = Sysfs().scsi_generic(device.source.adapter, unit.bus, unit.target, unit.unit)
                except VirtError:
                    continue  # QEMU says so
                self.rules.file(node, "rw")
        for function in functions(devices):
            folder = _SYS / "bus/pci/devices" / function.name
            for name in sorted(item.name for item in folder.glob("*")):
                if name in _PCI_FILES or name.startswith("resource"):
                    self.rules.file(str(folder / name), "rw")
        if needs_vfio(devices):
            self.rules.raw("/dev/vfio/vfio", "rw")
            self.rules.raw("/dev/vfio/[0-9]*", "rw")

    def _devices(self) -> None:
        devices = self._domain.devices
        for item in devices.filesystems:
            kind = item.driver.type if item.driver is not None else None
            if item.type == "mount" and kind in (None, "path") and item.source is not None and item.source.dir:
                self.rules.directory(item.source.dir, "r" if item.readonly else "rwl")
        for each in devices.inputs:
            if each.type in ("passthrough", "evdev") and each.source is not None:
                self.rules.file(each.source.evdev or each.source.dev, "rw")
        for module in devices.memories:
            if module.model in ("nvdimm", "virtio-pmem") and module.source is not None:
                self.rules.file(module.source.path, "rw")
        for table in self._domain.sysinfos:
            for entry in table.entries:
                self.rules.file(entry.file, "r")
        for memory in devices.shmems:
            self.rules.file(_shared(memory), "rw")
        for tpm in devices.tpms:
            if tpm.backend.type == "passthrough":
                self.rules.file(tpm.backend.device or "/dev/tpm0", "rw")
        for card in devices.smartcards:
            if card.mode != "passthrough":
                self.rules.raw(f"{card.database or '/etc/pki/nssdb'}/{{,*}}", "rk")
        if self._domain.type == DomainType.KVM and devices.interfaces:
            self.rules.raw("/dev/vhost-net", "rw")


def _shared(memory: SharedMemory) -> str:
    if memory.server is not None and memory.server.path:
        return memory.server.path
    if memory.model == "ivshmem-plain":
        return f"/dev/shm/{memory.name}"
    return f"/var/lib/libvirt/shmem-{memory.name}-sock"
