"""Virtual functions of SR-IOV cards, which networks give to guests (``networkCreateInterfacePool``)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.network import Forward

_NETWORK: Final = Path("/sys/class/net")
_PCI: Final = Path("/sys/bus/pci/devices")


def check_functions(forward: Forward, network: str) -> None:
    """Refuse devices that are no virtual functions.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``; the words are libvirt's.
    """
    for place in forward.addresses:
        path = _PCI / f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}"
        if not (path / "physfn").exists():
            reason = f"device '{path}' in network '{network}' is not an SR-IOV Virtual Function"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.NETWORK)


def interfaces_of(forward: Forward) -> list[str]:
    """The interfaces that a network gives to guests: those it names, or those of its card's functions.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the card has none.
    """
    if forward.interfaces or forward.dev is not None:
        return [item.dev for item in forward.interfaces] or [forward.dev or ""]
    if not forward.pfs:
        return []
    functions = sorted((_NETWORK / forward.pfs[0] / "device").glob("virtfn*"), key=_number)
    found = [name.name for function in functions for name in sorted((function / "net").glob("*"))]
    if not found:
        reason = f"No usable Vf's present on SRIOV PF {forward.pfs[0]}"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NETWORK)
    return found


def _number(function: Path) -> int:
    return int(function.name.removeprefix("virtfn"))
