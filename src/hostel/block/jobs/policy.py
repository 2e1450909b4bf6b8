"""What becomes of a job when a read or a write fails (``BlockdevOnError``)."""

from __future__ import annotations

import enum
import errno
from typing import Final


class OnError(enum.Enum):
    """The policies; the values are QMP's."""

    REPORT = "report"  # the job ends with the error
    IGNORE = "ignore"  # the range is tried again later
    STOP = "stop"  # the job pauses until it is resumed, and tries again
    ENOSPC = "enospc"  # as STOP where there is no space, else as REPORT
    AUTO = "auto"  # what a device does by default: as ENOSPC


class Action(enum.Enum):
    """What follows from a policy and an error; the values are those of BLOCK_JOB_ERROR."""

    REPORT = "report"
    IGNORE = "ignore"
    STOP = "stop"


_ALWAYS: Final = {OnError.REPORT: Action.REPORT, OnError.IGNORE: Action.IGNORE, OnError.STOP: Action.STOP}


def action(policy: OnError, code: int) -> Action:
    """What to do about an errno."""
    if policy in _ALWAYS:
        return _ALWAYS[policy]
    return Action.STOP if code == errno.ENOSPC else Action.REPORT


class SourceError(Exception):
    """A read failed.

    Attributes:
        cause: what the node raised.
    """

    operation = "read"

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class TargetError(SourceError):
    """A write failed."""

    operation = "write"
