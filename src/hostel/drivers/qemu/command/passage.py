"""Ways from the guest to the host and to other guests: sockets, shared memory, USB and smartcards over channels."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.character import chardev
from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.place import place, virtio, virtio_name, zpci
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.address import CcidAddress
from hostel.model.domain.devices.character import CharacterBackend, CharacterType
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.devices.paravirtual import SharedMemory, ShmemMsi, VsockCid
from hostel.model.domain.devices.redirection import Redirdev, RedirectionFilter, Smartcard, UsbRule
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import find_controller

_NSS_DATABASE: Final = "/etc/pki/nssdb"
_SHARED: Final = "/dev/shm"
_ROLES: Final = {"master": "on", "peer": "off"}


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """All of them."""
    argv = smartcards(domain, context)
    for device in domain.devices.redirdevs:
        argv += redirection(domain, device, context, bootindex.get(id(device)))
    for shared in domain.devices.shmems:
        argv += shared_memory(domain, shared)
    return argv + vsock(domain, context)


def redirection(domain: Domain, device: Redirdev, context: Context, bootindex: int | None) -> list[str]:
    """A USB device that comes over a channel."""
    name = alias_of(device)
    spec = {"driver": "usb-redir", "chardev": f"char{name}", "id": name, "bootindex": bootindex}
    spec["filter"] = _filter(domain.devices.redirfilter)
    return [*chardev(device, context), *option("-device", {**spec, **place(domain, device)})]


def vsock(domain: Domain, context: Context) -> list[str]:
    """The device behind which host and guest have sockets."""
    device = domain.devices.vsock
    if device is None:
        return []
    number = (device.cid or VsockCid()).address
    spec: dict[str, Any] = {"driver": virtio_name("vhost-vsock", device, device.model), **virtio(device.driver)}
    spec |= {"id": alias_of(device), "guest-cid": number, "vhostfd": "3" if context.hands_over else None}
    return [*zpci(device), *option("-device", {**spec, **place(domain, device)})]


def _filter(rules: RedirectionFilter | None) -> str | None:
    if rules is None:
        return None
    return "|".join(_rule(rule) for rule in rules.rules)


def _rule(rule: UsbRule) -> str:
    numbers = ((rule.usb_class, 2), (rule.vendor, 4), (rule.product, 4), (_bcd(rule.version), 4))
    words = ["-1" if number in (None, -1) else f"0x{number:0{digits}X}" for number, digits in numbers]
    return ":".join([*words, "1" if rule.allow else "0"])


def _bcd(version: str | None) -> int | None:
    """A version such as 1.10 as USB devices have it."""
    if version in (None, "-1"):
        return None
    major, _, minor = (version or "").partition(".")
    try:
        return int(f"{int(major):02}{minor or 0:0>2}", 16)
    except ValueError:
        raise unsupported(f"<usbdev version='{version}'>; write a number such as 1.10") from None


def smartcards(domain: Domain, context: Context) -> list[str]:
    """The one smartcard that there may be."""
    argv: list[str] = []
    for card in domain.devices.smartcards[:1]:
        address = card.address if isinstance(card.address, CcidAddress) else CcidAddress()
        reader = find_controller(domain, ControllerType.CCID, address.controller)
        if reader is None:
            raise unsupported("<smartcard>: there is no CCID controller for it")
        spec, before = _card(card, context)
        argv += [*before, *option("-device", {**spec, "id": alias_of(card), "bus": f"{alias_of(reader)}.0"})]
    return argv


def _card(card: Smartcard, context: Context) -> tuple[dict[str, Any], list[str]]:
    if card.mode == "host":
        return {"driver": "ccid-card-emulated", "backend": "nss-emulated"}, []
    if card.mode == "host-certificates":
        names = {f"cert{number}": name for number, name in enumerate(card.certificates, 1)}
        return {
            "driver": "ccid-card-emulated", "backend": "certificates", **names, "db": card.database or _NSS_DATABASE,
        }, []  # fmt: skip
    line = _Line(
        type=card.type or CharacterType.PTY,
        sources=card.sources,
        protocol=card.protocol,
        log=card.log,
        alias=alias_of(card),
    )
    return {"driver": "ccid-card-passthru", "chardev": f"char{alias_of(card)}"}, chardev(line, context)


class _Line(CharacterBackend, tag="smartcard"):
    """What a smartcard is at the end of."""


def shared_memory(domain: Domain, shared: SharedMemory) -> list[str]:
    """Memory that several guests have."""
    name, msi = alias_of(shared), shared.msi or ShmemMsi()
    spec: dict[str, Any] = {"driver": shared.model, "id": name}
    argv: list[str] = []
    if shared.model == "ivshmem":  # of QEMU before 4.0
        spec |= {"msi": True if shared.msi is not None else None}
        spec |= {"size": f"{shared.size.to_bytes() >> 20}m" if shared.size is not None else None}
        spec["chardev" if shared.server is not None else "shm"] = (
            shared.name if shared.server is None else f"char{name}"
        )
    elif shared.server is not None:
        spec["chardev"] = f"char{name}"
    else:
        size = shared.size.to_bytes() if shared.size is not None else None
        backing = {"qom-type": "memory-backend-file", "id": f"shmmem-{name}", "mem-path": f"{_SHARED}/{shared.name}"}
        argv += option("-object", {**backing, "size": size, "share": True})
        spec |= {"memdev": f"shmmem-{name}", "master": _ROLES.get(shared.role or "")}
    spec |= {"vectors": msi.vectors, "ioeventfd": msi.ioeventfd}
    argv += option("-device", {**spec, **place(domain, shared)})
    if shared.server is not None:
        path = shared.server.path or f"/var/lib/libvirt/shmem-{shared.name}-sock"
        argv = ["-chardev", f"socket,id=char{name},path={escape(path)}", *argv]
    return argv
