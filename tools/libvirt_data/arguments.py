"""QEMU's command line: that of a domain's storage, controllers, network and host devices, beside libvirt's.

Two command lines are the same when they have the same options with the same properties, however these are written: as
JSON or as ``key=value``, in any order. What each program chooses for itself is not held against the other: the numbers
of descriptors, and how the value of a secret reaches QEMU.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from hostel.drivers.base import PoolRef, StorageDriver, VolumeInfo, VolumeRef, VolumeType
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command import machine
from hostel.drivers.qemu.command.context import Context
from hostel.drivers.qemu.command.host import LargePages
from hostel.drivers.qemu.command.memory import align
from hostel.drivers.qemu.command.security import settle
from hostel.drivers.qemu.firmware.choice import choose
from hostel.drivers.qemu.source import translate
from hostel.model.domain.defaults import complete
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.rules.start import check_start
from hostel.model.domain.validate import validate
from libvirt_data.case import Case, Suite, Tree
from libvirt_data.domain import qemu_taken

# The devices that are compared, by their driver.
_DEVICES = re.compile(
    r"virtio-blk|vhost-user-blk|virtio-scsi|vhost-scsi|virtio-serial|virtio-net|scsi-|ide-|usb-storage|usb-hub"
    r"|floppy|isa-fdc|.*-usb-[uoex]|pci-ohci|usb-ehci|.*-xhci|lsi$|spapr-vscsi|mptsas|megasas|pvscsi|am53c974|dc-390"
    r"|usb-ccid|ahci|pci-bridge|.*-bridge|pcie-|ioh3420|x3130|xio3130|pxb|vfio-|usb-host|zpci|virtio-9p|vhost-user-fs|ivshmem|vhost-vsock|usb-redir|ccid-card|.*-iommu|pvpanic|.*tpm-"
    r"|VGA|.*-vga|qxl|virtio-gpu|vhost-user-gpu|bochs-display|ramfb|vmware-svga|AC97|ES1370|sb16|usb-audio|.*intel-hda|hda-"
    r"|virtio-tablet|virtio-keyboard|virtio-mouse|virtio-input|usb-tablet|usb-kbd|usb-mouse|i6300esb|ib700|virtio-balloon|virtio-rng"
)
_OBJECTS = (
    "iothread", "main-loop", "secret", "throttle-group", "pr-manager-helper", "tls-creds-x509", "input-linux",
    "rng-random", "rng-builtin", "rng-egd", "sev-guest", "s390-pv-guest",
)  # fmt: skip
# Secrets and certificates of images, and not of screens, serial ports or firmware; sockets of cards and disks.
_OF_IMAGES = re.compile(r"(obj)?libvirt-\d+-(?!.*_tls0-secret0$)")
_SOCKETS = re.compile(r"char(net|ua-)|chr-vu-(virtio-disk|ua-)|chrtpm|chr-vu-fs|charredir|charshmem|charsmartcard")
_GLOBALS = ("driver", "isa-fdc.", "PIIX4_PM.acpi-root", "i440FX-pcihost.pci-hole64", "q35-pcihost.pci-hole64")
_IMAGE = re.compile(r"\blibvirt-(\d+)-")
_DESCRIPTORS = ("fd", "fds", "vhostfd", "vhostfds")
# Where the host of libvirt's test has descriptors of firmware.
_VARIABLES = "/var/lib/libvirt/qemu/nvram"
_RUN = Path("/tmp/lib/domain--1-QEMUGuest1")
_FIRMWARE = ("usr/share", "etc", "home/user/.config")
# The property that the first word of an option without a name is.
_FIRST = {
    "-device": "driver",
    "-netdev": "type",
    "-object": "qom-type",
    "-tpmdev": "type",
    "-fsdev": "driver",
    "-net": "type",
    "-chardev": "backend",
}
_WHOLE = (
    "-tpmdev", "-fsdev", "-usb", "-boot", "-bios", "-drive", "-blockdev", "-netdev", "-net", "-smbios", "-fw_cfg",
    "-audiodev", "-acpitable",
)  # fmt: skip
_MODULES = ("pc-dimm", "nvdimm", "virtio-pmem-pci", "virtio-mem-pci")
# Directories in which each run has files or directories of its own.
_OF_RUNS = re.compile(r"(/dev/hugepages[^/]*|/var/lib/libvirt/qemu/ram)(/|$)")
_PAGES = LargePages(2048, {2048: "/dev/hugepages2M", 1048576: "/dev/hugepages1G"})
# What of -machine is compared; the rest where QEMU knows what machines call their memory.
_ALWAYS = ("pflash0", "pflash1", "confidential-guest-support", "memory-encryption")
_BOARD = (*_ALWAYS, "memory-backend", "nvdimm", "mem-merge", "hmat")
# Where libvirt's test keeps the certificates of its clients.
_CERTIFICATES = {"nbd": "/etc/pki/libvirt-nbd/dummy,path", "vxhs": "/etc/pki/libvirt-vxhs/dummy,path"}


class HostDevices:
    """The host of libvirt's test, as far as devices are looked up."""

    def usb(self, vendor: int, product: int) -> tuple[int, int]:
        """A device's bus and number."""
        return 14, 6

    def scsi_generic(self, adapter: str, bus: int, target: int, unit: int) -> str:
        """A device's node."""
        return "/dev/sg0"


