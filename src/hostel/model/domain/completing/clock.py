"""What the guest's clock is like that a document says in part (``virDomainDefClockParse``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xmlvalue import read_integer
from hostel.errors import ModelError
from hostel.model.domain.clock import Clock

# What says how far each kind of clock is from the host's; what else is written is another kind's.
_SAID: Final = {
    "utc": ("adjustment",),
    "localtime": ("adjustment",),
    "variable": ("adjustment", "basis"),
    "timezone": ("timezone",),
    "absolute": ("start",),
}


def complete_clock(clock: Clock) -> None:
    """Say what a clock's adjustment is to, and leave out what is another kind's.

    Raises:
        ModelError: the adjustment is no number.
    """
    for name in ("adjustment", "basis", "timezone", "start"):
        if name not in _SAID[clock.offset]:
            setattr(clock, name, None)
    clock.adjustment = clock.adjustment or None  # empty is as not written
    if clock.offset in ("utc", "localtime") and clock.adjustment not in (None, "reset"):
        try:
            read_integer(clock.adjustment or "")
        except ValueError:
            reason = f"unknown clock adjustment '{clock.adjustment}'"
            raise ModelError("/domain/clock/@adjustment", reason) from None
        clock.basis, clock.offset = clock.offset, "variable"
    if clock.offset == "variable":
        clock.adjustment = clock.adjustment or "0"
        clock.basis = clock.basis or "utc"
