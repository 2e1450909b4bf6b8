"""Commands about objects: secrets, TLS credentials, authorizations, throttle groups, iothreads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block import objects
from hostel.block.filters.throttle import ThrottleDriver
from hostel.block.rewiring import unfiltered
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.object_types import OF_DAEMONS
from hostel.cli.qemu.objects import make_object
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import generic, needed

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon


def _add(daemon: Daemon, given: Mapping[str, Any]) -> None:
    try:
        make_object(given, OF_DAEMONS)
    except Failure as error:
        raise generic(error.message) from None


def _delete(daemon: Daemon, given: Mapping[str, Any]) -> None:
    found = objects.find(given["id"])
    if found is None:
        raise generic(f"object '{given['id']}' not found")
    drivers = [unfiltered(node).driver for node in daemon.nodes.values()]
    if any(isinstance(driver, ThrottleDriver) and driver.group is found for driver in drivers):
        raise generic(f"object '{given['id']}' is in use, can not be deleted")
    objects.remove(given["id"])


COMMANDS: Final = (Command("object-del", _delete, (needed("id"),)), Command("object-add", _add, None))
