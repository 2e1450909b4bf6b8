"""The installation: what is booted first, what is left afterwards, and the two documents that say so."""

from __future__ import annotations

import copy
from typing import NamedTuple

from hostel.cli.virt_install import defaults, disk, general, graphics, network, tree
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.media import Start
from hostel.cli.virt_install.storage import Medium, Storage
from hostel.cli.virt_install.tree import Node
from hostel.errors import HostelError, UsageError


class Method(NamedTuple):
    """How the system gets onto the machine.

    Attributes:
        cdrom: the medium it is installed from.
        boot: the kind of device that the installation boots from.
        installs: whether there is an installation at all, and not just a machine to boot.
        is_chosen: whether the user said so.
        start: the kernel that the installation boots.
        seed: the CD-ROM of cloud-init, for the first boot alone.
        answers: the CD-ROM with what answers the installer.
        memory: what the installation needs of it, in KiB, where that is more than the machine has.
    """

    cdrom: Medium | None = None
    boot: str | None = None
    installs: bool = False
    is_chosen: bool = False
    start: Start | None = None
    seed: str | None = None
    answers: str | None = None
    memory: int = 0

    @property
    def medium(self) -> Medium | None:
        """The CD-ROM that the machine is given."""
        return self.cdrom or (self.start.medium if self.start is not None else None)


def cdrom_medium(storage: Storage, path: str) -> Medium:
    """The medium of ``--cdrom``.

    Raises:
        UsageError: it is not there.
    """
    try:
        medium = storage.locate(path)
    except HostelError as error:
        raise UsageError(f"Validating install media '{path}' failed: {error}") from None
    if not medium.exists:
        raise UsageError(f"Validating install media '{path}' failed: there is no such file")
    if medium.type == "dir":
        raise UsageError(f"Validating install media '{path}' failed: it is a directory")
    return medium


class Plan:
    """A guest, the way it is installed, and the documents of both phases.

    Attributes:
        guest: the machine.
        method: how it is installed.
        is_again: whether the machine exists, and keeps all that it has.
    """

    def __init__(self, guest: Guest, method: Method, *, is_again: bool = False) -> None:
        self.guest = guest
        self.method = method
        self.is_again = is_again

    @property
    def installs(self) -> bool:
        """Whether the machine is started with one document and kept with another."""
        return self.method.installs or self.method.answers is not None or self.method.seed is not None

    def complete(self) -> list[str]:
        """Add the installation medium, the boot order, and all that virt-install adds; returns warnings."""
        guest = self.guest
        if self.method.medium is not None:
            self._insert(self.method.medium)
        if not general.boot_devices(guest) and _may_order(guest):
            general.set_boot_devices(guest, _order(guest, self._last_boot()))
        return [] if self.is_again else defaults.complete(guest)

    def _insert(self, medium: Medium) -> None:
        """Put the medium into the machine: a drive of its own, or the first of one that exists."""
        guest = self.guest
        drives = guest.devices["disk"]
        first = next((index for index, other in enumerate(disk.disks(guest)) if other.device == "cdrom"), None)
        if self.is_again and first is not None:
            drive = disk.disks(guest)[first]
            drive.put("@type", medium.type)
            drive.insert(medium)
            return
        drive = disk.cdrom(medium)
        # Before any other drive, which a boot from "cdrom" would take first.
        drives.insert(len(drives) if first is None else first, drive)
        if self.is_again:
            disk.complete(guest, drive)

    def _last_boot(self) -> str:
        """What the machine boots from once it is installed."""
        if self.method.cdrom is not None and not self.method.installs:
            return "cdrom"
        disks = disk.disks(self.guest)
        if self.method.boot is not None:
            return "hd" if any(part.device == "disk" for part in disks) else self.method.boot
        first = disks[0].device if disks else "disk"
        return {"cdrom": "cdrom", "floppy": "fd"}.get(first, "hd")

    def documents(self) -> tuple[str | None, str]:
        """The document to install with, where there is an installation, and the one to keep."""
        root = self.guest.element()
        write = tree.write if self.guest.domain.base is None else tree.text_of
        if not self.installs:
            return None, write(root)
        first = copy.deepcopy(root)
        self._for_installation(first)
        if (self.method.seed or self.method.answers) and not self.is_again:
            _add_drive(self.guest, root, None)
        # Windows reads it again and again; and virt-install leaves it in a machine that it installs again.
        if self.method.cdrom is not None and not self.guest.hardware.windows and not self.is_again:
            _eject(root, self.method.cdrom.path)
        return write(first), write(root)

    def check(self) -> None:
        """Hold the documents against the domain model, and what they name on the host against the host.

        Raises:
            ModelError: a value is none that the element can have.
            UsageError: a network or a bridge is not there, or the host has no such display.
        """
        from hostel.model.domain.domain import Domain

        first, last = self.documents()
        for text in filter(None, (first, last)):
            Domain.parse(text)
        if graphics.has_spice(self.guest) and not self.guest.has_spice:
            raise UsageError("--graphics spice is not supported by this connection yet; use --graphics vnc")
        network.check(self.guest)

    def _for_installation(self, root: Node) -> None:
        """Boot from the medium, and stop at the guest's reboot: then the installation is over."""
        for boot in root.findall("os/boot"):
            tree.remove(boot)
        if self.is_again:
            self._give_way(root)
        start = self.method.start
        if start is not None:
            for name, value in (("kernel", start.kernel), ("initrd", start.initrd), ("cmdline", start.arguments)):
                if value:
                    tree.set_value(root, f"os/{name}", value)
        if self.method.seed is not None:
            _add_drive(self.guest, root, self.method.seed)
        elif self.method.answers is not None:
            _add_drive(self.guest, root, self.method.answers)
        if self.method.memory:
            tree.set_value(root, "currentMemory", str(self.method.memory))
            most = tree.value_at(root, "memory")
            if most is not None and int(most) < self.method.memory:
                tree.set_value(root, "memory", str(self.method.memory))
        may_order = (self.is_again and not self.guest.is_container) or _may_order(self.guest)
        if self.method.boot is not None and start is None and may_order:
            for index, device in enumerate(_order(self.guest, self.method.boot)):
                tree.set_value(root, f"os/boot[{index}]/@dev", device)
        if self.method.seed is not None:
            _tell_of_seed(self.guest, root)
        tree.set_value(root, "on_reboot", "destroy")

    def _give_way(self, root: Node) -> None:
        """Take out what the machine boots otherwise, which would come before the installation."""
        if self.method.boot is None and self.method.start is None:
            return
        for name in ("kernel", "initrd", "cmdline"):
            tree.unset(root, f"os/{name}")
        for boot in root.findall("devices/*/boot"):
            tree.remove(boot)


