"""Network interfaces of the host by their names; iproute2 does what the kernel has no plain call for.

Everything is about the network namespace of the caller, which ``/sys/class/net`` need not show.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import re
import socket
import struct
from typing import Any, Final

from hostel.drivers import tool
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.privilege import Capability, may
from hostel.errors import ErrorCode, ErrorDomain

_SIOCGIFMTU: Final = 0x8921
_SIOCGIFHWADDR: Final = 0x8927
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GCOALESCE, _ETHTOOL_SCOALESCE = 0xE, 0xF
_COALESCE: Final = struct.Struct("23I")  # struct ethtool_coalesce
_RX_FRAMES: Final = 2  # its field rx_max_coalesced_frames
_POINTER: Final = struct.Struct("16sP16x")  # struct ifreq with ifr_data
_REQUEST: Final = struct.Struct("16s24x")  # struct ifreq
_SECONDS: Final = 30.0
# What can be written into files of nft and dnsmasq, and means nothing to either.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def may_administer() -> bool:
    """Whether this process may change the host's network (``CAP_NET_ADMIN``)."""
    return may(Capability.NET_ADMIN)


def check_plain(name: str) -> None:
    """Refuse an interface's name that a pattern or a quote could be part of.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``.
    """
    if not _PLAIN.fullmatch(name):
        reason = f"interface name '{name}' cannot be written into rules: use letters, digits, '_', '.' and '-'"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.NETWORK)


def exists(name: str) -> bool:
    """Whether there is an interface of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def ip(*arguments: str) -> str:
    """Run ``ip``, and return what it prints.

    Raises:
        VirtError: it failed, or is not installed.
    """
    return tool.run(["ip", *arguments], ErrorDomain.NETWORK, timeout=_SECONDS).out


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    """What ``ip`` tells of things.

    Raises:
        VirtError: it failed, or is not installed.
    """
    found: list[dict[str, Any]] = json.loads(ip("-json", *arguments) or "[]")
    return found


def bridge(*arguments: str) -> None:
    """Run ``bridge``.

    Raises:
        VirtError: it failed, or is not installed.
    """
    tool.run(["bridge", *arguments], ErrorDomain.NETWORK, timeout=_SECONDS)


def mtu(name: str) -> int:
    """How many bytes a packet through an interface may have.

    Raises:
        OSError: there is none of this name.
    """
    return int(struct.unpack_from("i", _ask(_SIOCGIFMTU, name), 16)[0])


def mac(name: str) -> str:
    """The hardware address of an interface.

    Raises:
        OSError: there is none of this name.
    """
    return ":".join(f"{byte:02x}" for byte in _ask(_SIOCGIFHWADDR, name)[18:24])


def coalescing(name: str) -> int:
    """How many received frames an interface tells of at once (``ethtool -c``).

    Raises:
        VirtError: ``SYSTEM_ERROR``: the kernel does not say.
    """
    return _coalesce(name, [_ETHTOOL_GCOALESCE])[_RX_FRAMES]


def set_coalescing(name: str, frames: int) -> None:
    """Have an interface tell of received frames when there are so many of them (``ethtool -C``).

    Raises:
        VirtError: ``SYSTEM_ERROR``: the kernel refused.
    """
    numbers = _coalesce(name, [_ETHTOOL_GCOALESCE])
    numbers[0], numbers[_RX_FRAMES] = _ETHTOOL_SCOALESCE, frames
    _coalesce(name, numbers)


def _coalesce(name: str, numbers: list[int]) -> list[int]:
    """Have the kernel read the numbers, of which the first says what to do, and write them."""
    given = _COALESCE.pack(*numbers, *[0] * (_COALESCE.size // 4 - len(numbers)))
    settings = ctypes.create_string_buffer(given, _COALESCE.size)
    request = _POINTER.pack(name.encode(), ctypes.addressof(settings))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
    except OSError as error:
        raise system_fault(error, f"Cannot set coalesce info on '{name}'", ErrorDomain.NETWORK) from error
    return list(_COALESCE.unpack(settings.raw))


def _ask(request: int, name: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        return fcntl.ioctl(asking, request, _REQUEST.pack(name.encode()))


def remove(name: str) -> None:
    """Remove an interface, where it is still there.

    Raises:
        VirtError: it stays.
    """
    if not exists(name):
        return
    command = ["ip", "link", "delete", "dev", name]
    done = tool.run(command, ErrorDomain.NETWORK, expected=range(256), timeout=_SECONDS)
    if done.code and exists(name):  # another may have removed it meanwhile
        raise tool.failure(" ".join(command), done, ErrorDomain.NETWORK)
