"""The QMP client against a peer that is played here."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.monitor import Monitor, connect
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import QmpError, VirtError
from hostel.model.domain.domain import Domain

GREETING: dict[str, object] = {"QMP": {"version": {}, "capabilities": []}}
Peer = Callable[[Callable[[], dict[str, object]], Callable[[object], None]], None]


@contextlib.contextmanager
def qemu(path: Path, play: Peer) -> Iterator[None]:
    """Serve one client: ``play`` gets functions to receive a request and to send an object or bytes."""

    def serve() -> None:
        with contextlib.suppress(OSError, ValueError), server, server.accept()[0] as peer, peer.makefile("rb") as lines:

            def send(value: object) -> None:
                peer.sendall(value if isinstance(value, bytes) else json.dumps(value).encode() + b"\r\n")

            play(lambda: json.loads(lines.readline()), send)

    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(10)
        server.bind(str(path))
        server.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        yield
    thread.join(10)


@contextlib.contextmanager
def impatient(path: Path) -> Iterator[Monitor]:
    """A client that has all the time it needs to connect, and little for what it asks then."""
    with connect(path) as monitor:
        monitor.timeout = 0.2
        yield monitor


def greet(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
    send(GREETING)
    request = receive()
    assert request["execute"] == "qmp_capabilities"
    send({"return": {}, "id": request["id"]})


def test_answer_is_returned_and_events_before_it_are_skipped(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        first = receive()
        assert first == {"execute": "query", "arguments": {"id": "x"}, "id": first["id"]}
        send({"event": "STOP", "timestamp": {}})
        whole = json.dumps({"return": {"status": "é" * 100_000}, "id": first["id"]}).encode() + b"\n"
        send(whole[:70_000])
        time.sleep(0.05)
        send(whole[70_000:] + b'{"event": "RESUME"}\n')
        second = receive()
        assert second["execute"] == "next"
        assert second["id"] != first["id"]
        send({"return": 2, "id": second["id"]})

    with qemu(tmp_path / "m", play), connect(tmp_path / "m") as monitor:
        assert monitor.execute("query", id="x") == {"status": "é" * 100_000}
        assert monitor.execute("next") == 2


def test_what_was_meant_for_the_client_before_is_skipped(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        send({"event": "JOB_STATUS_CHANGE", "data": {}})
        stale: list[dict[str, object]] = [
            {"return": "stale", "id": "0-1"},
            {"error": {"class": "GenericError", "desc": "stale"}, "id": "0-2"},
        ]
        send(stale[0])
        send(GREETING)
        for wanted, answer in (("qmp_capabilities", {}), ("query", "fresh")):
            request = receive()
            assert request["execute"] == wanted
            for late in stale:  # one that takes long is answered to whoever is there then
                send(late)
            send({"return": answer, "id": request["id"]})

    with qemu(tmp_path / "m", play), connect(tmp_path / "m") as monitor:
        assert monitor.execute("query") == "fresh"
        assert monitor.wait(0) is None


def test_refusal_has_qemus_class_and_words(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        send({"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": receive()["id"]})

    with qemu(tmp_path / "m", play), connect(tmp_path / "m") as monitor:
        with pytest.raises(QmpError, match="Device 'x' not found") as caught:
            monitor.execute("eject")
        assert caught.value.error_class == "DeviceNotFound"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "hung up"),
        (b'{"QMP"', "hung up"),
        (b"SSH-2.0\r\n", "does not speak JSON"),
        (b"[1]\n", "something else than an object"),
        (b'{"hello": 1}\n', "is not the socket of QEMU's monitor"),
    ],
)
def test_who_is_not_qemu_is_disconnected(tmp_path: Path, said: bytes, reason: str) -> None:
    with qemu(tmp_path / "m", lambda receive, send: send(said)):
        with pytest.raises(QmpError, match=reason) as caught:
            Monitor(tmp_path / "m")
        assert caught.value.error_class == "Disconnected"


def test_silence_is_a_timeout_even_where_events_keep_coming(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        while True:
            send({"event": "NOISE"})
            time.sleep(0.02)

    with qemu(tmp_path / "m", play), impatient(tmp_path / "m") as monitor:
        with pytest.raises(QmpError, match="did not answer within 0 seconds") as caught:
            monitor.execute("query-status")
        assert caught.value.error_class == "Timeout"
        assert monitor.silence == caught.value.desc


def test_nothing_is_asked_once_an_answer_was_not_waited_for(tmp_path: Path) -> None:
    asked: list[object] = []

    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        while True:
            asked.append(receive()["execute"])

    with qemu(tmp_path / "m", play), impatient(tmp_path / "m") as monitor:
        for command in ("query-status", "cont"):
            with pytest.raises(QmpError, match="did not answer within 0 seconds"):
                monitor.execute(command)
    assert asked == ["query-status"]


def test_a_refusal_leaves_nothing_unsure(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        send({"error": {"class": "GenericError", "desc": "no"}, "id": receive()["id"]})
        send({"return": 1, "id": receive()["id"]})

    with qemu(tmp_path / "m", play), connect(tmp_path / "m") as monitor:
        with pytest.raises(QmpError, match="no"):
            monitor.execute("cont")
        assert not monitor.silence
        assert monitor.execute("query") == 1


def test_socket_that_nobody_listens_on_is_disconnected_after_a_moment(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="No such file"):
        Monitor(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "m"))
        with pytest.raises(QmpError, match="refused") as caught:
            Monitor(tmp_path / "m")
    assert caught.value.error_class == "Disconnected"


def test_qemu_that_listens_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "m"))
        # It listens once it has refused who came first.
        monkeypatch.setattr("hostel.drivers.qemu.monitor.Pause", lambda: lambda: server.listen(1))
        with pytest.raises(QmpError, match="did not answer within"):
            Monitor(tmp_path / "m", timeout=0.6)


def test_who_looks_is_patient_with_a_qemu_that_has_answered(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        greet(receive, send)
        for answer in ("first", "second"):
            request = receive()
            time.sleep(0.5 if answer == "second" else 0)
            send({"return": answer, "id": request["id"]})

    domain = Domain.parse("<domain type='qemu'><name>guest</name></domain>")
    machine = Running(Machines(Directories.under(tmp_path)), Status(domain, 1, 1, 1, str(tmp_path), 0), timeout=0.3)
    with qemu(tmp_path / "monitor", play), contextlib.closing(machine):
        assert machine.ask("query-status") == "first"
        machine.patient()
        assert machine.ask("query-jobs") == "second"


def test_who_looks_is_not_patient_with_a_qemu_that_never_answers(tmp_path: Path) -> None:
    def play(receive: Callable[[], dict[str, object]], send: Callable[[object], None]) -> None:
        receive()

    domain = Domain.parse("<domain type='qemu'><name>guest</name></domain>")
    machine = Running(Machines(Directories.under(tmp_path)), Status(domain, 1, 1, 1, str(tmp_path), 0), timeout=0.3)
    with qemu(tmp_path / "monitor", play), contextlib.closing(machine):
        machine.patient()
        with pytest.raises(VirtError, match="did not answer within 0 seconds"):
            machine.ask("query-jobs")
