"""How much of its memory a virtio-mem device gives the guest: all that can be changed of memory that is plugged in."""

from __future__ import annotations

from hostel.drivers.fault import fault
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.platform import MemoryDevice, MemoryRequested
from hostel.model.domain.domain import Domain

_RESIZABLE = "virtio-mem"


def find_memory(domain: Domain, wanted: MemoryDevice) -> MemoryDevice:
    """The device that another one describes: by its alias or address, or else by its model and cell.

    Raises:
        VirtError: ``INVALID_ARG``, or ``OPERATION_FAILED`` where it may be several.
    """
    found = [held for held in domain.devices.memories if _describes(wanted, held)]
    if not found:
        raise fault(ErrorCode.INVALID_ARG, "memory not found", ErrorDomain.QEMU)
    if len(found) > 1:
        what = "several memory devices match; give the alias or the address"
        raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.QEMU)
    return found[0]


def _describes(wanted: MemoryDevice, held: MemoryDevice) -> bool:
    if wanted.alias is not None and held.alias is not None:
        return wanted.alias == held.alias
    if wanted.address is not None and held.address is not None:
        return bool(wanted.address == held.address)
    return (wanted.model, wanted.target.node) == (held.model, held.target.node)


def checked_request(held: MemoryDevice, wanted: MemoryDevice) -> MemoryRequested:
    """What is asked for, where nothing else of the device changes.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it cannot be had.
    """
    if held.model != _RESIZABLE:
        raise _unsupported(f"cannot modify memory of model '{held.model}'")
    requested, size, block = wanted.target.requested, wanted.target.size.to_kib(), held.target.block
    if requested is None:
        raise _unsupported("virtio-mem memory has to have a requested size")
    if requested.to_kib() > size:
        raise _wrong(f"requested size must be smaller than or equal to @size ({size}KiB)")
    if block is not None and requested.to_kib() % block.to_kib():
        raise _wrong("requested size must be an integer multiple of block size")
    same, before = wanted.copy(), held.copy()
    same.alias, same.address = held.alias, held.address
    same.target.requested, same.target.current = held.target.requested, held.target.current
    for number in (same.target.size, same.target.block, before.target.size, before.target.block):
        if number is not None:
            number.value, number.unit = number.to_kib(), "KiB"
    if same != before:
        raise _unsupported("nothing but the requested size of memory can be changed")
    return MemoryRequested(unit="KiB", value=requested.to_kib())


def request_memory(machine: Running, wanted: MemoryDevice) -> None:
    """Ask a running machine's device to give the guest more or less.

    Raises:
        VirtError: it cannot be had, or QEMU refuses.
    """
    held = find_memory(machine.domain, wanted)
    requested = checked_request(held, wanted)
    path = f"/machine/peripheral/{held.alias}"
    machine.ask("qom-set", path=path, property="requested-size", value=requested.to_kib() << 10)
    held.target.requested = requested
    machine.save()


def _unsupported(what: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.XML_DETAIL, what, ErrorDomain.DOMAIN)
