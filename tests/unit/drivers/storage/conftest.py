"""A session's storage driver with one pool that is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from support.storage_tools import Tools


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path / "home")


@pytest.fixture
def driver(directories: Directories) -> SessionStorageDriver:
    return SessionStorageDriver(directories)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of the started pool."""
    return tmp_path / "volumes"


@pytest.fixture
def started(driver: SessionStorageDriver, place: Path) -> PoolRef:
    xml = f"<pool type='dir'><name>started</name><target><path>{place}</path></target></pool>"
    return driver.storage_pool_create_xml(xml, build=True)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Tools that record what they are asked."""
    return Tools(tmp_path / "tools", monkeypatch)
