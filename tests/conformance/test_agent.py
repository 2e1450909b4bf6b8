"""Our side of the guest agent's channel against a real agent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base.address import GuestAddress
from hostel.drivers.base.network import AddressType
from hostel.drivers.qemu.addresses import from_agent
from hostel.drivers.qemu.agent import Agent
from hostel.errors import ErrorCode, VirtError
from support import agent as agents

pytestmark = pytest.mark.requires_tool("qemu-ga")


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Path]:
    with agents.real(tmp_path) as path:
        yield path


def test_commands_are_answered_and_refusals_are_told(channel: Path) -> None:
    with found_again(channel) as agent:
        assert agent.execute("guest-ping") == {}
        assert agent.execute("guest-info")["version"]
        with pytest.raises(VirtError, match="no-such-command") as caught:
            agent.execute("no-such-command")
        assert caught.value.code == ErrorCode.INTERNAL_ERROR
        assert agent.ask({"execute": "guest-ping"}) == {"return": {}}


def test_addresses_are_told_as_the_host_has_them(channel: Path) -> None:
    with found_again(channel) as agent:
        found = from_agent(agent.execute("guest-network-get-interfaces"))
    (loopback,) = [one for one in found if one.name == "lo"]
    assert GuestAddress(AddressType.IPV4, "127.0.0.1", 8) in loopback.addresses


def test_what_another_conversation_left_is_skipped(channel: Path) -> None:
    for rest in (b'{"execute": "guest-info"}\n', b'{"execute": "guest-', b"\x00garbage\n"):
        with found_again(channel) as other:
            other._send(rest)
            if rest.endswith(b"\n"):
                # qemu-ga itself ends where it is left with an answer that nobody reads.
                other._receive(time.monotonic() + 10)
        with found_again(channel) as agent:
            assert agent.execute("guest-ping") == {}


def found_again(channel: Path) -> Agent:
    """The agent, which listens again a moment after a conversation has ended; QEMU's channel always does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return Agent(channel)
        except VirtError as error:
            # Who comes while it still closes its door is let in by nobody, and told so.
            is_between = any(word in str(error) for word in ("refused", "reset", "closed"))
            if not is_between or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def test_channel_without_an_agent_is_unresponsive(tmp_path: Path) -> None:
    with pytest.raises(VirtError) as caught:
        Agent(tmp_path / "none")
    assert caught.value.code == ErrorCode.AGENT_UNRESPONSIVE
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "silent"))
        server.listen()
        with pytest.raises(VirtError, match="does not answer in time"):
            Agent(tmp_path / "silent")
