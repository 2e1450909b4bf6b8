"""Finding out the addresses of a guest's interface by what is said on it; who listens is :mod:`.learner`."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import system_fault
from hostel.drivers.store import Directories, is_locked
from hostel.errors import ErrorDomain
from hostel.model.nwfilter.binding import FilterBinding

WAYS: Final = ("any", "dhcp")
FOREVER: Final = float("inf")
_IPV4, _VLAN, _UDP = 0x0800, 0x8100, 17
_SERVER, _CLIENT = 67, 68
_BOOT_REPLY: Final = 2
_COOKIE: Final = bytes((0x63, 0x82, 0x53, 0x63))
_OPTIONS: Final = 240  # where they begin in a message (RFC 2131)
_PAD, _REQUESTED, _LEASE, _TYPE, _END = 0, 50, 51, 53, 255
_DECLINE, _ACK, _RELEASE = 4, 5, 7
_INFINITE: Final = 0xFFFFFFFF
_FIRST_MULTICAST: Final = 224
# Lets through UDP from the ports 67 and 68 over IPv4, whole packets or their first parts (struct sock_filter).
_DHCP: Final = (
    (0x28, 0, 0, 12), (0x15, 0, 9, 0x0800), (0x30, 0, 0, 23), (0x15, 0, 7, 17), (0x28, 0, 0, 20), (0x45, 5, 0, 0x1FFF),
    (0xB1, 0, 0, 14), (0x48, 0, 0, 14), (0x15, 1, 0, 67), (0x15, 0, 1, 68), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
)  # fmt: skip
_ALL: Final = 0x0003  # ETH_P_ALL
_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER
_PROGRAM: Final = "import sys; from hostel.drivers.nwfilter.learner import main; sys.exit(main(sys.argv[1:]))"
_START: Final = 10.0  # seconds that a shell has to start a process


class Lease(NamedTuple):
    """An address that is the guest's, or is no more.

    Attributes:
        seconds: how long it is; 0: it is no more.
    """

    address: str
    seconds: float


def lease(frame: bytes, mac: bytes, *, to_guest: bool) -> Lease | None:
    """What a frame of DHCP says of the guest's address; None where it says nothing.

    Args:
        frame: from its Ethernet header on; anything.
        mac: the guest's.
        to_guest: it goes to the guest; what a guest says as a server is not believed.
    """
    packet = _packet(frame)
    if packet is None or packet[9] != _UDP:
        return None
    header = (packet[0] & 15) * 4
    message = packet[header + 8 :]
    if header < 20 or len(message) < _OPTIONS or message[_OPTIONS - 4 : _OPTIONS] != _COOKIE:
        return None
    source, target = struct.unpack_from(">HH", packet, header)
    options = _options(message)
    kind = options.get(_TYPE, b"")
    if to_guest:
        is_answer = (source, target) == (_SERVER, _CLIENT) and message[0] == _BOOT_REPLY and message[28:34] == mac
        seconds = int.from_bytes(options.get(_LEASE, b"")[:4])
        if not is_answer or kind != bytes((_ACK,)) or not any(message[16:20]):
            return None
        return Lease(_dotted(message[16:20]), FOREVER if seconds in (0, _INFINITE) else float(seconds))
    if (source, target) != (_CLIENT, _SERVER) or frame[6:12] != mac:
        return None
    if kind == bytes((_RELEASE,)):
        return Lease(_dotted(message[12:16]), 0)
    declined = options.get(_REQUESTED, b"")
    return Lease(_dotted(declined), 0) if kind == bytes((_DECLINE,)) and len(declined) == 4 else None


def source_address(frame: bytes, mac: bytes) -> str | None:
    """The address from which the guest sends; None where a frame is not its own, or says none."""
    packet = _packet(frame)
    if packet is None or frame[6:12] != mac or packet[12] >= _FIRST_MULTICAST or not any(packet[12:16]):
        return None
    return _dotted(packet[12:16])


def _packet(frame: bytes) -> bytes | None:
    """The IPv4 packet in a frame, from its header on."""
    if len(frame) < 18:
        return None
    (kind,) = struct.unpack_from(">H", frame, 12)
    start = 14
    if kind == _VLAN:
        (kind,) = struct.unpack_from(">H", frame, 16)
        start = 18
    packet = frame[start:]
    return packet if kind == _IPV4 and len(packet) >= 20 and packet[0] >> 4 == 4 else None


def _options(message: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    place = _OPTIONS
    while place < len(message) and message[place] != _END:
        if message[place] == _PAD:
            place += 1
            continue
        if place + 1 >= len(message):
            break
        length = message[place + 1]
        found.setdefault(message[place], message[place + 2 : place + 2 + length])
        place += 2 + length
    return found


def _dotted(raw: bytes) -> str:
    return socket.inet_ntoa(raw)


def is_running(lock: Path) -> bool:
    """Whether the process that finds out addresses holds its lock."""
    return is_locked(lock)


def listen(device: str, *, dhcp: bool) -> socket.socket:
    """Begin to hear what is said on an interface; ``dhcp``: only what may be DHCP, for a busy guest's packets are many.

    Raises:
        OSError: there is no such interface, or this process may not.
    """
    listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        if dhcp:
            code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _DHCP))
            program = struct.pack("HL", len(_DHCP), ctypes.addressof(code))
            listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        listening.bind((device, _ALL))
    except BaseException:
        listening.close()
        raise
    return listening


def start(directories: Directories, binding: FilterBinding, mark: str) -> None:
    """Start the process that finds out addresses; it ends when that is done, or the interface or the mark goes.

    It hears everything from now on, however long it takes to begin.

    Raises:
        VirtError: ``SYSTEM_ERROR``.
    """
    name = binding.port_device or ""
    learner = [sys.executable, "-c", _PROGRAM, *map(str, directories), name, mark]
    try:
        directories.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = os.open(directories.cache / "nwfilter.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with listen(binding.link_device or name, dhcp=mark.startswith("dhcp ")) as listening:
                # The shell ends at once, so that the process is nobody's zombie here.
                shell = subprocess.Popen(
                    ["sh", "-c", '"$@" &', "sh", *learner, str(listening.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                    pass_fds=[listening.fileno()],
                )
                shell.wait(_START)
        finally:
            os.close(log)
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = error if isinstance(error, OSError) else TimeoutError(str(error))
        raise system_fault(failed, f"cannot listen for the addresses of '{name}'", ErrorDomain.NWFILTER) from error
