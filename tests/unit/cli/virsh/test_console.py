"""The console: a terminal and a guest's port, byte for byte, until the escape character."""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import termios
import threading
import time
import tty
from collections.abc import Iterator

import pytest

from hostel.cli.output import Output
from hostel.cli.virsh import console
from hostel.cli.virsh.main import open_uri
from hostel.cli.virsh.session import CommandError, Session


class Port:
    """A guest's port, which is a socket; :attr:`guest` is the guest's end of it."""

    def __init__(self) -> None:
        self._socket, self.guest = socket.socketpair()
        self.guest.settimeout(5)
        self.closed = False

    def read(self, length: int, timeout: float) -> bytes | None:
        ready, _, _ = select.select([self._socket], [], [], timeout)
        return self._socket.recv(length) if ready else None

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self.closed = True
        self._socket.close()


class Relay:
    """The console running between a port and a pseudo terminal whose other end is ours."""

    def __init__(self, escape: bytes = b"\x1d") -> None:
        self.port = Port()
        self.keyboard, self.terminal = os.openpty()
        tty.setraw(self.terminal)
        self.outcome: list[BaseException | None] = []
        self._thread = threading.Thread(target=self._run, args=(escape,))
        self._thread.start()

    def _run(self, escape: bytes) -> None:
        try:
            console._relay(self.port, self.terminal, self.terminal, escape)
            self.outcome.append(None)
        except BaseException as error:
            self.outcome.append(error)

    def type(self, data: bytes) -> None:
        os.write(self.keyboard, data)

    def screen(self, length: int) -> bytes:
        found = b""
        deadline = time.monotonic() + 60
        while len(found) < length and time.monotonic() < deadline:
            if select.select([self.keyboard], [], [], 0.1)[0]:
                found += os.read(self.keyboard, length - len(found))
        return found

    def result(self) -> BaseException | None:
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()
        return self.outcome[0]

    def close(self) -> None:
        self.port.guest.close()
        self._thread.join(timeout=5)
        self.port.close()
        os.close(self.keyboard)
        os.close(self.terminal)


@pytest.fixture
def relay() -> Iterator[Relay]:
    found = Relay()
    yield found
    found.close()


def test_what_is_typed_reaches_the_guest_and_what_it_says_the_screen(relay: Relay) -> None:
    relay.type(b"ls\r\x03\x00\xff")
    assert relay.port.guest.recv(100) == b"ls\r\x03\x00\xff"
    relay.port.guest.sendall(b"file\r\n\x1b[0m\xff")
    assert relay.screen(11) == b"file\r\n\x1b[0m\xff"


def test_the_escape_character_ends_it_and_does_not_reach_the_guest(relay: Relay) -> None:
    relay.type(b"\x1d")
    assert relay.result() is None
    relay.port.guest.settimeout(0.05)
    with pytest.raises(TimeoutError):
        relay.port.guest.recv(1)


def test_an_escape_character_in_the_middle_of_what_is_pasted_goes_through(relay: Relay) -> None:
    relay.type(b"a\x1db")
    assert relay.port.guest.recv(100) == b"a\x1db"


def test_the_end_of_the_guest_ends_it(relay: Relay) -> None:
    relay.port.guest.sendall(b"bye")
    relay.port.guest.close()
    assert relay.screen(3) == b"bye"
    assert relay.result() is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("^]", True), ("^a", True), ("x", True), ("^", False), ("ab", False), ("^1", False), ("", False), ("^é", False)],
)
def test_escape_sequences_are_one_character_or_a_control_character(text: str, is_one: bool) -> None:
    assert console.is_escape(text) is is_one


@pytest.mark.parametrize(("text", "byte"), [("^]", b"\x1d"), ("^a", b"\x01"), ("^_", b"\x1f"), ("x", b"x")])
def test_the_escape_sequence_is_one_byte(text: str, byte: bytes) -> None:
    assert console._escape_byte(text) == byte


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    ours, terminal = os.openpty()
    try:
        before = termios.tcgetattr(terminal)
        handler = signal.getsignal(number)
        with pytest.raises(CommandError, match=number.name), console._raw(terminal):
            assert termios.tcgetattr(terminal) != before
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert termios.tcgetattr(terminal) == before
        assert signal.getsignal(number) == handler
    finally:
        os.close(ours)
        os.close(terminal)


def test_without_a_terminal_or_a_running_domain_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    session = Session(Output(io.StringIO(), io.StringIO()), "test:///default", open_uri)
    try:
        domain = session.hypervisor.domain_lookup_by_name("test")
        with pytest.raises(CommandError, match="Cannot run interactive console without a controlling TTY"):
            console.run(session, domain)
        session.hypervisor.domain_destroy(domain)
        with pytest.raises(CommandError, match="The domain is not running"):
            console.run(session, domain)
    finally:
        session.close()
