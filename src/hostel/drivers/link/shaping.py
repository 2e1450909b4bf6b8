"""Shaping what passes an interface (``virNetDevBandwidthSet``).

Rates are the guest's: what it receives is queued where the host sends to it, by the kernel's token buckets (HTB); what
it sends beyond its rate is dropped where it comes in, by a rule of nftables. Where guests have a floor, a network's
bridge has a class for each of them, and class 2 for the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from hostel.drivers import tool
from hostel.drivers.link import device, nft
from hostel.drivers.link.nft import TABLE
from hostel.errors import ErrorDomain, VirtError
from hostel.model.port import Bandwidth, Rate

_PREFIX: Final = f"{TABLE}_"  # of a table for each interface, which is gone at once
_SECONDS: Final = 30.0
_REST: Final = 2  # the class of guests without a floor
_FILTERS: Final = 800  # the first number of a filter's handle
_MOST_BURST: Final = (2**32 - 1) // 1024  # KiB that the kernel can count


def shape(name: str, bandwidth: Bandwidth | None, *, has_floors: bool = False, seen_from_host: bool = False) -> None:
    """Set the rates of an interface; what was set before is gone.

    Args:
        name: the interface's.
        bandwidth: what the guest may receive and send.
        has_floors: whether guests behind it may have floors.
        seen_from_host: what the guest sends goes out of the interface, as of a macvtap; and not into it, as of a tap.

    Raises:
        VirtError: the kernel cannot.
    """
    if bandwidth is None:
        return
    device.check_plain(name)
    clear(name)
    out, into = (bandwidth.outbound, bandwidth.inbound) if seen_from_host else (bandwidth.inbound, bandwidth.outbound)
    if out is not None and out.average:
        for words in queueing(name, out, has_floors=has_floors):
            _tc(words)
    if into is not None and into.average:
        nft.apply(policing(name, into))


def clear(name: str) -> None:
    """Take all rates off an interface that may be gone, and with them those of others that are gone."""
    with contextlib.suppress(VirtError):
        _tc(f"qdisc del dev {name} root")
    _sweep(name)


def _sweep(name: str) -> None:
    """Drop the rules of an interface, and of those that ended with a guest."""
    ours = {table for table in nft.tables("netdev") if table.startswith(_PREFIX)}
    gone = {table for table in ours if table == _PREFIX + name or not device.exists(table.removeprefix(_PREFIX))}
    # Added first, for another process may have dropped it meanwhile.
    nft.apply("".join(f"add table netdev {table}\ndelete table netdev {table}\n" for table in sorted(gone)))


def queueing(name: str, rate: Rate, *, has_floors: bool) -> Iterator[str]:
    """What ``tc`` is told for what goes out of an interface."""
    yield f"qdisc add dev {name} root handle 1: htb default {_REST if has_floors else 1}"
    if has_floors:
        yield f"class add dev {name} parent 1: classid 1:1 htb {_limits(rate, rate.average, burst=False)}"
    where = f"parent 1:1 classid 1:{_REST}" if has_floors else "parent 1: classid 1:1"
    yield f"class add dev {name} {where} htb {_limits(rate, rate.average)}"


def policing(name: str, rate: Rate) -> str:
    """The rule for what comes in from an interface."""
    burst = min(rate.burst or rate.average or 1, _MOST_BURST)
    table = f"netdev {_PREFIX}{name}"
    return (
        f"add table {table}\n"
        f'add chain {table} police {{ type filter hook ingress device "{name}" priority filter; policy accept; }}\n'
        f"add rule {table} police limit rate over {rate.average} kbytes/second burst {burst} kbytes drop\n"
    )


def plug(bridge: str, network: Rate, mac: str, floor: int, number: int, floors: int) -> None:
    """Reserve a rate for a guest.

    Args:
        bridge: the network's.
        network: what all guests receive.
        mac: the guest's.
        floor: kilobytes a second.
        number: of its class, 3 or more.
        floors: the sum of all floors, with this one.

    Raises:
        VirtError: the kernel cannot.
    """
    limits = _limits(network, floor, burst=False)
    _tc(f"class add dev {bridge} parent 1:1 classid 1:{number:x} htb {limits}")
    digits = mac.replace(":", "")
    # The hardware address lies before what the filter calls the beginning, its destination 14 bytes.
    _tc(
        f"filter add dev {bridge} protocol ip prio 2 handle 800::{_FILTERS + number} u32 "
        f"match u16 0x0800 0xffff at -2 match u32 0x{digits[4:]} 0xffffffff at -12 "
        f"match u16 0x{digits[:4]} 0xffff at -14 flowid 1:{number:x}"
    )
    _set_rest(bridge, network, floors)


def unplug(bridge: str, network: Rate, number: int, floors: int) -> None:
    """Give a reserved rate back; ``floors`` is the sum of those that are left.

    Raises:
        VirtError: the kernel cannot.
    """
    with contextlib.suppress(VirtError):  # it may not have come so far
        _tc(f"filter del dev {bridge} prio 2 handle 800::{_FILTERS + number} u32")
    with contextlib.suppress(VirtError):
        _tc(f"class del dev {bridge} classid 1:{number:x}")
    _set_rest(bridge, network, floors)


def _set_rest(bridge: str, network: Rate, floors: int) -> None:
    left = max((network.peak or network.average or 0) - floors, 1)
    _tc(f"class change dev {bridge} parent 1:1 classid 1:{_REST} htb {_limits(network, left, burst=False)}")


def _limits(rate: Rate, average: int | None, *, burst: bool = True) -> str:
    ceiling = f" ceil {rate.peak or rate.average}kbps"
    size = f" burst {rate.burst}kb" if burst and rate.burst else ""
    return f"rate {average}kbps{ceiling}{size} quantum {_quantum(average or 1)}"


def _quantum(average: int) -> int:
    """How many bytes a class may send at a time: a packet, where the rate is not high."""
    return min(max(average * 1024 // 8 // 10, 1500), 60000)


def _tc(words: str) -> None:
    tool.run(["tc", *words.split()], ErrorDomain.NETWORK, timeout=_SECONDS)
