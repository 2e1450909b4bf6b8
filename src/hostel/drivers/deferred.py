"""Drivers that are made when they are first asked: listing machines should not wait for what pools need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

Driver = TypeVar("Driver")


def deferred(make: Callable[[], Driver]) -> Driver:
    """A driver that ``make`` makes at the first call, once, whichever thread calls."""
    return cast("Driver", _Deferred(make))


class _Deferred:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._driver: object | None = None

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._driver is None:
                self._driver = self._make()
        return getattr(self._driver, name)

    def close(self) -> None:
        """Release what the driver holds, if there is one."""
        driver: Any = self._driver
        if driver is not None:
            driver.close()
