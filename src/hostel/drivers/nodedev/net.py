"""Network interfaces."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import Final

from hostel.drivers.nodedev.sysfs import SysDevice
from hostel.model.node_device_capability import FEATURE_ORDER, Link, NetCapability, WirelessKind

_SIOCETHTOOL: Final = 0x8946
# ethtool's commands whose answer is a number (linux/ethtool.h), by the feature that they are about.
_COMMANDS: Final = {"rx": 0x14, "tx": 0x16, "sg": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
_FLAGS_COMMAND: Final = 0x25
_FLAGS: Final = {"lro": 1 << 15, "rxvlan": 1 << 8, "txvlan": 1 << 7, "ntuple": 1 << 27, "rxhash": 1 << 28}
_FEATURES_COMMAND: Final = 0x3A
_BLOCKS: Final = 2
_TUNNEL_BIT: Final = 25  # tx-udp_tnl-segmentation, in the first block
_NO_SPEED: Final = 0xFFFFFFFF


def describe(device: SysDevice, *, ask_kernel: bool) -> NetCapability | None:
    """What a network interface is; None where it has no name.

    Args:
        device: the interface.
        ask_kernel: ask for its features, which sysfs does not have.
    """
    name = device.fact("INTERFACE")
    if name is None:
        return None
    kind = "80211" if device.fact("DEVTYPE") == "wlan" else "80203"
    return NetCapability(
        interface=name,
        address=device.attribute("address"),
        link=link_of(device),
        features=features(name) if ask_kernel else [],
        kind=WirelessKind(type=kind),
    )


def link_of(device: SysDevice) -> Link | None:
    """The state of an interface's link, and its speed (Mbit/s) where it is up."""
    state = device.attribute("operstate")
    if state is None:
        return None
    if state != "up":
        # What drivers say of a link that is down is of no meaning.
        return Link(state=state)
    speed = device.number("speed")
    return Link(speed=None if speed is None else speed & _NO_SPEED, state=state)


def features(interface: str) -> list[str]:
    """What the interface's driver has switched on, in libvirt's order."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for name, command in _COMMANDS.items():
            if _ask(sock, interface, struct.pack("II", command, 0), 4):
                found.add(name)
        flags = _ask(sock, interface, struct.pack("II", _FLAGS_COMMAND, 0), 4)
        found.update(name for name, bit in _FLAGS.items() if flags & bit)
        blocks = struct.pack("II", _FEATURES_COMMAND, _BLOCKS) + bytes(16 * _BLOCKS)
        # Of each block: available, requested, active, never changed.
        if _ask(sock, interface, blocks, 16) & 1 << _TUNNEL_BIT:
            found.add("txudptnl")
    return [name for name in FEATURE_ORDER if name in found]


def _ask(sock: socket.socket, interface: str, command: bytes, at: int) -> int:
    """Give the kernel a command for a driver; the word at ``at`` of its answer, 0 where the driver has none."""
    buffer = ctypes.create_string_buffer(command, len(command))
    request = struct.pack("16sP", interface.encode()[:15], ctypes.addressof(buffer)) + bytes(16)
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:
        return 0
    return int(struct.unpack_from("I", buffer.raw, at)[0])
