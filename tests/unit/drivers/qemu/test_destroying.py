"""The end of a machine whose lock another call has; a process of any kind stands for QEMU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers import procstat
from hostel.drivers.base import DestroyFlag, ShutoffReason
from hostel.drivers.events import Lifecycle
from hostel.drivers.qemu import process
from hostel.drivers.qemu.destroying import end_held
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.status import Status, read_ending
from hostel.drivers.qemu.watch import translate
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from support.process import started

UNWILLING = "trap '' TERM; touch \"$0\"; while :; do sleep 0.1; done"
NAME, UUID = "guest", "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(Directories.under(tmp_path))


@contextlib.contextmanager
def running(machines: Machines, script: str) -> Iterator[Status]:
    """A machine whose QEMU is a shell's script, which says when it has begun."""
    run = machines.run_directory(NAME)
    with started(["sh", "-c", script, str(run / "begun")]) as program:
        domain = Domain.parse(f"<domain type='qemu'><name>{NAME}</name><uuid>{UUID}</uuid></domain>")
        status = Status(domain, 1, program.pid, procstat.start_time(program.pid) or 0, str(run), 0)
        machines.statuses.write(NAME, status.format())
        await_that((run / "begun").exists)
        yield status


def await_that(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_hears_of_its_end_while_it_is_put_away_does_not_tell_it_again(machines: Machines) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    told_by_others = []
    machines.publish = lambda domain, kind, **detail: told.append((kind, detail))  # type: ignore[method-assign]

    def look(domain: Domain) -> None:
        now = Status.parse(machines.statuses.read(NAME) or "")
        told_by_others.append(translate("SHUTDOWN", {"guest": False}, now))

    machines.release = look
    with running(machines, 'touch "$0"; exec sleep 60'):
        assert end_held(machines, NAME, DestroyFlag.DEFAULT)
    assert [detail["event"] for _, detail in told] == [Lifecycle.SHUTDOWN, Lifecycle.STOPPED]
    assert told_by_others == [[]]


def test_one_that_does_not_end_by_itself_was_destroyed_though_who_asked_it_to_end_has_given_up(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 1.0)
    with ThreadPoolExecutor() as threads, running(machines, UNWILLING) as status:
        with machines.locked(NAME):
            asked = threads.submit(end_held, machines, NAME, DestroyFlag.GRACEFUL)
            await_that(status.destruction.exists)
            time.sleep(0.5)
            killed = threads.submit(end_held, machines, NAME, DestroyFlag.DEFAULT)
            with pytest.raises(VirtError, match=r"QEMU, process \d+, does not end"):
                asked.result(20)
            await_that(lambda: machines.seen(NAME) is None)
        assert killed.result(20)
    assert read_ending(machines.endings, NAME).reason is ShutoffReason.DESTROYED
