"""The options of devices other than disks, network interfaces, displays and those with a character stream."""

from __future__ import annotations

from typing import Final

from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import NoneMeans, Option, plain
from hostel.cli.virt_install.order import ADDRESS
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import (
    FLAG,
    NUMBER,
    ON_OFF,
    TEXT,
    YES_NO,
    Given,
    Hook,
    Sub,
    SubOptions,
    at,
    decimal,
    number,
)
from hostel.errors import UsageError

_KIB: Final = 1024  # KiB in a MiB
_NUMBERS: Final = ("domain", "controller", "bus", "slot", "function", "target", "unit", "port")


def _address(path: str) -> Sub:
    name = path.removeprefix("address/@")
    kind = ON_OFF if name == "multifunction" else NUMBER if name in _NUMBERS else TEXT
    return Sub(f"address.{name}", path, kind)


ADDRESSES: Final = (
    *(_address(path) for path in ADDRESS),
    *(_address(f"address/@{name}") for name in ("port", "reg", "cssid", "ssid", "devno", "iobase", "irq", "base")),
    at("address.zpci.uid"),
    at("address.zpci.fid"),
    at("alias.name"),
)
VIRTIO: Final = tuple(at(f"driver.{name}", ON_OFF) for name in ("ats", "iommu", "packed", "page_per_vq"))
BOOT_ORDER: Final = at("boot.order", TEXT, "boot_order")
BOOT_PARAMETER: Final = at("boot.loadparm")

