"""What frames say of a guest's addresses, whoever made them."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.drivers.nwfilter.bindings import Bindings
from hostel.drivers.nwfilter.learner import Learner
from hostel.drivers.nwfilter.learning import FOREVER, Lease, lease, source_address
from hostel.drivers.store import Directories
from hostel.model.nwfilter.binding import FilterBinding

MAC = bytes.fromhex("525400112233")
OTHER = bytes.fromhex("525400998877")
ACK, OFFER, RELEASE, DECLINE = 5, 2, 7, 4


def ipv4(data: bytes, source: str = "10.0.0.9", protocol: int = 17) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0)
    return header + socket.inet_aton(source) + socket.inet_aton("10.0.0.2") + data


def ethernet(data: bytes, source: bytes = OTHER, kind: bytes = b"\x08\x00") -> bytes:
    return MAC + source + kind + data


def message(
    kind: int,
    *options: bytes,
    ports: tuple[int, int] = (67, 68),
    operation: int = 2,
    own: str = "0.0.0.0",
    given: str = "10.0.0.2",
    mac: bytes = MAC,
) -> bytes:
    head = struct.pack(">BBBBIHH", operation, 1, 6, 0, 7, 0, 0) + socket.inet_aton(own) + socket.inet_aton(given)
    dhcp = (head + bytes(8) + mac).ljust(236, b"\0") + bytes((0x63, 0x82, 0x53, 0x63, 53, 1, kind))
    dhcp += b"".join(options) + b"\xff"
    return struct.pack(">HHHH", *ports, 8 + len(dhcp), 0) + dhcp


def seconds(number: int) -> bytes:
    return bytes((51, 4)) + struct.pack(">I", number)


def answer(kind: int = ACK, *options: bytes, **other: object) -> bytes:
    return ethernet(ipv4(message(kind, *options, **other)))  # type: ignore[arg-type]


def test_an_answer_gives_an_address_for_a_time() -> None:
    assert lease(answer(ACK, seconds(60)), MAC, to_guest=True) == Lease("10.0.0.2", 60)
    assert lease(answer(ACK, b"\0\0", seconds(60)), MAC, to_guest=True) == Lease("10.0.0.2", 60)
    for without in (answer(), answer(ACK, seconds(0xFFFFFFFF))):
        assert lease(without, MAC, to_guest=True) == Lease("10.0.0.2", FOREVER)
    tagged = ethernet(b"\x00\x05\x08\x00" + ipv4(message(ACK)), kind=b"\x81\x00")
    assert lease(tagged, MAC, to_guest=True) == Lease("10.0.0.2", FOREVER)


@pytest.mark.parametrize(
    "frame",
    [
        answer(OFFER),
        answer(ACK, operation=1),
        answer(ACK, mac=OTHER),
        answer(ACK, ports=(68, 67)),
        answer(ACK, given="0.0.0.0"),
        ethernet(ipv4(message(ACK), protocol=6)),
        ethernet(ipv4(message(ACK)), kind=b"\x86\xdd"),
        answer()[:-250],
    ],
)
def test_what_is_no_answer_to_the_guest_gives_nothing(frame: bytes) -> None:
    assert lease(frame, MAC, to_guest=True) is None


def test_a_guest_that_answers_itself_is_not_believed() -> None:
    forged = ethernet(ipv4(message(ACK, seconds(60))), source=MAC)
    assert lease(forged, MAC, to_guest=False) is None


def test_a_guest_gives_addresses_back() -> None:
    ports = (68, 67)
    released = ethernet(ipv4(message(RELEASE, ports=ports, operation=1, own="10.0.0.2")), source=MAC)
    assert lease(released, MAC, to_guest=False) == Lease("10.0.0.2", 0)
    wanted = bytes((50, 4)) + socket.inet_aton("10.0.0.5")
    declined = ethernet(ipv4(message(DECLINE, wanted, ports=ports, operation=1)), source=MAC)
    assert lease(declined, MAC, to_guest=False) == Lease("10.0.0.5", 0)
    by_another = ethernet(ipv4(message(RELEASE, ports=ports, operation=1, own="10.0.0.2")), source=OTHER)
    assert lease(by_another, MAC, to_guest=False) is None


def test_a_guest_sends_from_its_address() -> None:
    assert source_address(ethernet(ipv4(b"data", source="10.0.0.2"), source=MAC), MAC) == "10.0.0.2"
    for source in ("0.0.0.0", "224.0.0.1", "255.255.255.255"):
        assert source_address(ethernet(ipv4(b"data", source=source), source=MAC), MAC) is None
    assert source_address(ethernet(ipv4(b"data"), source=OTHER), MAC) is None


class Flood:
    """A socket by which a guest's questions never end; after two seconds it fails."""

    def __init__(self) -> None:
        self._pipe, self._end = os.pipe()
        os.write(self._end, b"x")
        self._until = time.monotonic() + 2

    def fileno(self) -> int:
        return self._pipe

    def recvfrom(self, length: int) -> tuple[bytes, tuple[object, ...]]:
        assert time.monotonic() < self._until, "nobody looked at the clock"
        asked = ethernet(ipv4(message(1, ports=(68, 67), operation=1)), source=MAC)
        return asked, ("lo", 0, 0, 0, b"")

    def close(self) -> None:
        os.close(self._pipe)
        os.close(self._end)


def test_a_guest_that_never_stops_asking_keeps_no_address_for_longer(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path)
    bindings = Bindings(directories)
    bindings.begin_learning("lo", "dhcp mark")
    bindings.save_addresses("lo", {"10.0.0.2": time.time() + 0.2})
    learner = Learner(directories, "lo", "dhcp mark")
    told: list[Mapping[str, float]] = []

    class Driver:
        def learned(self, name: str, mark: str, addresses: Mapping[str, float], **how: bool) -> bool:
            told.append(addresses)
            return False

    learner._driver = Driver()  # type: ignore[assignment]
    flood = Flood()
    learner.run(FilterBinding(port_device="lo", mac="52:54:00:11:22:33"), flood)  # type: ignore[arg-type]
    flood.close()
    assert told == [{}]


@given(st.binary(max_size=80), st.booleans(), st.binary(max_size=320))
def test_no_frame_is_too_strange(frame: bytes, to_guest: bool, rest: bytes) -> None:
    for strange in (frame, ethernet(frame), ethernet(ipv4(frame)), ethernet(ipv4(message(ACK)[:248] + rest))):
        lease(strange, MAC, to_guest=to_guest)
        source_address(strange, MAC)
