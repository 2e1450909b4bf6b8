"""Calls that not every driver has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode

Calls = TypeVar("Calls")


def offered(driver: object, calls: Callable[..., Calls], api: str) -> Calls:
    """The driver as one that has a group of calls.

    Args:
        driver: a driver, maybe wrapped.
        calls: the protocol that names them.
        api: libvirt's name of the function that is wanted.

    Raises:
        VirtError: ``NO_SUPPORT``.
    """
    if isinstance(driver, cast("type[Any]", calls)):
        return cast("Calls", driver)
    raise fault(ErrorCode.NO_SUPPORT, api)
