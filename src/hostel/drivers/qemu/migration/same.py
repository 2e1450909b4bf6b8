"""Whether a document given for the destination is the same machine as the guest sees it (``CheckABIStability``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.device import Device
from hostel.model.domain.domain import Domain

# Of each kind of device, what the guest sees beside its address; where a value comes from is the host's business.
_SEEN: Final[dict[str, tuple[str, ...]]] = {
    "disks": ("target.dev", "target.bus", "device", "model", "serial", "wwn", "readonly"),
    "controllers": ("type", "index", "model"),
    "filesystems": ("target.dir",),
    "interfaces": ("mac.address", "model.type"),
    "serials": ("target.type", "target.port"),
    "parallels": ("target.port",),
    "consoles": ("target.type", "target.port"),
    "channels": ("target.type", "target.name"),
    "inputs": ("type", "bus"),
    "sounds": ("model",),
    "videos": ("model.type", "model.vram", "model.heads"),
    "hubs": ("type",),
    "watchdogs": ("model",),
    "rngs": ("model",),
    "panics": ("model",),
    "hostdevs": (),
    "tpms": ("model",),
    "shmems": ("name",),
    "memories": ("model",),
    "smartcards": ("mode",),
    "redirdevs": ("bus",),
}


def check_same(source: Domain, target: Domain, *, name: str | None = None) -> None:
    """Hold two complete documents against each other.

    Args:
        source: what runs.
        target: what shall run at the destination.
        name: what it shall be called there, where that is another name.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``, with the first difference that a guest would see.
    """
    if target.name not in (source.name, name):
        raise unsupported(f"Target domain name '{target.name}' does not match source '{source.name}'")
    _compare("domain uuid", target.uuid, source.uuid)
    _compare("domain virt type", target.type, source.type)
    _compare("domain max memory", _memory(target), _memory(source))
    _compare("domain vCPU max", _vcpus(target), _vcpus(source))
    for part in ("os.type.arch", "os.type.machine"):
        _compare(f"domain {part.rpartition('.')[2]}", _at(target, part), _at(source, part))
    for part in ("cpu", "features"):
        _compare(f"domain {part}", _written(target, part), _written(source, part))
    for kind, seen in _SEEN.items():
        _compare_devices(kind, getattr(target.devices, kind), getattr(source.devices, kind), seen)
    _compare_devices("memballoons", _one(target.devices.memballoon), _one(source.devices.memballoon), ("model",))


def _compare_devices(kind: str, targets: Sequence[Device], sources: Sequence[Device], seen: Iterable[str]) -> None:
    word = kind.removesuffix("es") if kind.endswith("hes") else kind.removesuffix("s")
    _compare(f"domain {word} count", len(targets), len(sources))
    for target, source in zip(targets, sources, strict=True):
        for part in seen:
            _compare(f"{word} {part.rpartition('.')[2]}", _at(target, part), _at(source, part))
        _compare(f"{word} address", _address(target), _address(source))


def _compare(what: str, target: object, source: object) -> None:
    if target != source:
        raise unsupported(f"Target {what} {_shown(target)} does not match source {_shown(source)}")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _at(element: object, path: str) -> object:
    found: Any = element
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _written(domain: Domain, part: str) -> str | None:
    element = getattr(domain, part)
    return element.format().replace("\n", " ").strip() if element is not None else None


def _address(device: Device) -> str | None:
    return device.address.format().strip() if device.address is not None else None


def _memory(domain: Domain) -> int:
    return domain.memory.to_kib() if domain.memory is not None else 0


def _vcpus(domain: Domain) -> int:
    return domain.vcpu.value if domain.vcpu is not None else 1


def _one(device: Device | None) -> list[Device]:
    return [device] if device is not None else []