CONTROLLER: Final = SubOptions(
    "--controller",
    (
        *ADDRESSES,
        *VIRTIO,
        at("type"),
        at("model"),
        at("index", NUMBER),
        at("maxGrantFrames", NUMBER),
        at("vectors", NUMBER),
        at("master.startport", NUMBER, "master"),
        at("driver.iothread", NUMBER),
        at("driver.queues", NUMBER, "driver_queues"),
        at("target.chassisNr", NUMBER),
        at("target.chassis", NUMBER),
        at("target.port", NUMBER),
        at("target.hotplug"),
        at("target.busNr", NUMBER),
        at("target.index", NUMBER),
        Sub("target.node", "target/node", NUMBER),
        Sub("address"),
        Sub("num_pcie_root_ports", kind=NUMBER),
    ),
    ("type",),
    owner="controller",
)
INPUT: Final = SubOptions(
    "--input",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("type", "@type", skip="default"),
        Sub("bus", "@bus", skip="default"),
        at("model"),
        at("source.evdev"),
        at("source.dev"),
        at("source.repeat", ON_OFF),
        at("source.grab"),
        at("source.grabToggle"),
    ),
    ("type",),
    owner="input",
)
SOUND: Final = SubOptions(
    "--sound",
    (*ADDRESSES, Sub("model", "@model", skip="default"), at("audio.id"), at("codec[0-9]*.type")),
    ("model",),
    owner="sound",
)
AUDIO: Final = SubOptions("--audio", (at("type"), at("id")), owner="audio")
WATCHDOG: Final = SubOptions(
    "--watchdog",
    (*ADDRESSES, Sub("model", "@model", skip="default"), Sub("action", "@action", skip="default")),
    ("model",),
    owner="watchdog",
)
VIDEO: Final = SubOptions(
    "--video",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model.type", "model/@type", skip="default", aliases=("model",)),
        at("model.acceleration.accel3d", YES_NO, "accel3d"),
        *(at(f"model.{name}", NUMBER, name) for name in ("heads", "ram", "vram", "vram64", "vgamem")),
    ),
    ("model.type",),
    owner="video",
)
MEMBALLOON: Final = SubOptions(
    "--memballoon",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model", "@model", skip="default"),
        at("autodeflate", ON_OFF),
        at("stats.period", NUMBER),
        at("freePageReporting", ON_OFF),
    ),
    ("model",),
    owner="memballoon",
)
TPM: Final = SubOptions(
    "--tpm",
    (
        *ADDRESSES,
        at("model"),
        at("backend.type", TEXT, "type"),
        at("backend.version", TEXT, "version"),
        at("backend.device.path", TEXT, "path"),
        at("backend.encryption.secret"),
        at("backend.persistent_state", YES_NO),
        *(
            Sub(f"active_pcr_banks.{name}", f"active_pcr_banks/{name}", FLAG)
            for name in ("sha1", "sha256", "sha384", "sha512")
        ),
    ),
    ("type",),
    owner="tpm",
)
PANIC: Final = SubOptions(
    "--panic",
    (
        *(sub._replace(aliases=("iobase",)) if sub.name == "address.iobase" else sub for sub in ADDRESSES),
        Sub("model", "@model", skip="default"),
    ),
    ("model",),
    owner="panic",
)
VSOCK: Final = SubOptions(
    "--vsock",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model", "@model", skip="default"),
        at("cid.auto", YES_NO, "auto_cid"),
        at("cid.address", NUMBER, "cid"),
    ),
    ("model",),
    owner="vsock",
)
SHMEM: Final = SubOptions(
    "--shmem",
    (
        *ADDRESSES,
        at("name"),
        at("role"),
        at("model.type"),
        Sub("size", "size", NUMBER),
        at("size.unit"),
        at("server.path"),
        at("msi.vectors", NUMBER),
        at("msi.ioeventfd"),
    ),
    ("name",),
    owner="shmem",
)
MEMDEV: Final = SubOptions(
    "--memdev",
    (
        *ADDRESSES,
        at("model"),
        at("access"),
        at("discard", YES_NO),
        Sub("uuid", "uuid"),
        Sub("target.size", "target/size", aliases=("target_size",)),
        Sub("target.node", "target/node", NUMBER, aliases=("target_node",)),
        Sub("target.label_size", "target/label/size", aliases=("target_label_size",)),
        *(Sub(f"target.{name}", f"target/{name}", NUMBER) for name in ("block", "current", "requested")),
        Sub("target.readonly", "target/readonly", FLAG),
        Sub("source.pagesize", "source/pagesize", NUMBER, aliases=("source_pagesize",)),
        Sub("source.path", "source/path", aliases=("source_path",)),
        Sub("source.nodemask", "source/nodemask", comma=True, aliases=("source_nodemask",)),
        Sub("source.pmem", "source/pmem", FLAG),
        Sub("source.alignsize", "source/alignsize"),
    ),
    ("model",),
    owner="memory",
)
IOMMU: Final = SubOptions(
    "--iommu",
    (
        at("model"),
        at("driver.aw_bits", NUMBER),
        *(at(f"driver.{name}", ON_OFF) for name in ("intremap", "caching_mode", "eim", "iotlb")),
    ),
    ("model",),
    owner="iommu",
)
FILESYSTEM: Final = SubOptions(
    "--filesystem",
    (
        *ADDRESSES,
        *VIRTIO,
        at("type"),
        at("accessmode", TEXT, "mode"),
        at("model"),
        at("multidevs"),
        Sub("readonly", "readonly", FLAG),
        *(Sub(name, name) for name in ("space_hard_limit", "space_soft_limit")),
        at("fmode"),
        at("dmode"),
        Sub("source"),
        Sub("target", "target/@dir"),
        *(at(f"source.{name}") for name in ("file", "dir", "dev", "name", "pool", "volume", "units", "usage")),
        Sub("source.socket", "source/socket"),
        at("target.dir"),
        at("binary.path"),
        at("binary.xattr", ON_OFF),
        at("binary.cache.mode"),
        at("binary.lock.posix", ON_OFF),
        at("binary.lock.flock", ON_OFF),
        at("binary.sandbox.mode"),
        *(at(f"driver.{name}") for name in ("format", "name", "queue", "type", "wrpolicy")),
    ),
    ("source", "target"),
    owner="filesystem",
)
# Which attribute of a file system's source is meant, by its type.
_SOURCES: Final = {"template": "name", "file": "file", "block": "dev", "ram": "usage"}


def _controllers(guest: Guest, given: Given) -> list[Part] | None:
    """``usb2`` and ``usb3`` stand for what they need; ``num_pcie_root_ports`` is no controller at all."""
    if "num_pcie_root_ports" in given:
        guest.root_ports = decimal("num_pcie_root_ports", given["num_pcie_root_ports"])
        return []
    if len(given) == 1 and given.get("type") == "usb2":
        return guest.usb2()
    if len(given) == 1 and given.get("type") == "usb3":
        return [guest.usb3()]
    return None


def _fill_controller(guest: Guest, part: Part, given: Given) -> None:
    if "num_pcie_root_ports" in given:
        decimal("num_pcie_root_ports", given["num_pcie_root_ports"])
        return  # to a machine that exists it says nothing
    CONTROLLER.apply(given, part, {"address": _pci_address}, guest)


