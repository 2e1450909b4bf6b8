"""The guest that is being put together: the domain's own values, its devices, and the XML of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hostel.cli.virt_install import osinfo, tree
from hostel.cli.virt_install.domaincaps import DomainCapabilities
from hostel.cli.virt_install.host import Host, Platform
from hostel.cli.virt_install.order import DOMAIN
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.tree import Node
from hostel.codec import xmltext
from hostel.errors import UsageError

if TYPE_CHECKING:
    from hostel.cli.virt_install.storage import Storage

DEVICES: Final = (
    "disk", "controller", "filesystem", "interface", "smartcard", "serial", "parallel", "console", "channel", "input",
    "tpm", "graphics", "sound", "audio", "video", "hostdev", "redirdev", "watchdog", "memballoon", "rng", "panic",
    "shmem", "memory", "vsock", "iommu",
)  # fmt: skip
_LISTS: Final = ("sysinfo", "seclabel")  # what else there may be several of, beside the devices
_USB2: Final = (("ich9-ehci1", None), ("ich9-uhci1", "0"), ("ich9-uhci2", "2"), ("ich9-uhci3", "4"))


class Guest:
    """One machine to be.

    Attributes:
        host: what it will run on.
        domain: everything but the devices.
        storage: where the content of its disks is found, and made.
        devices: the devices by kind, and what else there may be several of.
        system: the operating system that it will hold.
        without: kinds of device that the user declined with ``none``.
        root_ports: how many PCIe root ports a q35 machine gets, for devices that come later.
        wants_uefi: whether UEFI was asked for, which is arranged once the machine is known.
        warnings: what the user should know about what was asked for.
        secures_cpu: whether a named model of processor gets what guards against its flaws.
    """

    def __init__(self, host: Host, storage: Storage, domain: Part | None = None) -> None:
        self.host = host
        self.storage = storage
        self.domain = domain or Part("domain", DOMAIN)
        self.devices: dict[str, list[Part]] = {kind: [] for kind in (*DEVICES, *_LISTS)}
        self.system = osinfo.find(osinfo.GENERIC)
        self.without: set[str] = set()
        self.root_ports = 14  # QEMU 6.1 hangs with 15 and more: https://gitlab.com/qemu-project/qemu/-/issues/641
        self.wants_uefi = False
        self.secures_cpu = True
        self.warnings: list[str] = []
        self.platform: Platform | None = None

    @classmethod
    def parse(cls, host: Host, storage: Storage, xml: str) -> Guest:
        """A guest that exists, to be changed.

        Raises:
            ModelError: the document is none.
            UsageError: it describes something else.
        """
        root: Any = xmltext.parse(xml, "domain_definition")
        if root.tag != "domain":
            raise UsageError(f"XML did not have expected root element name 'domain', found '{root.tag}'")
        guest = cls(host, storage, Part("domain", DOMAIN, root))
        for kind in DEVICES:
            guest.devices[kind] = [guest.new(kind, element) for element in root.iterfind(f"devices/{kind}")]
        for kind in _LISTS:
            guest.devices[kind] = [guest.new(kind, element) for element in root.iterfind(kind)]
        identifier = guest.domain.get("metadata/libosinfo:libosinfo/libosinfo:os/@id")
        guest.system = osinfo.find_identifier(identifier or "") or guest.system
        return guest

    def new(self, kind: str, base: Node | None = None) -> Part:
        """A part of a kind that is not yet among the others."""
        if kind == "disk":
            from hostel.cli.virt_install.disk import Disk

            return Disk(base)
        return Part(kind, base=base)

    @property
    def name(self) -> str:
        """The guest's name; empty until it has one."""
        return self.domain.get("name") or ""

    @property
    def arch(self) -> str:
        """The architecture of its processor; empty until that is known."""
        return self.domain.get("os/type/@arch") or ""

    @property
    def machine(self) -> str:
        """The type of its machine; empty until that is known."""
        return self.domain.get("os/type/@machine") or ""

    @property
    def is_hvm(self) -> bool:
        """Whether it is a whole machine."""
        return self.domain.get("os/type") == "hvm"

    @property
    def is_container(self) -> bool:
        """Whether it shares the host's kernel."""
        return self.domain.get("os/type") == "exe"

    @property
    def is_paravirtual(self) -> bool:
        """Whether its kernel was made for Xen."""
        return self.domain.get("os/type") in ("xen", "linux")

    @property
    def is_x86(self) -> bool:
        """Whether its processor is of the PC's family."""
        return self.arch in ("x86_64", "i686")

    @property
    def is_q35(self) -> bool:
        """Whether its chipset is q35, with PCI Express."""
        return self.is_x86 and "q35" in self.machine

    @property
    def is_arm(self) -> bool:
        """Whether its processor is an ARM."""
        return self.arch in ("armv7l", "aarch64")

    @property
    def is_arm_virt(self) -> bool:
        """Whether it is the ARM machine without a model in hardware."""
        return self.is_arm and self.machine.startswith("virt")

    @property
    def is_riscv_virt(self) -> bool:
        """Whether it is the RISC-V machine without a model in hardware."""
        return self.arch in ("riscv64", "riscv32") and self.machine.startswith("virt")

    @property
    def is_pseries(self) -> bool:
        """Whether it is POWER's machine."""
        return self.arch in ("ppc64", "ppc64le") and self.machine.startswith("pseries")

    @property
    def is_s390x(self) -> bool:
        """Whether it is a mainframe."""
        return self.arch == "s390x"

    @property
    def is_virtual(self) -> bool:
        """Whether its machine has no devices but virtio's, whatever its system is."""
        return self.is_arm_virt or self.is_riscv_virt or self.is_s390x or self.is_pseries

    @property
    def has_pcie(self) -> bool:
        """Whether its devices are on PCI Express, which needs a port for each."""
        return self.is_q35 or self.is_arm_virt or self.is_riscv_virt

    @property
    def is_uefi(self) -> bool:
        """Whether UEFI is its firmware."""
        domain = self.domain
        if domain.get("os/loader") is not None and domain.get("os/loader/@type") == "pflash":
            return True
        return domain.get("os/@firmware") == "efi"

    @property
    def hardware(self) -> osinfo.Hardware:
        """What its system has drivers for, where the hypervisor has the devices."""
        return self.system.hardware

    def virtio(self, *, supported: bool) -> bool:
        """Whether a virtio device may be used: QEMU has them, and the system must know this one."""
        return self.host.is_qemu and (self.is_virtual or (supported and self.is_x86))

    def capabilities(self) -> DomainCapabilities:
        """What the hypervisor says of machines of this kind."""
        domain = self.domain
        paths = ("devices/emulator", "os/type/@arch", "os/type/@machine", "@type")
        return self.host.domain_capabilities(*(domain.get(path) for path in paths))

    def security_features(self) -> list[str]:
        """Which features of the host's processor guard against its flaws."""
        return self.host.security_features(self.capabilities())

    @property
    def has_spice(self) -> bool:
        """Whether its hypervisor has SPICE displays."""
        told = self.capabilities()
        if told.supports("devices/graphics"):
            return "spice" in told.values("devices/graphics", "type")
        may_have = self.host.is_test or (self.host.is_qemu and self.host.tells)
        return may_have and self.host.arch in ("x86_64", "i686")

    def set_system(self, system: osinfo.System) -> None:
        """Take a system, and note it in the document where libosinfo has an identifier for it."""
        self.system = system
        if system.identifier or self.domain.has("metadata"):
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
        domain.default("os/loader", platform.loader)
        domain.default("devices", "")
        if not self.is_paravirtual and platform.type != "vz":
            domain.default("devices/emulator", platform.emulator)
        self.platform = platform
        return platform

    def add(self, kind: str, *values: tuple[str, str | None]) -> Part:
        """Add a device with these values."""
        part = self.new(kind)
        for path, value in values:
            part.put(path, value)
        self.devices[kind].append(part)
        return part

    def remove(self, part: Part) -> None:
        """Take a part away."""
        self.devices[part.tag].remove(part)
        if part.base is not None:
            tree.remove(part.base)

    def usb2(self) -> list[Part]:
        """A USB 2 controller with the companions that serve slower devices."""
        return [
            _part("controller", ("@type", "usb"), ("@model", model), ("master/@startport", startport))
            for model, startport in _USB2
        ]

    def usb3(self) -> Part:
        """A USB 3 controller with all the ports that QEMU gives one."""
        model = "qemu-xhci" if self.host.is_qemu else "nec-xhci"
        return _part("controller", ("@type", "usb"), ("@model", model), ("@ports", "15"))

    def bootable(self) -> list[Part]:
        """The devices that can be booted from."""
        return [part for kind in ("disk", "interface", "hostdev", "redirdev") for part in self.devices[kind]]

    def element(self) -> Node:
        """The domain document: a new one, or that which existed, changed."""
        domain = self.domain
        edits, domain.edits = domain.edits, []
        root = domain.element()
        for kind in _LISTS:
            for part in self.devices[kind]:
                _insert(root, part, is_new=domain.base is None)
        if any(self.devices[kind] for kind in DEVICES):
            parent = tree.make(root, ["devices"])
            for kind in DEVICES:
                for part in self.devices[kind]:
                    is_new, element = part.base is None, part.element()
                    if is_new and (len(element) or element.attrib or element.text):
                        tree.append(parent, tree.indent(element, 2))
                    if is_new and domain.base is not None:
                        part.adopt(element)
        if edits:
            from hostel.cli.virt_install import edit

            edit.apply(root, edits)
        domain.edits = edits if domain.base is None else []
        return root

    def xml(self) -> str:
        """The domain document as text."""
        return tree.write(self.element()) if self.domain.base is None else tree.text_of(self.element())


def _part(kind: str, *values: tuple[str, str | None]) -> Part:
    part = Part(kind)
    for path, value in values:
        if value is not None:
            part.put(path, value)
    return part


def _insert(root: Node, part: Part, *, is_new: bool) -> None:
    """Put a part of the domain itself into its place: in virt-install's order in a new document, or last."""
    is_there, element = part.base is not None, part.element()
    if is_there:
        return
    tree.append(root, tree.indent(element, 1))
    if not is_new:
        part.adopt(element)
    else:
        rank = _rank(part.tag)
        later = next((child for child in root if child is not element and _rank(str(child.tag)) > rank), None)
        if later is not None:
            later.addprevious(element)


def _rank(tag: str) -> int:
    """Where an element stands among the domain's."""
    name = tag.rpartition("}")[2]
    places = [index for index, entry in enumerate(DOMAIN) if entry.rstrip("$").split("/")[0].rpartition(":")[2] == name]
    return places[0] if places else DOMAIN.index("*")
