"""Taps and macvtaps: interfaces of the host whose other end is an open file (``tun.txt``, ``virnetdevtap.c``).

A tap is gone when the last who has its file open closes it. A macvtap stays until it is removed; what it is for is
written on it (its alias), under a name of its own until that is done, so that it is found after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import struct
import time
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.link import device
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_TUN: Final = "/dev/net/tun"
_VHOST_NET: Final = "/dev/vhost-net"
_TUNSETIFF: Final = 0x400454CA
_TAP, _NO_PI, _VNET_HDR, _MULTI_QUEUE = 0x2, 0x1000, 0x4000, 0x100
_REQUEST: Final = struct.Struct("16sH22x")  # struct ifreq
_MODES: Final = {"passthrough": "passthru"}  # in the words of iproute2
# A shell, which starts QEMU, knows the lower ones by number.
_LOWEST: Final = 20
_DEVICE_SECONDS: Final = 5.0
_POLL: Final = 0.02


def open_tap(name: str, *, queues: int = 1, path: str | None = None) -> tuple[str, list[int]]:
    """Make a tap; its name and its open files, one for each queue.

    Args:
        name: its name, in which ``%d`` is the first number that is free.
        queues: how many pairs of queues it has.
        path: the device that taps are made with, where it is another than the kernel's.

    Raises:
        VirtError: the host refused.
    """
    files: list[int] = []
    try:
        for _ in range(queues):
            files.append(_open(path or _TUN))
            name = _attach(files[-1], name, _MULTI_QUEUE if queues > 1 else 0)
    except BaseException as error:
        close(files)
        if isinstance(error, OSError):
            raise system_fault(error, f"Unable to create tap device {name}", ErrorDomain.NETWORK) from error
        raise
    return name, files


def _attach(file: int, name: str, flags: int) -> str:
    request = _REQUEST.pack(name.encode(), _TAP | _NO_PI | _VNET_HDR | flags)
    return fcntl.ioctl(file, _TUNSETIFF, request)[:16].rstrip(b"\0").decode()


def _open(path: str) -> int:
    first = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(first)


def close(files: list[int]) -> None:
    """Close files that were opened here."""
    while files:
        os.close(files.pop())


def open_vhosts(count: int, path: str | None = None) -> list[int]:
    """The kernel's own virtio back end, or another at ``path``, once for each queue; nothing where the host has none.

    Raises:
        VirtError: the host refused.
    """
    files: list[int] = []
    try:
        files.extend(_open(path or _VHOST_NET) for _ in range(count))
    except OSError as error:
        close(files)
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise system_fault(error, f"cannot open '{path or _VHOST_NET}'", ErrorDomain.NETWORK) from error
    return files


def make_macvtap(link: str, mode: str, mac: str, purpose: str) -> str:
    """Make a macvtap over an interface; its name.

    Args:
        link: the interface.
        mode: ``vepa``, ``bridge``, ``private`` or ``passthrough``.
        mac: its hardware address.
        purpose: what it is found by in :func:`remove_macvtaps`.

    Raises:
        VirtError: the host refused.
    """
    if not device.exists(link):
        reason = f"Unable to get index for interface {link}: No such device"
        raise fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.NETWORK)
    first = _first_name(purpose)
    device.remove(first)
    kind = ("type", "macvtap", "mode", _MODES.get(mode, mode))
    device.ip("link", "add", "link", link, "name", first, "address", mac, *kind)
    try:
        device.ip("link", "set", "dev", first, "alias", purpose)
        index = socket.if_nametoindex(first)
        device.ip("link", "set", "dev", first, "name", "macvtap%d")
        name = socket.if_indextoname(index)
        device.ip("link", "set", "dev", link, "up")
        device.ip("link", "set", "dev", name, "up")
    except BaseException:
        with contextlib.suppress(VirtError):
            remove_macvtaps(purpose)
        raise
    return name


def open_macvtap(name: str, *, queues: int = 1) -> list[int]:
    """The open files of a macvtap, one for each queue.

    Raises:
        VirtError: the host refused, or its file does not appear.
    """
    path = Path(f"/dev/tap{socket.if_nametoindex(name)}")
    deadline = time.monotonic() + _DEVICE_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_POLL)  # udev makes it
    files: list[int] = []
    try:
        for _ in range(queues):
            files.append(_open(str(path)))
            _attach(files[-1], name, _MULTI_QUEUE if queues > 1 else 0)
    except BaseException as error:
        close(files)
        if isinstance(error, OSError):
            raise system_fault(error, f"cannot open macvtap tap device {path}", ErrorDomain.NETWORK) from error
        raise
    return files


def remove_macvtaps(purpose: str) -> None:
    """Remove the macvtap that was made for something, where there is one.

    Raises:
        VirtError: it stays.
    """
    device.remove(_first_name(purpose))
    for link in device.ip_json("link", "show", "type", "macvtap"):
        if link.get("ifalias") == purpose:
            device.remove(str(link["ifname"]))


def _first_name(purpose: str) -> str:
    return f"macvtap{hashlib.sha256(purpose.encode()).hexdigest()[:8]}"
