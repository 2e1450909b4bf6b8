"""Drivers that tell of what they did: pools and networks publish their lifecycle without knowing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from hostel.drivers.events import Event, EventBus, Subject
from hostel.drivers.proxy import Proxy

Driver = TypeVar("Driver")

# What a call that succeeded says: the event's kind and libvirt's number, None where the kind has none.
_POOLS: Final[Mapping[str, tuple[str, int | None]]] = {
    "storage_pool_define_xml": ("lifecycle", 0),
    "storage_pool_undefine": ("lifecycle", 1),
    "storage_pool_create_xml": ("lifecycle", 2),
    "storage_pool_create": ("lifecycle", 2),
    "storage_pool_destroy": ("lifecycle", 3),
    "storage_pool_build": ("lifecycle", 4),
    "storage_pool_delete": ("lifecycle", 5),
    "storage_pool_refresh": ("refresh", None),
    "storage_vol_create_xml": ("refresh", None),
    "storage_vol_create_xml_from": ("refresh", None),
    "storage_vol_delete": ("refresh", None),
}
_NETWORKS: Final[Mapping[str, tuple[str, int | None]]] = {
    "network_define_xml": ("lifecycle", 0),
    "network_undefine": ("lifecycle", 1),
    "network_create_xml": ("lifecycle", 2),
    "network_create": ("lifecycle", 2),
    "network_destroy": ("lifecycle", 3),
}
_TABLES: Final = {Subject.POOL: _POOLS, Subject.NETWORK: _NETWORKS}


def announcing(driver: Driver, subject: Subject, bus: EventBus) -> Driver:
    """Wrap a driver of pools or networks so that what its calls did is published."""
    return cast("Driver", _Announcing(driver, subject, bus))


class _Announcing(Proxy):
    def __init__(self, driver: object, subject: Subject, bus: EventBus) -> None:
        self._driver = driver
        self._subject = subject
        self._table = _TABLES[subject]
        self._bus = bus

    def _behind(self) -> object:
        return self._driver

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        said = self._table.get(name)
        return method if said is None else self._telling(method, *said)

    def _telling(self, method: Callable[..., Any], kind: str, number: int | None) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            # Calls that make something return its reference, the others are given it.
            subject = result if result is not None else arguments[0]
            if hasattr(subject, "pool"):  # a volume: its pool's content changed
                subject = self._pool_of(subject)
            detail = {} if number is None else {"event": number, "detail": 0}
            self._bus.publish(Event(self._subject, kind, subject.name, subject.uuid, detail=detail))
            return result

        return call

    def _pool_of(self, volume: Any) -> Any:
        driver: Any = self._driver
        return driver.storage_pool_lookup_by_name(volume.pool)
