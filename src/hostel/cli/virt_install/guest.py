"""The guest that is being put together: the domain's own values, its devices, and the XML of both."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install import osinfo
from hostel.cli.virt_install.host import Host, Platform
from hostel.cli.virt_install.part import Node, Part, write

DEVICES: Final = (
    "disk", "controller", "interface", "serial", "parallel", "console", "channel", "input", "tpm", "graphics",
    "sound", "video", "redirdev", "watchdog", "memballoon", "rng", "panic", "vsock",
)  # fmt: skip
# virt-install's order of the domain's own elements; the devices stand before "*".
_ORDER: Final = (
    "@type", "name", "uuid", "genid", "title", "description", "metadata",
    "maxMemory", "memory", "currentMemory", "memoryBacking",
    "vcpu/@current", "vcpu/@placement", "vcpu/@cpuset", "vcpu", "vcpus",
    "os/@firmware", "os/type/@arch", "os/type/@machine", "os/type", "os/loader/@readonly", "os/loader/@secure",
    "os/loader", "os/nvram", "os/kernel", "os/initrd", "os/cmdline", "os/dtb", "os/boot",
    "os/bootmenu/@enable", "os/bootmenu/@timeout", "os/bios/@useserial", "os/bios/@rebootTimeout", "os/smbios", "os",
    "features/acpi", "features/apic", "features/pae", "features",
    "cpu/@mode", "cpu/@match", "cpu/@check", "cpu/@migratable", "cpu/model", "cpu/vendor",
    "cpu/topology/@sockets", "cpu/topology/@dies", "cpu/topology/@cores", "cpu/topology/@threads",
    "cpu/cache", "cpu/feature", "clock",
    "on_poweroff", "on_reboot", "on_crash", "pm", "devices", "*",
)  # fmt: skip
_USB2: Final = (("ich9-ehci1", None), ("ich9-uhci1", "0"), ("ich9-uhci2", "2"), ("ich9-uhci3", "4"))


class Guest:
    """One machine to be.

    Attributes:
        host: what it will run on.
        domain: everything but the devices.
        devices: the devices by kind.
        system: the operating system that it will hold.
        without: kinds of device that the user declined with ``none``.
        root_ports: how many PCIe root ports a q35 machine gets, for devices that come later.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.domain = Part("domain", _ORDER)
        self.devices: dict[str, list[Part]] = {kind: [] for kind in DEVICES}
        self.system = osinfo.find(osinfo.GENERIC)
        self.without: set[str] = set()
        self.root_ports = 14  # QEMU 6.1 hangs with 15 and more: https://gitlab.com/qemu-project/qemu/-/issues/641
        self.platform: Platform | None = None

    @property
    def name(self) -> str:
        """The guest's name; empty until it has one."""
        return self.domain.get("name") or ""

    @property
    def is_hvm(self) -> bool:
        """Whether it is a whole machine."""
        return self.domain.get("os/type") == "hvm"

    @property
    def is_x86(self) -> bool:
        """Whether its processor is of the PC's family."""
        return self.domain.get("os/type/@arch") in ("x86_64", "i686")

    @property
    def is_q35(self) -> bool:
        """Whether its chipset is q35, with PCI Express."""
        return self.is_x86 and "q35" in (self.domain.get("os/type/@machine") or "")

    @property
    def hardware(self) -> osinfo.Hardware:
        """What its system has drivers for, where the hypervisor has the devices."""
        return self.system.hardware

    def virtio(self, *, supported: bool) -> bool:
        """Whether a virtio device may be used: QEMU has them, and the system must know this one."""
        return self.host.is_qemu and self.is_x86 and supported

    def set_system(self, system: osinfo.System) -> None:
        """Take a system, and note it in the document where libosinfo has an identifier for it."""
        self.system = system
        self.domain.clear("metadata")
        if system.identifier:
            self.domain.put("metadata/libosinfo:libosinfo/libosinfo:os/@id", system.identifier)

    def resolve(self) -> Platform:
        """Fill in type, architecture, emulator and machine from what the host has.

        Raises:
            UsageError: it has nothing of what was asked for.
        """
        domain = self.domain
        machine = domain.get("os/type/@machine")
        platform = self.host.choose(domain.get("@type"), domain.get("os/type"), domain.get("os/type/@arch"), machine)
        domain.put("@type", platform.type)
        domain.put("os/type", platform.os_type)
        domain.put("os/type/@arch", platform.arch)
        domain.default("devices", "")
        domain.default("devices/emulator", platform.emulator)
        self.platform = platform
        return platform

    def add(self, kind: str, *values: tuple[str, str | None]) -> Part:
        """Add a device with these values."""
        part = Part(kind)
        for path, value in values:
            part.put(path, value)
        self.devices[kind].append(part)
        return part

    def add_usb2(self) -> None:
        """Add a USB 2 controller with the companions that serve slower devices."""
        for model, startport in _USB2:
            values = (("@type", "usb"), ("@model", model), ("master/@startport", startport))
            self.add("controller", *values)

    def add_usb3(self) -> None:
        """Add a USB 3 controller with all the ports that QEMU gives one."""
        values = (("@type", "usb"), ("@model", "qemu-xhci" if self.host.is_qemu else "nec-xhci"), ("@ports", "15"))
        self.add("controller", *values)

    def bootable(self) -> list[Part]:
        """The devices that can be booted from."""
        return [*self.devices["disk"], *self.devices["interface"], *self.devices["redirdev"]]

    def element(self) -> Node:
        """The domain document."""
        root = self.domain.element()
        parent = root.find("devices")
        assert parent is not None, "a guest without an emulator"
        for kind in DEVICES:
            parent.extend(part.element() for part in self.devices[kind])
        return root

    def xml(self) -> str:
        """The domain document as text."""
        return write(self.element())
