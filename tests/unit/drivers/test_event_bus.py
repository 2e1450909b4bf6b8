"""Events between processes, in one that has many descriptors open, and that stops to listen at any moment."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.events import Event, EventBus, Subject
from hostel.drivers.nodedev import watch
from hostel.drivers.nodedev.watch import DeviceWatch

EVENT = Event(Subject.DOMAIN, "lifecycle", "guest", detail={"event": 1})


@pytest.fixture
def many() -> Iterator[None]:
    """More descriptors than select() can wait for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    with open(os.devnull, "rb") as file:
        copies = [os.dup(file.fileno()) for _ in range(1100)]
        yield
        for copy in copies:
            os.close(copy)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_events_are_told_in_a_process_with_many_descriptors(tmp_path: Path, many: None) -> None:
    bus = EventBus(tmp_path)
    with bus.listen() as listener:
        bus.publish(EVENT)
        assert listener.get(20) == EVENT


def test_devices_are_watched_in_a_process_with_many_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: None
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    monkeypatch.setattr(watch, "_open_news", lambda: ours)
    looked: list[int] = []
    again = threading.Event()

    def look() -> dict[str, watch.Seen]:
        looked.append(1)
        if len(looked) > 1:
            again.set()
        return {}

    watching = DeviceWatch(look, lambda event: None, tmp_path)
    watching.start()
    theirs.send(b"x")
    assert again.wait(20)
    watching.stop()
    assert ours.fileno() == -1
    theirs.close()


def test_who_listens_may_stop_when_an_event_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that brings it closes what it waits for, and not before it has ended."""
    bus = EventBus(tmp_path)
    listener = bus.listen()
    failures: list[object] = []
    stopped = threading.Event()
    inbox = bus._sockets[id(listener)]

    def put(event: Event | None) -> None:
        if event is not None:
            listener.close()
            stopped.set()

    monkeypatch.setattr(threading, "excepthook", failures.append)
    monkeypatch.setattr(listener, "put", put)
    bus.publish(EVENT)
    assert stopped.wait(20)
    inbox._thread.join(20)
    assert failures == []
    assert inbox._socket.fileno() == -1
    assert inbox._waker.fileno() == -1
