"""Addresses of guests on the host's sockets (``vhost_vsock``): a free one for a guest that has no word in it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.paravirtual import VsockCid
from hostel.model.domain.domain import Domain

_DEVICE: Final = Path("/dev/vhost-vsock")
_SET_GUEST_CID: Final = 0x4008AF60  # Linux, vhost.h: VHOST_VSOCK_SET_GUEST_CID
_FIRST: Final = 3  # those before are the hypervisor's and the host's
_LAST: Final = 65535


def choose(domain: Domain, device: Path = _DEVICE) -> None:
    """Give a live document's guest an address, where it is to have a free one.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: the host has no such sockets; ``SYSTEM_ERROR``: we may not have one;
            ``INTERNAL_ERROR``: none is free.
    """
    vsock = domain.devices.vsock
    if vsock is None:
        return
    if not device.exists():
        raise unsupported(f"<vsock> needs {device}, which is not there; modprobe vhost_vsock")
    cid = vsock.cid = vsock.cid or VsockCid(auto=True)
    if cid.auto is not True and cid.address is not None:
        return
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise system_fault(error, f"cannot open '{device}'", ErrorDomain.QEMU) from error
    try:
        cid.address = next(number for number in range(_FIRST, _LAST + 1) if _is_free(descriptor, number))
    except StopIteration:
        raise fault(ErrorCode.INTERNAL_ERROR, "failed to find a free guest cid", ErrorDomain.QEMU) from None
    except OSError as error:
        raise system_fault(error, f"cannot choose an address on '{device}'", ErrorDomain.QEMU) from error
    finally:
        os.close(descriptor)


def _is_free(descriptor: int, number: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _SET_GUEST_CID, struct.pack("=Q", number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
