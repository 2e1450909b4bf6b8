"""Drivers that are made when they are first asked: listing machines should not wait for what pools need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from hostel.drivers.proxy import Proxy

Driver = TypeVar("Driver")


def deferred(make: Callable[[], Driver]) -> Driver:
    """A driver that ``make`` makes at the first call, once, whichever thread calls."""
    return cast("Driver", _Deferred(make))


class _Deferred(Proxy):
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._driver: object | None = None

    def _behind(self) -> object:
        with self._lock:
            if self._driver is None:
                self._driver = self._make()
            return self._driver

    def close(self) -> None:
        """Release what the driver holds, if there is one."""
        driver: Any = self._driver
        if driver is not None:
            driver.close()
