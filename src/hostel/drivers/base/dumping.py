"""A domain's memory as a file for debuggers, how fast it changes, and what follows when a guest ends by itself."""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef
from hostel.drivers.base.storage import Progress


class DumpFlag(enum.IntFlag):
    """``virDomainCoreDumpFlags``."""

    NONE = 0
    CRASH = 1
    LIVE = 2
    BYPASS_CACHE = 4
    RESET = 8
    MEMORY_ONLY = 16


class DumpFormat(enum.IntEnum):
    """``virDomainCoreDumpFormat``; the first is ELF."""

    RAW = 0
    KDUMP_ZLIB = 1
    KDUMP_LZO = 2
    KDUMP_SNAPPY = 3
    WIN_DMP = 4


class DirtyRateMode(enum.IntFlag):
    """``virDomainDirtyRateCalcFlags``."""

    PAGE_SAMPLING = 0
    DIRTY_BITMAP = 1
    DIRTY_RING = 2


LIFECYCLES = ("poweroff", "reboot", "crash")  # virDomainLifecycle
# virDomainLifecycleAction
ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart")


@runtime_checkable
class DumpDriver(Protocol):
    """Dumps memory."""

    def domain_core_dump_with_format(
        self,
        domain: DomainRef,
        to: str,
        format: int,
        flags: DumpFlag = DumpFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write a running domain's memory to a file; ``MEMORY_ONLY`` in the format, else its devices too."""


@runtime_checkable
class DirtyRateDriver(Protocol):
    """Measures how fast memory changes."""

    def domain_start_dirty_rate_calc(
        self, domain: DomainRef, seconds: int, flags: DirtyRateMode = DirtyRateMode.PAGE_SAMPLING
    ) -> None:
        """Begin to measure for so many seconds; statistics tell the result."""


@runtime_checkable
class LifecycleDriver(Protocol):
    """Changes what follows when a guest ends by itself."""

    def domain_set_lifecycle_action(self, domain: DomainRef, type: int, action: int, affect: Affect) -> None:
        """Change what follows (:data:`ACTIONS`) of one of :data:`LIFECYCLES`."""


@runtime_checkable
class SignalDriver(Protocol):
    """Reaches into containers."""

    def domain_send_process_signal(self, domain: DomainRef, pid: int, signal: int) -> None:
        """Send a process in the domain a signal."""