class Volumes:
    """The volumes of libvirt's test, whose names say what they are: ``dir+vol1``."""

    def __init__(self, tests: Path) -> None:
        self._tests = tests

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        """A pool."""
        return PoolRef(name, "")

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        """Whether it is active."""
        return pool.name != "inactive"

    def storage_pool_get_xml_desc(self, pool: PoolRef) -> str:
        """Its document."""
        return (self._tests / f"storagepoolxml2xmlout/{pool.name}.xml").read_text()

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        """A volume."""
        kind, _, rest = name.rpartition("+")
        return VolumeRef(pool.name, rest, kind or "block")

    def storage_vol_get_info(self, volume: VolumeRef) -> VolumeInfo:
        """What it is."""
        return VolumeInfo(VolumeType[volume.key.upper()], 0, 0)

    def storage_vol_get_path(self, volume: VolumeRef) -> str:
        """Where it is."""
        return f"/some/{volume.key}/device/{volume.name}"


class ArgumentsCase(Case):
    """A case whose expectation is a command line."""

    def expected(self) -> str:
        """Libvirt's command line, an option to a line."""
        assert self.expect is not None
        words = shlex.split(super().expected())
        return told([word for word in words if not re.match(r"[A-Z_]+=", word)], memory=_has_memory(self))


def _has_memory(case: Case) -> bool:
    """Whether a case's QEMU knows what machines call their memory, so that libvirt makes objects of it."""
    return "x86_64-latest" in case.name


def told(argv: list[str], *, memory: bool) -> str:
    """The options that are compared, one to a line, in order of their names."""
    words = _renumbered(argv)
    lines = []
    for index, word in enumerate(words):
        if not word.startswith("-"):
            continue
        value = words[index + 1] if index + 1 < len(words) and not words[index + 1].startswith("-") else ""
        properties = _properties(word, value)
        if _is_compared(word, properties) or (memory and _is_memory(word, properties)):
            lines.append(f"{word} {json.dumps(_own(word, properties, memory=memory), sort_keys=True)}\n")
    return "".join(sorted(lines))


def _renumbered(words: list[str]) -> list[str]:
    """The numbers of images without those that a program skips, such as those of drives that are empty."""
    numbers = sorted({int(number) for word in words for number in _IMAGE.findall(word)})
    return [_IMAGE.sub(lambda found: f"libvirt-{numbers.index(int(found[1])) + 1}-", word) for word in words]


