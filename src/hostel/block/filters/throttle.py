"""Filter ``throttle``: requests wait so that a group of disks stays below limits of bytes and requests a second.

A limit is a leaky bucket: each request pours its bytes, or 1, into it; it leaks at the limit's rate, and who finds it
too full waits until it is not. ``-max`` and ``-max-length`` allow bursts, as QEMU's do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from hostel.block import objects
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options

_DIRECTIONS: Final = ("total", "read", "write")
_UNITS: Final = ("bps", "iops")
LIMITS: Final = tuple(f"{unit}-{direction}" for unit in _UNITS for direction in _DIRECTIONS)
_MAX: Final = 10**15


class Limit(NamedTuple):
    """One limit.

    Attributes:
        rate: bytes or requests a second, in the long run.
        burst: bytes or requests a second for as long as ``length`` says; 0 for no bursts.
        length: seconds.
    """

    rate: float
    burst: float = 0.0
    length: int = 1


class _Bucket:
    """What was poured and has not leaked yet."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._level = 0.0
        self._burst_level = 0.0
        self._last = 0.0

    def pour(self, amount: float, now: float) -> float:
        """Pour, and return the seconds that the pourer has to wait first."""
        limit = self.limit
        passed = max(0.0, now - self._last)
        self._last = max(now, self._last)
        self._level = max(0.0, self._level - passed * limit.rate)
        self._burst_level = max(0.0, self._burst_level - passed * limit.burst)
        # Without bursts a tenth of a second's worth may come at once.
        room = limit.burst * limit.length if limit.burst else limit.rate / 10
        wait = max(0.0, (self._level - room) / limit.rate)
        if limit.burst and limit.length > 1:
            wait = max(wait, (self._burst_level - limit.burst / 10) / limit.burst)
        self._level += amount
        self._burst_level += amount
        return wait


class ThrottleGroup:
    """The limits that several nodes share: an object of type ``throttle-group``."""

    def __init__(self, limits: Mapping[str, Limit], iops_size: int = 0) -> None:
        self._buckets = {name: _Bucket(limit) for name, limit in limits.items()}
        self._iops_size = iops_size
        self._lock = threading.Lock()

    @classmethod
    def from_properties(cls, given: Mapping[str, str | int]) -> Self:
        """Read the object's properties: ``limits.iops-total``, or ``x-iops-total`` as older scripts say.

        Raises:
            OptionError: one is unknown, no number, or contradicts another.
        """
        values: dict[str, int] = {}
        for name, value in given.items():
            key = name.removeprefix("limits.").removeprefix("x-")
            if key == name or key.removesuffix("-length").removesuffix("-max") not in (*LIMITS, "iops-size"):
                raise OptionError(f"Parameter '{name}' is unexpected")
            text = str(value)
            if not text.isascii() or not text.isdigit() or int(text) > _MAX:
                raise OptionError(f"Parameter '{name}' expects a number from 0 to {_MAX}")
            values[key] = int(text)
        for unit in _UNITS:
            if values.get(f"{unit}-total") and (values.get(f"{unit}-read") or values.get(f"{unit}-write")):
                raise OptionError("bps/iops/max total values and read/write values cannot be used at the same time")
        limits: dict[str, Limit] = {}
        for name in LIMITS:
            rate, burst = values.get(name, 0), values.get(f"{name}-max", 0)
            length = values.get(f"{name}-max-length", 1)
            if not length or (length > 1 and not burst):
                raise OptionError("burst length set without burst rate" if length else "the burst length cannot be 0")
            if burst and not rate:
                raise OptionError("bps_max/iops_max require corresponding bps/iops values")
            if burst and burst < rate:
                raise OptionError("bps_max/iops_max cannot be lower than bps/iops")
            if rate:
                limits[name] = Limit(rate, burst, length)
        return cls(limits, values.get("iops-size", 0))

    def wait(self, length: int, *, is_write: bool) -> None:
        """Wait until a request of ``length`` bytes may start."""
        direction = "write" if is_write else "read"
        requests = max(1.0, length / self._iops_size) if self._iops_size else 1.0
        with self._lock:
            now = time.monotonic()
            seconds = 0.0
            for unit, amount in (("bps", float(length)), ("iops", requests)):
                for name in (f"{unit}-total", f"{unit}-{direction}"):
                    if (bucket := self._buckets.get(name)) is not None:
                        seconds = max(seconds, bucket.pour(amount, now))
        if seconds > 0:
            time.sleep(seconds)


class ThrottleDriver(FilterDriver):
    """Makes requests wait as its group says; flushes never wait."""

    name = "throttle"
    options: Final = Options(  # type: ignore[misc]
        Option("throttle-group", Kind.STRING, "Name of the throttle group"),
    )

    def __init__(self, child: BlockNode, group: ThrottleGroup) -> None:
        super().__init__({"file": child})
        self._group = group

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on a node.

        Raises:
            OptionError: no group is named, or there is none of that name.
        """
        values = settle(cls.name, cls.options, mode.options)
        if "throttle-group" not in values:
            raise OptionError("Please specify a throttle group")
        name = str(values["throttle-group"])
        group = objects.find(name)
        if not isinstance(group, ThrottleGroup):
            raise OptionError(f"Throttle group '{name}' does not exist")
        return cls(children["file"], group)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Wait, then read."""
        self._group.wait(len(buf), is_write=False)
        self.child.pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Wait, then write."""
        self._group.wait(len(data), is_write=True)
        self.child.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Wait, then zero."""
        self._group.wait(length, is_write=True)
        self.child.write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Wait, then discard."""
        self._group.wait(length, is_write=True)
        self.child.discard(offset, length)
