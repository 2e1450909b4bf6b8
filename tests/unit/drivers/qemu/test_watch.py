"""QEMU's events in libvirt's words."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.events import Lifecycle, Suspended
from hostel.drivers.qemu import watch
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.status import Status
from hostel.drivers.qemu.watch import WatchedBus, cause_of_stop, translate
from hostel.drivers.store import Directories
from hostel.model.domain.domain import Domain


def status(actions: str = "") -> Status:
    domain = Domain.parse(f"<domain type='qemu'><name>guest</name>{actions}</domain>")
    return Status(domain, 1, 1, 1, "/nowhere", 0)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("GUEST_CRASHLOADED", {"action": "run"}, [("lifecycle", {"event": 8, "detail": 1})]),
        (
            "MEMORY_DEVICE_SIZE_CHANGE",
            {"id": "virtiomem0", "size": 1 << 20, "qom-path": "/x"},
            [("memory-device-size-change", {"alias": "virtiomem0", "size": 1 << 20})],
        ),
        (
            "MEMORY_FAILURE",
            {"recipient": "guest", "action": "fatal", "flags": {"action-required": True, "recursive": True}},
            [("memory-failure", {"recipient": 1, "action": 2, "flags": 3})],
        ),
        ("SHUTDOWN", {"guest": True}, [("lifecycle", {"event": 6, "detail": 1})]),
        ("NIC_RX_FILTER_CHANGED", {"path": "/x"}, []),
    ],
)
def test_an_event_is_told_by_libvirts_numbers(name: str, data: dict[str, Any], told: list[Any]) -> None:
    assert translate(name, data, status()) == told


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"event": "BLOCK_IO_ERROR", "data": {"action": "stop"}}, Suspended.IOERROR),
        ({"event": "BLOCK_IO_ERROR", "data": {"action": "report"}}, Suspended.PAUSED),
        ({"event": "WATCHDOG", "data": {"action": "pause"}}, Suspended.WATCHDOG),
        ({"event": "WATCHDOG", "data": {"action": "reset"}}, Suspended.PAUSED),
        ({"event": "STOP"}, Suspended.PAUSED),
    ],
)
def test_a_guest_that_qemu_stops_is_told_with_the_reason(event: dict[str, Any], detail: Suspended) -> None:
    told = {"event": Lifecycle.SUSPENDED, "detail": detail}
    assert translate("STOP", {}, status(), cause_of_stop(event)) == [("lifecycle", told)]


def test_a_guest_that_powers_off_and_starts_again_is_not_told_to_shut_down() -> None:
    assert translate("SHUTDOWN", {"guest": True}, status("<on_poweroff>restart</on_poweroff>")) == []


@contextlib.contextmanager
def monitor(path: Path) -> Iterator[None]:
    """What QEMU's second monitor is for any number of clients: each is told once that the guest was reset."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=greet, args=(server.accept()[0],), daemon=True).start()

    def greet(client: socket.socket) -> None:
        with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
            client.sendall(b'{"QMP": {}}\r\n')
            while line := lines.readline():
                answer = {"return": {}, "id": json.loads(line)["id"]}
                client.sendall(json.dumps(answer).encode() + b'\r\n{"event": "RESET"}\r\n')

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(5)
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("moment", ["take_lock", "Monitor"])
def test_events_of_a_run_are_not_told_as_those_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    machines = Machines(Directories(*(tmp_path / name for name in ("config", "state", "cache", "data"))))
    run, step = tmp_path / "run", getattr(watch, moment)

    def write(number: int) -> None:
        run.mkdir()
        machines.statuses.write("guest", status()._replace(id=number, run=str(run)).format())

    def late(*arguments: Any, **named: Any) -> Any:
        """Another run begins before this step is made."""
        monkeypatch.setattr(watch, moment, step)
        run.rename(tmp_path / "old")
        write(2)
        serving.enter_context(monitor(run / "events"))
        return step(*arguments, **named)

    write(1)
    monkeypatch.setattr(watch, moment, late)
    with contextlib.ExitStack() as serving:
        listener = serving.enter_context(WatchedBus(machines.bus, machines, lambda ref, wait: True).listen())
        events = [listener.get(10) for _ in range(2)]
    assert [(event.kind, event.id) for event in events if event is not None] == [("RESET", 2), ("reboot", 2)]
