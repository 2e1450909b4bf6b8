"""Ports of external switches: what is sent, and what is made of a peer's answers, in the kernel's or lldpad's place."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.codec import netlink
from hostel.codec.netlink import Message, attribute, attributes, nest
from hostel.drivers.link import switchport
from hostel.drivers.link.switchport import Guest, Wish
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.port import VirtualPortParameters
from support import netns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="ports of switches are root's to ask for")

MAC, MACHINE, HOST = "52:54:00:00:00:0a", uuid.UUID(int=10), uuid.UUID(int=11)
GUEST = Guest(MAC, "fast", MACHINE, HOST)
SUCCESS, WAITS, INVALID = 0x100, 0x101, 0x102
QBG = VirtualPortParameters(managerid=11, typeid=0x123456, typeidversion=2, instanceid=str(MACHINE))


class Switch:
    """Who answers: acknowledges each request, and then says of the port what it was told to say, the last for good."""

    def __init__(self, *states: int | None, refuses: int = 0) -> None:
        self._states = list(states)
        self._refuses = refuses
        self.asked: list[dict[int, bytes]] = []
        self._port: dict[int, bytes] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(60)
        self.port = int(self._socket.getsockname()[0])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, (sender, _) = self._socket.recvfrom(65536)
            if not data:
                return
            message = netlink.unpack(data)
            if message.kind == 0:  # from close()
                return
            answer = self._acknowledge(message) if message.kind == 19 else self._show(message)
            self._socket.sendto(netlink.pack(answer, flags=0, sender=self.port), (sender, 0))

    def _acknowledge(self, message: Message) -> Message:
        found = dict(attributes(message.body[16:]))
        self.asked.append(found)
        self._port = dict(attributes(dict(attributes(found[24]))[1]))
        return Message(netlink.ERROR, message.sequence, struct.pack("=i", -self._refuses) + bytes(16))

    def _show(self, message: Message) -> Message:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        told = attribute(1, self._port.get(1, struct.pack("=i", -1))) + attribute(4, self._port.get(4, bytes(16)))
        if state is not None:
            told += attribute(7, struct.pack("=H", state))
        other = nest(1, attribute(1, struct.pack("=i", 90)), attribute(7, struct.pack("=H", INVALID)))
        return Message(16, message.sequence, bytes(16) + nest(24, other, nest(1, told)))

    def requests(self) -> list[dict[int, bytes]]:
        """The ports that were asked for."""
        return [dict(attributes(dict(attributes(found[24]))[1])) for found in self.asked]

    def close(self) -> None:
        """Hang up."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as end:
            end.sendto(netlink.pack(Message(0, 0, b""), flags=0, sender=0), (self.port, 0))
        self._thread.join(60)
        self._socket.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    with netns.alone():
        subprocess.run(["ip", "link", "add", "card", "type", "bridge"], check=True)
        made = ["ip", "link", "add", "link", "card", "name", "tap", "type", "macvtap", "mode", "vepa"]
        subprocess.run(made, check=True)
        yield


def test_a_profile_is_asked_for_and_given_back(alone: None) -> None:
    switch = Switch(WAITS, SUCCESS)
    try:
        switchport.associate("card", 3, GUEST, peer=switch.port)
        switchport.disassociate("card", 3, switch.port)
    finally:
        switch.close()
    function = struct.pack("=i", 3)
    assert switch.requests() == [
        {1: function, 2: b"fast\0", 4: MACHINE.bytes, 5: HOST.bytes, 6: bytes([Wish.ASSOCIATE])},
        {1: function, 6: bytes([Wish.DISASSOCIATE])},
    ]
    ((kind, info),) = attributes(switch.asked[0][22])
    assert kind == 1
    assert dict(attributes(info)) == {1: function + bytes.fromhex("52540000000a") + bytes(26)}
    assert 22 not in switch.asked[1]


