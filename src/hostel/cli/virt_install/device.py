"""The options of devices other than disks, network interfaces and displays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import ADDRESS, Part
from hostel.cli.virt_install.suboption import Kind, Sub, SubOptions, number
from hostel.errors import UsageError

_NUMBERS: Final = ("domain", "controller", "bus", "slot", "function", "target", "unit", "port")


def _address(path: str) -> Sub:
    name = path.removeprefix("address/@")
    kind = Kind.ON_OFF if name == "multifunction" else Kind.NUMBER if name in _NUMBERS else Kind.TEXT
    return Sub(f"address.{name}", path, kind)


ADDRESSES: Final = (
    *(_address(path) for path in ADDRESS),
    _address("address/@port"),
    _address("address/@iobase"),
    _address("address/@irq"),
    Sub("alias.name", "alias/@name"),
)
VIRTIO: Final = tuple(
    Sub(f"driver.{name}", f"driver/@{name}", Kind.ON_OFF) for name in ("ats", "iommu", "packed", "page_per_vq")
)
BOOT_ORDER: Final = Sub("boot.order", aliases=("boot_order",))
BOOT_PARAMETER: Final = Sub("boot.loadparm", "boot/@loadparm")

CONTROLLER: Final = SubOptions(
    "--controller",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("type", "@type"),
        Sub("model", "@model"),
        Sub("index", "@index", Kind.NUMBER),
        Sub("maxGrantFrames", "@maxGrantFrames", Kind.NUMBER),
        Sub("vectors", "@vectors", Kind.NUMBER),
        Sub("master.startport", "master/@startport", Kind.NUMBER, aliases=("master",)),
        Sub("driver.iothread", "driver/@iothread", Kind.NUMBER),
        Sub("driver.queues", "driver/@queues", Kind.NUMBER, aliases=("driver_queues",)),
        Sub("target.chassisNr", "target/@chassisNr", Kind.NUMBER),
        Sub("target.chassis", "target/@chassis", Kind.NUMBER),
        Sub("target.port", "target/@port", Kind.NUMBER),
        Sub("target.hotplug", "target/@hotplug"),
        Sub("target.busNr", "target/@busNr", Kind.NUMBER),
        Sub("target.index", "target/@index", Kind.NUMBER),
        Sub("target.node", "target/node", Kind.NUMBER),
        Sub("address"),
        Sub("num_pcie_root_ports", kind=Kind.NUMBER),
    ),
    ("type",),
)
INPUT: Final = SubOptions(
    "--input",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("type", "@type", skip="default"),
        Sub("bus", "@bus", skip="default"),
        Sub("model", "@model"),
        Sub("source.evdev", "source/@evdev"),
        Sub("source.dev", "source/@dev"),
        Sub("source.repeat", "source/@repeat", Kind.ON_OFF),
        Sub("source.grab", "source/@grab"),
        Sub("source.grabToggle", "source/@grabToggle"),
    ),
    ("type",),
)
SOUND: Final = SubOptions(
    "--sound",
    (
        *ADDRESSES,
        Sub("model", "@model", skip="default"),
        Sub("audio.id", "audio/@id"),
        Sub("codec[0-9]*.type", "codec[{}]/@type"),
    ),
    ("model",),
)
WATCHDOG: Final = SubOptions(
    "--watchdog",
    (*ADDRESSES, Sub("model", "@model", skip="default"), Sub("action", "@action", skip="default")),
    ("model",),
)
VIDEO: Final = SubOptions(
    "--video",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model.type", "model/@type", skip="default", aliases=("model",)),
        Sub("model.acceleration.accel3d", "model/acceleration/@accel3d", Kind.YES_NO, aliases=("accel3d",)),
        Sub("model.heads", "model/@heads", Kind.NUMBER, aliases=("heads",)),
        Sub("model.ram", "model/@ram", Kind.NUMBER, aliases=("ram",)),
        Sub("model.vram", "model/@vram", Kind.NUMBER, aliases=("vram",)),
        Sub("model.vram64", "model/@vram64", Kind.NUMBER, aliases=("vram64",)),
        Sub("model.vgamem", "model/@vgamem", Kind.NUMBER, aliases=("vgamem",)),
    ),
    ("model.type",),
)
REDIRDEV: Final = SubOptions(
    "--redirdev",
    (
        *ADDRESSES,
        BOOT_ORDER,
        Sub("bus", "@bus", skip="default"),
        Sub("type", "@type", skip="default"),
        Sub("server"),
    ),
    ("bus",),
)
MEMBALLOON: Final = SubOptions(
    "--memballoon",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model", "@model", skip="default"),
        Sub("autodeflate", "@autodeflate", Kind.ON_OFF),
        Sub("stats.period", "stats/@period", Kind.NUMBER),
        Sub("freePageReporting", "@freePageReporting", Kind.ON_OFF),
    ),
    ("model",),
)
TPM: Final = SubOptions(
    "--tpm",
    (
        *ADDRESSES,
        Sub("model", "@model"),
        Sub("backend.type", "backend/@type", aliases=("type",)),
        Sub("backend.version", "backend/@version", aliases=("version",)),
        Sub("backend.device.path", "backend/device/@path", aliases=("path",)),
        Sub("backend.encryption.secret", "backend/encryption/@secret"),
        Sub("backend.persistent_state", "backend/@persistent_state", Kind.YES_NO),
    ),
    ("type",),
)
RNG: Final = SubOptions(
    "--rng",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("type"),
        Sub("device"),
        Sub("model", "@model"),
        Sub("backend", "backend"),
        Sub("backend.model", "backend/@model"),
        Sub("backend.type", "backend/@type", aliases=("backend_type",)),
        Sub("rate.bytes", "rate/@bytes", aliases=("rate_bytes",)),
        Sub("rate.period", "rate/@period", aliases=("rate_period",)),
    ),
    ("backend.model",),
    (("type", "backend.model"), ("device", "backend")),
)
PANIC: Final = SubOptions("--panic", (*ADDRESSES, Sub("model", "@model", skip="default")), ("model",))
VSOCK: Final = SubOptions(
    "--vsock",
    (
        *ADDRESSES,
        *VIRTIO,
        Sub("model", "@model", skip="default"),
        Sub("cid.auto", "cid/@auto", Kind.YES_NO, aliases=("auto_cid",)),
        Sub("cid.address", "cid/@address", aliases=("cid",)),
    ),
    ("model",),
)


def _device(kind: str, options: SubOptions, *, declines: bool = False) -> Callable[[Guest, str], None]:
    """A reader that adds one device; with ``declines``, ``none`` keeps virt-install from adding one by default."""

    def read(guest: Guest, text: str) -> None:
        if text == "none" and options is not MEMBALLOON:
            if declines:
                guest.without.add(kind)
            return
        part = Part(kind)
        options.apply(options.read(text), part)
        guest.devices[kind].append(part)

    return read


read_input = _device("input", INPUT)
read_sound = _device("sound", SOUND, declines=True)
read_watchdog = _device("watchdog", WATCHDOG)
read_video = _device("video", VIDEO)
read_memballoon = _device("memballoon", MEMBALLOON)
read_panic = _device("panic", PANIC)
read_vsock = _device("vsock", VSOCK)


def read_controller(guest: Guest, text: str) -> None:
    """``--controller``: one controller, or ``usb2`` and ``usb3`` for what they need."""
    if text == "none":
        return
    if text == "usb2":
        guest.add_usb2()
        return
    if text == "usb3":
        guest.add_usb3()
        return
    given = CONTROLLER.read(text)
    if "num_pcie_root_ports" in given:
        guest.root_ports = number("num_pcie_root_ports", given["num_pcie_root_ports"] or "")
        return
    part = Part("controller")
    CONTROLLER.apply(given, part, {"address": _pci_address}, guest)
    guest.devices["controller"].append(part)


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


def read_redirdev(guest: Guest, text: str) -> None:
    """``--redirdev``: a USB port that a viewer of the display can plug devices into."""
    if text == "none":
        guest.without.add("redirdev")
        return
    part = Part("redirdev")
    hooks = {"server": _server, "boot.order": set_boot_order}
    REDIRDEV.apply(REDIRDEV.read(text), part, hooks, guest)
    guest.devices["redirdev"].append(part)


def _server(guest: Guest, part: Part, value: str | None) -> None:
    host, _, service = (value or "").rpartition(":")
    part.put("source/@host", host or "127.0.0.1")
    part.put("source/@service", str(number("server", service)))


def read_tpm(guest: Guest, text: str) -> None:
    """``--tpm``: a device of the host by its path, or an emulated one."""
    if text == "none":
        guest.without.add("tpm")
        return
    given = TPM.read(text)
    kind = given.get("type") or ""
    if kind.startswith("/"):
        given["path"] = given.pop("type")
    elif kind == "default":
        del given["type"]
    part = Part("tpm")
    TPM.apply(given, part)
    guest.devices["tpm"].append(part)


def read_rng(guest: Guest, text: str) -> None:
    """``--rng``: random numbers from a device of the host."""
    if text == "none":
        guest.without.add("rng")
        return
    given = RNG.read(text)
    if (given.get("backend.model") or "").startswith("/"):
        given["backend"] = given.pop("backend.model")
        given["backend.model"] = "random"
    part = Part("rng")
    RNG.apply(given, part)
    guest.devices["rng"].append(part)


def set_boot_order(guest: Guest, part: Part, value: str | None) -> None:
    """Give a device its place in the boot order; those that it displaces move one on."""
    place = number("boot.order", value or "")
    if place < 1:
        raise UsageError(f"boot.order={value}: places are counted from 1")
    guest.domain.clear("os/boot")
    others = sorted(
        ((int(device.get("boot/@order") or 0), device) for device in guest.bootable() if device.get("boot/@order")),
        key=lambda entry: entry[0],
    )
    part.put("boot/@order", str(place))
    taken = place
    for at, device in others:
        if at == taken and device is not part:
            taken = at + 1
            device.put("boot/@order", str(taken))
