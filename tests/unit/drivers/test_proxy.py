"""What stands for a driver keeps the protocols that the driver keeps, by whichever way Python looks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hostel.drivers import base
from hostel.drivers.announcing import announcing
from hostel.drivers.deferred import deferred
from hostel.drivers.events import EventBus, Subject
from hostel.drivers.readonly import read_only
from hostel.drivers.registry import open_drivers
from hostel.drivers.remote.client import RpcClient
from hostel.drivers.remote.driver import RemoteDriver, RemoteHypervisor, RemoteNetwork, RemoteStorage
from hostel.drivers.store import Directories


def protocols() -> list[Any]:
    files = pkgutil.iter_modules(base.__path__, f"{base.__name__}.")
    items = [item for file in files for item in vars(importlib.import_module(file.name)).values()]
    found = {item for item in items if getattr(item, "_is_runtime_protocol", False)}
    return sorted(found, key=lambda protocol: protocol.__name__)


def names(protocol: Any) -> set[str]:
    return {name for one in protocol.__mro__ for name in vars(one) if not name.startswith("_")} - {"close"}


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Any]:
    drivers = open_drivers("test:///default", Directories.under(tmp_path))
    yield drivers.hypervisor
    drivers.close()


def _later(driver: Any) -> Any:
    return deferred(lambda: driver)


def _remote(kind: type[RemoteDriver]) -> Any:
    return kind(cast("RpcClient", None))  # which is asked nothing here


@pytest.mark.parametrize("protocol", protocols(), ids=lambda protocol: protocol.__name__)
def test_protocols_are_kept_by_the_class_as_by_the_attributes(protocol: Any, inside: Any, tmp_path: Path) -> None:
    drivers = [
        *(wrap(inside) for wrap in (read_only, _later)),
        announcing(read_only(inside), Subject.POOL, EventBus(tmp_path)),
        *(_remote(kind) for kind in (RemoteHypervisor, RemoteStorage, RemoteNetwork)),
        read_only(_remote(RemoteHypervisor)),
    ]
    for driver in drivers:
        kept = all(hasattr(driver, name) for name in names(protocol))
        assert issubclass(driver.__class__, protocol) == isinstance(driver, protocol) == kept


def test_a_daemon_is_asked_for_all_that_a_protocol_names() -> None:
    kept = [protocol.__name__ for protocol in protocols() if issubclass(RemoteHypervisor, protocol)]
    assert {"SnapshotDriver", "CheckpointDriver", "SaveDriver", "MigrationDriver"} <= set(kept)
    assert not hasattr(_remote(RemoteStorage), "domain_create")