def _properties(option: str, value: str) -> dict[str, str]:
    """An option's properties, flat, in words of the command line."""
    if value.startswith("{"):
        return dict(_flat("", json.loads(value)))
    found: dict[str, str] = {}
    for position, part in enumerate(re.split(r"(?<!,),(?!,)", value) if value else []):
        key, equals, text = part.replace(",,", ",").partition("=")
        if not equals:
            key, text = _FIRST.get(option, "") if position == 0 else key, key
        found[key] = text
    return found


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, below)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _flat(f"{prefix}.{index}", below)
    else:
        yield prefix, {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _is_compared(option: str, properties: dict[str, str]) -> bool:
    if option == "-device":
        return "netdev" in properties or bool(_DEVICES.match(properties["driver"]))
    if option == "-object":
        is_other = properties["qom-type"] in ("secret", "tls-creds-x509") and not _OF_IMAGES.match(properties["id"])
        return properties["qom-type"] in _OBJECTS and not is_other
    if option == "-global":
        return next(iter(properties), "").startswith(_GLOBALS)
    if option == "-chardev":
        return bool(_SOCKETS.match(properties["id"]))
    if option == "-netdev":
        return properties["id"].startswith("host")  # the others belong to channels
    if option == "-machine":
        return any(key in properties for key in _ALWAYS)
    return option in _WHOLE


def _is_memory(option: str, properties: dict[str, str]) -> bool:
    if option == "-device":
        return properties["driver"] in _MODULES
    is_object = option == "-object" and properties["qom-type"].startswith(("memory-backend-", "thread-context"))
    return is_object or option in ("-numa", "-machine")


def _own(option: str, properties: dict[str, str], *, memory: bool) -> dict[str, str]:
    """Properties without what each program chooses for itself."""
    if option == "-machine":
        return {key: properties[key] for key in (_BOARD if memory else _ALWAYS) if key in properties}
    if option == "-object" and properties["qom-type"] == "secret":
        return {key: properties[key] for key in ("qom-type", "id")}
    if option == "-device" and not memory:
        # QEMUs of long ago did not have these, which ours takes every one to have.
        properties = {key: value for key, value in properties.items() if key not in ("vgamem_mb", "vram64_size_mb")}
    if option == "-tpmdev" and properties["type"] == "passthrough":
        return {key: properties[key] for key in ("type", "id")}
    counted = {key: str(value.count(":") + 1) for key, value in properties.items() if key in _DESCRIPTORS}
    if option == "-chardev" and "fd" in properties:
        counted["fd"] = "1"
    if "/passt/" in properties.get("addr.path", "") or properties.get("addr.path", "").endswith(".passt"):
        counted["addr.path"] = "its socket"
    if option == "-chardev" and properties["id"].startswith(("charredir", "charsmartcard")):
        # Who makes a socket that QEMU listens on is each program's own.
        properties = {key: value for key, value in properties.items() if key not in ("fd", "path")}
        counted = {}
    if "mem-path" in properties and (found := _OF_RUNS.match(properties["mem-path"])):
        counted["mem-path"] = found[1]
    if properties.get("path", "").endswith("-fs.sock"):
        counted["path"] = "its socket"
    if properties.get("path", "") in ("/dev/test", f"{_RUN}/tpm/swtpm.sock"):
        counted["path"] = "its socket"
    return {key: value for key, value in {**properties, **counted}.items() if key != "passwordid"}


def arguments(tree: Tree) -> Iterator[Case]:
    """The cases that have a command line."""
    for case in qemu_taken(tree):
        if case.must_fail:
            continue
        name = case.name.partition("#")[0]
        file = case.input.stem
        suffix = name.removeprefix(file)
        written = tree.path(f"qemuxml2argvdata/{file}{suffix}.args")
        if written.exists():
            yield ArgumentsCase("qemuxml2argv", case.name, case.input, written, extra=case.extra)


def _variables(domain: Domain) -> Path:
    return Path(f"{_VARIABLES}/{domain.name}_VARS.fd")


def build(case: Case) -> str:
    """The command line of a domain's storage, controllers and network."""
    domain = Domain.parse(case.text())
    forget_run(domain)
    platform = case.extra["platform"]()._replace(nvram_directory=_VARIABLES)
    complete(domain, platform, is_new=case.extra["is_new"])
    validate(domain, platform)
    check_start(domain, platform)
    complete(domain, platform)  # what has no place yet gets one when it starts
    tests = case.input.parents[1]
    for disk in domain.devices.disks:
        translate(disk, cast("StorageDriver", Volumes(tests)))
    choose(domain, [tests / "qemufirmwaredata" / place / "qemu/firmware" for place in _FIRMWARE], _variables(domain))
    align(domain)
    settle(domain, platform.sev)
    if (vsock := domain.devices.vsock) is not None and vsock.cid is not None and vsock.cid.auto:
        vsock.cid.address = 42
    assign_aliases(domain)
    context = Context(
        "qemu", _RUN / "monitor", lambda name: "virbr0", platform, True, _CERTIFICATES, HostDevices(),
        memory_files="/var/lib/libvirt/qemu/ram", pages=_PAGES,
    )  # fmt: skip
    return told(machine.devices(domain, context), memory=_has_memory(case))


SUITES = (Suite("qemuxml2argv", arguments, build),)