def _pci_address(guest: Guest, part: Part, value: str | None) -> None:
    rest, dot, function = (value or "").partition(".")
    fields = rest.split(":")
    if not dot or len(fields) not in (2, 3):
        raise UsageError(f"Expected PCI format string for '{value}'; write DOMAIN:BUS:SLOT.FUNCTION")
    if len(fields) == 2:
        fields.insert(0, "0")
    part.put("address/@type", "pci")
    for name, text in zip(("domain", "bus", "slot", "function"), (*fields, function), strict=True):
        part.put(f"address/@{name}", str(number(name, text)))


def _fill_tpm(guest: Guest, part: Part, given: Given) -> None:
    """A device of the host by its path, or an emulated one."""
    kind = given.get("type") or ""
    if kind.startswith("/"):
        given["path"] = given.pop("type")
    elif kind == "default":
        del given["type"]
    TPM.apply(given, part)


def _fill_panic(guest: Guest, part: Part, given: Given) -> None:
    """``0x505`` alone is the port of an ISA device."""
    if len(given) == 1 and (given.get("model") or "").startswith("0x"):
        given["address.iobase"] = given["model"]
        given["model"] = "isa"
    PANIC.apply(given, part)


def _fill_memory(guest: Guest, part: Part, given: Given) -> None:
    sizes: dict[str, Hook] = {
        "target.size": _mebibytes("target/size"),
        "target.label_size": _mebibytes("target/label/size"),
        "source.alignsize": _mebibytes("source/alignsize"),
    }
    MEMDEV.apply(given, part, sizes)


def _mebibytes(path: str) -> Hook:
    """A size is typed in MiB, and the document has KiB."""

    def put(guest: Guest, part: Part, value: str | None) -> None:
        part.put(path, str(decimal(path.rpartition("/")[2], value) * _KIB))

    return put


def _fill_filesystem(guest: Guest, part: Part, given: Given) -> None:
    hooks: dict[str, Hook] = {"type": _filesystem_type, "source": _filesystem_source}
    FILESYSTEM.apply(given, part, hooks, guest)
    target = part.get("target/@dir")
    is_tag = guest.host.names_filesystems and part.get("@type") in (None, "mount")
    if part.base is None and target is not None and not is_tag and not target.startswith("/"):
        raise UsageError(f"Filesystem target '{target}' must be an absolute path")


def _filesystem_source(guest: Guest, part: Part, value: str | None) -> None:
    part.put(f"source/@{_SOURCES.get(part.get('@type') or '', 'dir')}", value)


def _is_filesystem_source(part: Part, value: str | None) -> bool:
    return part.get(f"source/@{_SOURCES.get(part.get('@type') or '', 'dir')}") == value


def _filesystem_type(guest: Guest, part: Part, value: str | None) -> None:
    """The source of a file system that changes its type stays, where that type has it."""
    source = part.get(f"source/@{_SOURCES.get(part.get('@type') or '', 'dir')}")
    changes = _SOURCES.get(part.get("@type") or "") != _SOURCES.get(value or "")
    part.put("@type", value)
    if changes:
        _filesystem_source(guest, part, source)


def set_boot_order(guest: Guest, part: Part, value: str | None) -> None:
    """Give a device its place in the boot order; those that it displaces move one on."""
    place = decimal("boot.order", value)
    if place < 1:
        raise UsageError(f"boot.order={value}: places are counted from 1")
    guest.domain.clear("os/boot")
    others = sorted(
        ((int(device.get("boot/@order") or 0), device) for device in guest.bootable() if device.get("boot/@order")),
        key=lambda entry: entry[0],
    )
    part.put("boot/@order", str(place))
    taken = place
    for at_place, device in others:
        if at_place == taken and device is not part:
            taken = at_place + 1
            device.put("boot/@order", str(taken))


OPTIONS: Final = (
    Option(CONTROLLER, _fill_controller, several=_controllers),
    Option(INPUT, plain(INPUT)),
    Option(SOUND, plain(SOUND), NoneMeans.DECLINES),
    Option(AUDIO, plain(AUDIO)),
    Option(WATCHDOG, plain(WATCHDOG)),
    Option(VIDEO, plain(VIDEO)),
    Option(MEMBALLOON, plain(MEMBALLOON), NoneMeans.VALUE),
    Option(TPM, _fill_tpm, NoneMeans.DECLINES),
    Option(PANIC, _fill_panic),
    Option(VSOCK, plain(VSOCK), NoneMeans.VALUE),
    Option(SHMEM, plain(SHMEM)),
    Option(MEMDEV, _fill_memory),
    Option(IOMMU, plain(IOMMU)),
    Option(FILESYSTEM, _fill_filesystem, lookups={"source": _is_filesystem_source}),
)