def test_lldpad_is_told_of_the_lowest_interface(alone: None, tmp_path: Path) -> None:
    switch, lldpad = Switch(None, 0), tmp_path / "lldpad.pid"
    lldpad.write_text(f"{switch.port}\n")
    try:
        switchport.bridged("tap", MAC, QBG, Wish.ASSOCIATE, lldpad)
    finally:
        switch.close()
    (found,) = switch.asked
    assert found[3] == b"card\0"
    ((_, info),) = attributes(found[22])
    none = struct.pack("=i", -1)
    assert dict(attributes(info)) == {
        1: none + bytes.fromhex("52540000000a") + bytes(26),
        2: none + struct.pack("=II", 0, 0),
    }
    assert switch.requests() == [{3: b"\x0b\x56\x34\x12\x02\0\0\0", 4: MACHINE.bytes, 6: bytes([Wish.ASSOCIATE])}]


@pytest.mark.parametrize(
    ("switch", "code", "words"),
    [((INVALID,), ErrorCode.SYSTEM_ERROR, r"error 258 during port-profile setlink on interface card \(\d+\): Invalid"),
     ((None,), ErrorCode.INTERNAL_ERROR, "no IFLA_PORT_RESPONSE found in netlink message")],
)  # fmt: skip
def test_what_the_switch_refuses_is_said(
    alone: None, switch: tuple[int | None, ...], code: ErrorCode, words: str
) -> None:
    answering = Switch(*switch)
    try:
        with pytest.raises(VirtError, match=words) as caught:
            switchport.associate("card", 0, GUEST, peer=answering.port)
    finally:
        answering.close()
    assert (caught.value.code, caught.value.domain) == (code, ErrorDomain.NET)


def test_what_is_not_decided_in_time_is_given_back(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchport, "_SECONDS", 0.3)
    switch = Switch(WAITS)
    try:
        with pytest.raises(VirtError, match="port-profile setlink timed out"):
            switchport.associate("card", 0, GUEST, peer=switch.port)
    finally:
        switch.close()
    assert [found[6] for found in switch.requests()] == [bytes([Wish.ASSOCIATE]), bytes([Wish.DISASSOCIATE])]


def test_a_card_that_knows_no_profiles_refuses_them(alone: None) -> None:
    words = r"sending of PortProfileRequest failed\.: error during .* of ifindex \d+: "
    # The kernel takes a hardware address for none but virtual functions.
    for function, reason in ((-1, "Invalid argument"), (0, "Operation not supported")):
        with pytest.raises(VirtError, match=words + reason) as caught:
            switchport.associate("card", function, GUEST)
        assert (caught.value.code, caught.value.domain) == (ErrorCode.INTERNAL_ERROR, ErrorDomain.NET)
    with pytest.raises(VirtError, match="interface nothing: No such device"):
        switchport.disassociate("nothing", 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "Error opening file .*: lldpad, which speaks .*, does not run: No such file or directory"),
     ("", "error parsing pid of lldpad"), ("0\n", "error parsing pid of lldpad"), ("4194999\n", "Connection refused")],
)  # fmt: skip
def test_an_lldpad_that_is_not_there_is_missed(alone: None, tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "lldpad.pid"
    if text is not None:
        path.write_text(text)
    with pytest.raises(VirtError, match=rf"sending of PortProfileRequest failed\.: .*{words}") as caught:
        switchport.bridged("tap", MAC, QBG, Wish.ASSOCIATE, path)
    assert caught.value.code == ErrorCode.INTERNAL_ERROR


def test_a_cable_ends_where_it_is_seen_again(alone: None) -> None:
    subprocess.run(["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"], check=True)
    assert switchport._bottom("near")[1] == 0


def test_the_vlan_is_that_of_the_interface_of_one() -> None:
    of_one = {"ifname": "eth0.42", "link": "eth0", "linkinfo": {"info_kind": "vlan", "info_data": {"id": 42}}}
    assert switchport._vlan(of_one) == 42
    assert switchport._vlan({"ifname": "eth0", "linkinfo": {"info_kind": "bridge", "info_data": {"id": 1}}}) == 0
    assert switchport._vlan({"ifname": "eth0"}) == 0
