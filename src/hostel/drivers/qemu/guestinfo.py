"""What the agent tells of the inside of a guest, as parameters: users, system, file systems, disks, interfaces.

The guest is not trusted: what is not of the shape that the agent's protocol has (``qga/qapi-schema.json``) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hostel.drivers.base.agent import FilesystemInfo
from hostel.drivers.base.network import AddressType
from hostel.drivers.fault import fault
from hostel.drivers.qemu.addresses import from_agent
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.address import DriveAddress, PciAddress
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain

_U64: Final = 2**64 - 1
_I32: Final = 2**31
Params = dict[str, int | bool | str]
_SYSTEM: Final = (
    "id", "name", "pretty-name", "version", "version-id", "machine", "variant", "variant-id", "kernel-release",
    "kernel-version",
)  # fmt: skip


def hostname(answer: Any) -> str:
    """Of ``guest-get-host-name``."""
    return _text(_object(answer, "guest-get-host-name"), "host-name", "guest-get-host-name")


def users(answer: Any) -> Params:
    """Of ``guest-get-users``."""
    found = _objects(answer, "guest-get-users")
    params: Params = {"user.count": len(found)}
    for index, user in enumerate(found):
        params[f"user.{index}.name"] = _text(user, "user", "guest-get-users")
        if isinstance(user.get("domain"), str):
            params[f"user.{index}.domain"] = user["domain"]
        since = user.get("login-time")
        if not isinstance(since, int | float) or isinstance(since, bool) or not 0 <= since * 1000 <= _U64:
            raise _missing("login-time", "guest-get-users")
        params[f"user.{index}.login-time"] = int(since * 1000)
    return params


def system(answer: Any) -> Params:
    """Of ``guest-get-osinfo``."""
    found = _object(answer, "guest-get-osinfo")
    return {f"os.{name}": found[name] for name in _SYSTEM if isinstance(found.get(name), str)}


def timezone(answer: Any) -> Params:
    """Of ``guest-get-timezone``."""
    found = _object(answer, "guest-get-timezone")
    params: Params = {"timezone.name": found["zone"]} if isinstance(found.get("zone"), str) else {}
    return params | {"timezone.offset": _number(found, "offset", "guest-get-timezone", range(-_I32, _I32))}


def filesystems(answer: Any, domain: Domain) -> Params:
    """Of ``guest-get-fsinfo``; in the order in which they were mounted."""
    found = _objects(answer, "guest-get-fsinfo")[::-1]
    params: Params = {"fs.count": len(found)}
    for index, each in enumerate(found):
        start = f"fs.{index}."
        params[f"{start}name"] = _text(each, "name", "guest-get-fsinfo")
        params[f"{start}mountpoint"] = _text(each, "mountpoint", "guest-get-fsinfo")
        params[f"{start}fstype"] = _text(each, "type", "guest-get-fsinfo")
        for name in ("total-bytes", "used-bytes"):
            if name in each:
                params[start + name] = _number(each, name, "guest-get-fsinfo")
        disks = _objects(each.get("disk"), "guest-get-fsinfo")
        params[f"{start}disk.count"] = len(disks)
        for number, disk in enumerate(disks):
            place = f"{start}disk.{number}."
            target = _target(disk, domain)
            params |= {f"{place}alias": target} if target is not None else {}
            for name, key in (("serial", "serial"), ("device", "dev")):
                if isinstance(disk.get(key), str):
                    params[place + name] = disk[key]
    return params


def mounted(answer: Any, domain: Domain) -> list[FilesystemInfo]:
    """Of ``guest-get-fsinfo``, without numbers."""
    found: list[FilesystemInfo] = []
    for each in reversed(_objects(answer, "guest-get-fsinfo")):
        names = [_text(each, name, "guest-get-fsinfo") for name in ("mountpoint", "name", "type")]
        disks = (_target(disk, domain) for disk in _objects(each.get("disk"), "guest-get-fsinfo"))
        found.append(FilesystemInfo(names[0], names[1], names[2], [target for target in disks if target is not None]))
    return found


def disks(answer: Any, domain: Domain) -> Params:
    """Of ``guest-get-disks``."""
    found = _objects(answer, "guest-get-disks")
    params: Params = {"disk.count": len(found)}
    for index, disk in enumerate(found):
        start = f"disk.{index}."
        params[f"{start}name"] = _text(disk, "name", "guest-get-disks")
        params[f"{start}partition"] = bool(disk.get("partition"))
        listed = disk.get("dependencies")
        needed = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        if needed:
            params[f"{start}dependency.count"] = len(needed)
            params |= {f"{start}dependency.{number}.name": name for number, name in enumerate(needed)}
        address = disk.get("address")
        if isinstance(address, dict):
            if isinstance(address.get("serial"), str):
                params[f"{start}serial"] = address["serial"]
            target = _target(address, domain)
            params |= {f"{start}alias": target} if target is not None else {}
        if isinstance(disk.get("alias"), str):
            params[f"{start}guest_alias"] = disk["alias"]
    return params


def _target(address: Mapping[str, Any], domain: Domain) -> str | None:
    """Which of the document's disks is at an address that the guest tells (``virDomainDiskByAddress``)."""
    given = address.get("pci-controller")
    pci = None if not isinstance(given, dict) else tuple(given.get(part) for part in _PCI)
    controllers = [item for item in domain.devices.controllers if _is_at(item.address, pci)]
    unit = tuple(address.get(part) for part in ("bus", "target", "unit"))
    for disk in domain.devices.disks:
        if _is_at(disk.address, pci) or _is_unit(disk, [item.index for item in controllers], unit):
            return disk.target.dev
    return None


