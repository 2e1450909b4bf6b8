"""The small devices: inputs, hubs, memory balloon, random numbers, watchdogs, panic notifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hostel.drivers.qemu.command.character import chardev
from hostel.drivers.qemu.command.context import Context, alias_of, option
from hostel.drivers.qemu.command.place import place, virtio, virtio_name, zpci
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import IsaAddress
from hostel.model.domain.devices.character import CharacterType, Serial
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.input import Input, InputSource
from hostel.model.domain.devices.paravirtual import Rng
from hostel.model.domain.devices.platform import IommuDriver, Watchdog
from hostel.model.domain.domain import Domain

_USB_INPUTS: Final = {"tablet": "usb-tablet", "keyboard": "usb-kbd", "mouse": "usb-mouse"}
_VIRTIO_INPUTS: Final = {
    "tablet": "virtio-tablet",
    "keyboard": "virtio-keyboard",
    "mouse": "virtio-mouse",
    "passthrough": "virtio-input-host",
}
_WATCHDOGS: Final = ("i6300esb", "ib700", "diag288")
_ACTIONS: Final = {"dump": "pause"}


def one(domain: Domain, device: Device, context: Context) -> list[str]:
    """One small device, for a machine that runs.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` for what is no small device.
    """
    makers: dict[type[Device], tuple[str, Callable[[Domain], list[str]]]] = {
        Input: ("inputs", inputs),
        Rng: ("rngs", lambda alone: rngs(alone, context)),
        Watchdog: ("watchdogs", watchdogs),
    }
    if type(device) not in makers:
        raise unsupported(f"live attach of device '{device.TAG}'")
    name, make = makers[type(device)]
    alone = domain.copy()
    setattr(alone.devices, name, [device])
    return make(alone)


def hubs(domain: Domain) -> list[str]:
    """USB hubs, before what is plugged into them."""
    argv: list[str] = []
    for hub in domain.devices.hubs:
        argv += option("-device", {"driver": "usb-hub", "id": alias_of(hub), **place(domain, hub)})
    return argv


def inputs(domain: Domain) -> list[str]:
    """Input devices; those on PS/2 are the machine's own."""
    argv: list[str] = []
    for device in domain.devices.inputs:
        if device.type == "evdev":
            argv += _evdev(device)
        elif device.bus != "ps2":
            argv += [*zpci(device), *option("-device", {**_input(device), **place(domain, device)})]
    return argv


def _evdev(device: Input) -> list[str]:
    """Events of one of the host's devices, given to the machine's own ones."""
    source = device.source or InputSource()
    grab = {"grab_all": True if source.grab == "all" else None, "grab-toggle": source.grab_toggle}
    spec = {"qom-type": "input-linux", "id": alias_of(device), "evdev": source.dev, "repeat": source.repeat}
    return option("-object", {**spec, **grab})


def _input(device: Input) -> dict[str, Any]:
    kinds = {"usb": _USB_INPUTS, "virtio": _VIRTIO_INPUTS}.get(device.bus or "", {})
    driver = kinds.get(device.type)
    if driver is not None and device.bus == "virtio":
        driver = virtio_name(driver, device, device.model)
    if driver is None:
        raise unsupported(f"input type='{device.type}' bus='{device.bus}'; write bus='usb', 'virtio' or 'ps2'")
    source = device.source or InputSource()
    return {"driver": driver, "id": alias_of(device), "evdev": source.evdev, **virtio(device.driver)}


def balloon(domain: Domain) -> list[str]:
    """The memory balloon."""
    device = domain.devices.memballoon
    if device is None or device.model == "none":
        return []
    if not device.model.startswith("virtio"):
        raise unsupported(f"memballoon model='{device.model}'; write virtio or none")
    driver = virtio_name("virtio-balloon", device, device.model)
    options = {"deflate-on-oom": device.autodeflate, "free-page-reporting": device.free_page_reporting}
    spec = {"driver": driver, "id": alias_of(device), **options, **virtio(device.driver), **place(domain, device)}
    return [*zpci(device), *option("-device", spec)]


def rngs(domain: Domain, context: Context) -> list[str]:
    """Sources of random numbers."""
    argv: list[str] = []
    for device in domain.devices.rngs:
        name = f"obj{alias_of(device)}"
        argv += [*_rng_backend(device, name, context)]
        rate = device.rate
        limits = {} if rate is None else {"max-bytes": rate.bytes, "period": rate.period or 1000}
        driver = virtio_name("virtio-rng", device, device.model)
        spec = {"driver": driver, "rng": name, "id": alias_of(device), **limits, **virtio(device.driver)}
        argv += [*zpci(device), *option("-device", {**spec, **place(domain, device)})]
    return argv


def _rng_backend(device: Rng, name: str, context: Context) -> list[str]:
    backend = device.backend
    if backend.model == "random":
        return option("-object", {"qom-type": "rng-random", "id": name, "filename": backend.path or "/dev/random"})
    if backend.model == "builtin":
        return option("-object", {"qom-type": "rng-builtin", "id": name})
    kind = backend.type or CharacterType.PTY
    line = Serial(type=kind, sources=backend.sources, protocol=backend.protocol, alias=alias_of(device))
    character = f"char{alias_of(device)}"
    return [
        *chardev(line, context), *option("-object", {"qom-type": "rng-egd", "id": name, "chardev": character}),
    ]  # fmt: skip


def watchdogs(domain: Domain) -> list[str]:
    """Watchdogs; QEMU knows one action for all."""
    argv: list[str] = []
    for device in domain.devices.watchdogs:
        if device.model not in _WATCHDOGS:
            raise unsupported(f"watchdog model='{device.model}'; write one of {', '.join(_WATCHDOGS)}")
        argv += option("-device", {"driver": device.model, "id": alias_of(device), **place(domain, device)})
        argv += ["-watchdog-action", _ACTIONS.get(device.action, device.action)]
    return argv


def panics(domain: Domain) -> list[str]:
    """Panic notifiers on ISA; the others are features of the processor, or the board's own."""
    argv: list[str] = []
    for device in domain.devices.panics:
        if device.model == "isa":
            port = device.address.iobase if isinstance(device.address, IsaAddress) else None
            argv += option("-device", {"driver": "pvpanic", "ioport": port})
    return argv


def iommu(domain: Domain) -> list[str]:
    """The IOMMU that the guest sees, before the devices behind it."""
    device = domain.devices.iommu
    if device is None or device.model == "smmuv3":  # that one is the board's
        return []
    if device.model == "virtio":
        return option("-device", {"driver": "virtio-iommu", "id": alias_of(device), **place(domain, device)})
    driver = device.driver or IommuDriver()
    switches = {"intremap": driver.intremap, "eim": driver.eim}
    spec: dict[str, Any] = {"driver": "intel-iommu", "id": alias_of(device)}
    spec |= {name: None if value is None else "on" if value else "off" for name, value in switches.items()}
    spec |= {"caching-mode": driver.caching_mode, "device-iotlb": driver.iotlb, "aw-bits": driver.aw_bits or None}
    return option("-device", spec)
