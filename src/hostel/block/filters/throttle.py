"""Filter ``throttle``: requests wait so that a group of disks stays below limits of bytes and requests a second.

A limit is a leaky bucket: each request pours its bytes, or 1, into it; it leaks at the limit's rate, and who finds it
too full waits until it is not. ``-max`` and ``-max-length`` allow bursts, as QEMU's do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Self

from hostel.block import objects
from hostel.block.driver import FilterDriver, OpenMode
from hostel.block.filters.option import settle
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import ModeChange

_DIRECTIONS: Final = ("total", "read", "write")
_UNITS: Final = ("bps", "iops")
LIMITS: Final = tuple(f"{unit}-{direction}" for unit in _UNITS for direction in _DIRECTIONS)
PROPERTIES: Final = (*(f"{limit}{end}" for limit in LIMITS for end in ("", "-max", "-max-length")), "iops-size")
_APPLYING: Final = {
    is_write: tuple(
        f"{unit}-{direction}" for unit in _UNITS for direction in ("total", "write" if is_write else "read")
    )
    for is_write in (False, True)
}
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

    def due(self, now: float) -> float:
        """Let leak what has leaked, and return the seconds until more may be poured in."""
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
        return wait

    def pour(self, amount: float) -> None:
        """Add what a request takes."""
        self._level += amount
        self._burst_level += amount


class ThrottleGroup:
    """The limits that several nodes share: an object of type ``throttle-group``.

    Requests that have to wait go one after the other, reads and writes each in the order in which they came.
    """

    def __init__(self, properties: Mapping[str, int]) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[bool, deque[object]] = {False: deque(), True: deque()}
        self._properties: dict[str, int] = {}
        self._buckets: dict[str, _Bucket] = {}
        self.change(properties)

    @classmethod
    def from_properties(cls, given: Mapping[str, str | int]) -> Self:
        """Read the object's properties: ``limits.iops-total``, or ``x-iops-total`` as older scripts say.

        Raises:
            OptionError: one is unknown, no number, or contradicts another.
        """
        values: dict[str, int] = {}
        for name, value in given.items():
            key = name.removeprefix("limits.").removeprefix("x-")
            if key == name or key not in PROPERTIES:
                raise OptionError(f"Parameter '{name}' is unexpected")
            text = str(value)
            if not text.isascii() or not text.removeprefix("-").isdigit():
                raise OptionError(f"Parameter '{name}' expects integer")
            if text.startswith("-") and name.startswith("x-"):
                raise OptionError("Property values cannot be negative")
            values[key] = int(text)
        return cls(values)

    @property
    def properties(self) -> dict[str, int]:
        """All limits, those that are not set too, by QEMU's names."""
        return {name: 1 if name.endswith("-length") else 0 for name in PROPERTIES} | self._properties

    def change(self, given: Mapping[str, int]) -> None:
        """Set limits, and leave the others; what waits, waits by the new ones from now on.

        Raises:
            OptionError: they contradict one another; nothing has changed then.
        """
        with self._changed:
            values = {**self._properties, **given}
            limits = _limits(values)
            self._properties = values
            self._buckets = {name: _Bucket(limit) for name, limit in limits.items()}
            self._changed.notify_all()

    def wait(self, length: int, *, is_write: bool, may_go: Callable[[], bool]) -> None:
        """Wait until a request of ``length`` bytes may start, or until there is no need to; see :meth:`look_again`."""
        queue, ticket = self._waiting[is_write], object()
        with self._changed:
            queue.append(ticket)
            try:
                while not may_go():
                    due = self._due(is_write) if queue[0] is ticket else None
                    if due is not None and due <= 0:
                        break
                    self._changed.wait(due)
            finally:
                queue.remove(ticket)
                if queue:
                    self._changed.notify_all()
            self._pour(length, is_write)

    def look_again(self) -> None:
        """Have those that wait ask whether they may go."""
        with self._changed:
            self._changed.notify_all()

    def _due(self, is_write: bool) -> float:
        now = time.monotonic()
        return max((self._buckets[name].due(now) for name in self._names(is_write)), default=0.0)

    def _pour(self, length: int, is_write: bool) -> None:
        size = self._properties.get("iops-size", 0)
        requests = max(1.0, length / size) if size else 1.0
        for name in self._names(is_write):
            self._buckets[name].pour(float(length) if name.startswith("bps") else requests)

    def _names(self, is_write: bool) -> list[str]:
        return [name for name in _APPLYING[is_write] if name in self._buckets]


def _limits(values: Mapping[str, int]) -> dict[str, Limit]:
    """The limits that properties set.

    Raises:
        OptionError: one contradicts another.
    """
    for unit in _UNITS:
        for end in ("", "-max"):
            if values.get(f"{unit}-total{end}") and any(
                values.get(f"{unit}-{each}{end}") for each in ("read", "write")
            ):
                raise OptionError("bps/iops/max total values and read/write values cannot be used at the same time")
    if values.get("iops-size") and not any(values.get(name) for name in LIMITS if name.startswith("iops")):
        raise OptionError("iops size requires an iops value to be set")
    limits: dict[str, Limit] = {}
    for name in LIMITS:
        rate, burst = values.get(name, 0), values.get(f"{name}-max", 0)
        length = values.get(f"{name}-max-length", 1)
        if not (0 <= rate <= _MAX and 0 <= burst <= _MAX):
            raise OptionError(f"bps/iops/max values must be within [0, {_MAX}]")
        if not length or (length > 1 and not burst):
            raise OptionError("burst length set without burst rate" if length else "the burst length cannot be 0")
        if burst * length > _MAX:
            raise OptionError("burst length too high for this burst rate")
        if burst and not rate:
            raise OptionError("bps_max/iops_max require corresponding bps/iops values")
        if burst and burst < rate:
            raise OptionError("bps_max/iops_max cannot be lower than bps/iops")
        if rate:
            limits[name] = Limit(rate, burst, length)
    return limits


class ThrottleDriver(FilterDriver):
    """Makes requests wait as its group says; flushes never wait, and nothing does while the node is drained.

    Attributes:
        group: whose limits these are.
    """

    name = "throttle"
    options: Final = Options(  # type: ignore[misc]
        Option("throttle-group", Kind.STRING, "Name of the throttle group"),
    )

    def __init__(self, child: BlockNode, group: ThrottleGroup) -> None:
        super().__init__({"file": child})
        self.group = group
        self._relaxed = 0
        self._relaxing = threading.Lock()

    def reopened(self, change: ModeChange) -> ThrottleDriver:
        """The filter of another group, or on another node; see :class:`hostel.block.powers.Reopenable`."""
        return type(self).open(self.children, change(OpenMode()))

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
        self._wait(len(buf), is_write=False)
        self.child.pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Wait, then write."""
        self._wait(len(data), is_write=True)
        self.child.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Wait, then zero."""
        self._wait(length, is_write=True)
        self.child.write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Wait, then discard."""
        self._wait(length, is_write=True)
        self.child.discard(offset, length)

    def relax(self) -> None:
        """Let requests through, those that wait too; see :class:`hostel.block.restraint.Restraining`."""
        with self._relaxing:
            self._relaxed += 1
        self.group.look_again()

    def tighten(self) -> None:
        """Make requests wait again."""
        with self._relaxing:
            self._relaxed -= 1

    def _wait(self, length: int, *, is_write: bool) -> None:
        self.group.wait(length, is_write=is_write, may_go=lambda: self._relaxed > 0)
