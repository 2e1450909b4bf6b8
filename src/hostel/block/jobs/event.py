"""What jobs tell those who listen: QMP's events, as values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class JobEvent(NamedTuple):
    """One event.

    Attributes:
        name: QMP's: ``JOB_STATUS_CHANGE``, ``BLOCK_JOB_READY``, ``BLOCK_JOB_COMPLETED``, ``BLOCK_JOB_CANCELLED``,
            ``BLOCK_JOB_PENDING``, ``BLOCK_JOB_ERROR``.
        data: QMP's members.
        time: seconds since 1970.
    """

    name: str
    data: Mapping[str, Any]
    time: float


# Called in the thread in which something happened, with no lock of the job held; must neither wait nor raise.
Listener = Callable[[JobEvent], None]


def event(name: str, **data: Any) -> JobEvent:
    """An event that happens now; ``_`` in a member's name stands for ``-``."""
    return JobEvent(name, {key.replace("_", "-"): value for key, value in data.items()}, time.time())