def _add_drive(guest: Guest, root: Node, path: str | None) -> None:
    """Add a CD-ROM drive, with the seed of cloud-init or empty."""
    drive = disk.cdrom(None if path is None else Medium("file", path, exists=True, format="raw"))
    disk.complete(guest, drive)
    tree.append(tree.make(root, ["devices"]), tree.indent(drive.element(), 2))


def _tell_of_seed(guest: Guest, root: Node) -> None:
    """Say by the machine's serial number that there is a seed for cloud-init, which looks for its label in any case."""
    mode = tree.value_at(root, "os/smbios/@mode")
    told = root.xpath("sysinfo[@type='smbios']/system/entry[@name='serial']")
    takes = guest.host.names_filesystems and (guest.is_x86 or guest.is_arm_virt)
    if takes and mode in (None, "sysinfo") and not told:
        tree.set_value(root, "os/smbios/@mode", "sysinfo")
        tree.set_value(root, "sysinfo[@type='smbios']/system/entry[@name='serial']", "ds=nocloud")


def _may_order(guest: Guest) -> bool:
    """Whether kinds of device can be ordered: not beside a kernel, and not beside the order of single devices."""
    if guest.is_container:
        return False
    return guest.domain.get("os/kernel") is None and not any(part.get("boot/@order") for part in guest.bootable())


def _order(guest: Guest, device: str) -> list[str]:
    """A kind of device first, and the disk after it, so that a guest marks it as one to boot from."""
    has_disk = any(part.device == "disk" for part in disk.disks(guest))
    return [device, "hd"] if has_disk and device != "hd" else [device]


def _eject(root: Node, path: str) -> None:
    """Take the medium out of its drive."""
    for drive in root.iterfind("devices/disk[@device='cdrom']"):
        source = drive.find("source")
        if source is None or path not in (source.get("file"), source.get("dev"), _url(source)):
            continue
        for element in (source, drive.find("driver")):
            if element is not None:
                drive.remove(element)
        drive.set("type", "file")
        return


def _url(source: Node) -> str | None:
    protocol, host = source.get("protocol"), source.find("host")
    if protocol is None or host is None:
        return None
    port = f":{host.get('port')}" if host.get("port") else ""
    return f"{protocol}://{host.get('name')}{port}/{source.get('name', '')}"