_PCI: Final = ("domain", "bus", "slot", "function")


def _is_at(address: object, pci: tuple[Any, ...] | None) -> bool:
    return isinstance(address, PciAddress) and tuple(getattr(address, part) or 0 for part in _PCI) == pci


def _is_unit(disk: Disk, controllers: Sequence[int | None], unit: tuple[Any, ...]) -> bool:
    address = disk.address
    if not isinstance(address, DriveAddress) or (address.controller or 0) not in controllers:
        return False
    return tuple(getattr(address, part) or 0 for part in ("bus", "target", "unit")) == unit


def interfaces(answer: Any) -> Params:
    """Of ``guest-network-get-interfaces``."""
    found = from_agent(answer)
    params: Params = {"if.count": len(found)}
    for index, interface in enumerate(found):
        params[f"if.{index}.name"] = interface.name
        if interface.mac is not None:
            params[f"if.{index}.hwaddr"] = interface.mac
        params[f"if.{index}.addr.count"] = len(interface.addresses)
        for number, address in enumerate(interface.addresses):
            start = f"if.{index}.addr.{number}."
            family = "ipv6" if address.type == AddressType.IPV6 else "ipv4"
            params |= {f"{start}type": family, f"{start}addr": address.address, f"{start}prefix": address.prefix}
    return params


class GuestCpu(NamedTuple):
    """A processor as the guest has it: its number, whether it is used, and whether it can be left alone."""

    id: int
    online: bool
    can_offline: bool


def cpus(answer: Any) -> list[GuestCpu]:
    """Of ``guest-get-vcpus``."""
    return list(_cpus(answer))


def _cpus(answer: Any) -> Iterator[GuestCpu]:
    for each in _objects(answer, "guest-get-vcpus"):
        number = _number(each, "logical-id", "guest-get-vcpus")
        for name in ("online", "can-offline"):
            if not isinstance(each.get(name), bool):
                raise _missing(name, "guest-get-vcpus")
        if not 0 <= number < _MOST_CPUS:
            raise _wrong(f"vcpu id '{number}' reported by guest agent is out of range")
        yield GuestCpu(number, each["online"], each["can-offline"])


_MOST_CPUS: Final = 16384


def chosen(known: Sequence[GuestCpu], count: int) -> dict[int, bool]:
    """Which processors are to be used, and which no more, so that there are ``count`` (``qemuAgentUpdateCPUInfo``).

    Raises:
        VirtError: the guest has not so many, or cannot do with so few.
    """
    online = sum(cpu.online for cpu in known)
    free = [cpu for cpu in known if cpu.online and cpu.can_offline]
    if len(free) == online:  # the first one stays: guests do not suspend well without it
        free = [cpu for cpu in free if cpu.id != 0]
    if any(not cpu.online and not cpu.can_offline for cpu in known):
        raise _wrong("Invalid data provided by guest agent")
    if count > len(known):
        raise _wrong("guest agent reports less cpu than requested")
    if count < online - len(free):
        raise fault(ErrorCode.INVALID_ARG, "Cannot offline enough CPUs", ErrorDomain.QEMU)
    if count < online:
        return {cpu.id: False for cpu in free[: online - count]}
    return {cpu.id: True for cpu in [cpu for cpu in known if not cpu.online][: count - online]}


def _object(answer: Any, command: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise _wrong(f"{command} reply was missing return data")
    return answer


def _objects(answer: Any, command: str) -> list[dict[str, Any]]:
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise _wrong(f"Malformed {command} data array")
    return answer


def _text(found: Mapping[str, Any], name: str, command: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise _missing(name, command)
    return value


def _number(found: Mapping[str, Any], name: str, command: str, allowed: range = range(_U64 + 1)) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise _missing(name, command)
    return value


def _missing(name: str, command: str) -> VirtError:
    return _wrong(f"'{name}' missing in reply of {command}")


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
