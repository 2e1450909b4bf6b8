"""A session with real QEMU, which a test's own file may furnish otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.plug import outward
from hostel.objects import Connection
from support.linux import Linux
from support.session import session


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with session(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Linux:
    return Linux(tmp_path_factory.mktemp("linux"))


@pytest.fixture
def driver(connection: Connection) -> QemuDriver:
    assert isinstance(connection.hypervisor, QemuDriver)
    return connection.hypervisor


@pytest.fixture
def deaf_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what a guest without drivers never says when it is asked to let go of a device."""
    monkeypatch.setattr(outward, "_GUEST_SECONDS", 0.2)
