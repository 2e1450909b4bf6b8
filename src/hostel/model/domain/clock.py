"""``<clock>``: the guest's time (``virDomainClockDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import YES_NO, Element, attr, child, children, choice, integer
from hostel.errors import ErrorCode

_U64 = 2**64 - 1


class Catchup(Element, tag="catchup", drop_empty=True):
    """How missed ticks are made up for."""

    threshold: int | None = attr(integer(maximum=_U64), default=None)
    slew: int | None = attr(integer(maximum=_U64), default=None)
    limit: int | None = attr(integer(maximum=_U64), default=None)


class Timer(Element, tag="timer"):
    """One timer."""

    name: str = attr(choice("platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock", "armvtimer"))
    present: bool | None = attr(YES_NO, default=None)
    tickpolicy: str | None = attr(choice("delay", "catchup", "merge", "discard"), default=None)
    track: str | None = attr(choice("boot", "guest", "wall", "realtime"), default=None)
    frequency: int | None = attr(integer(maximum=_U64), default=None)
    mode: str | None = attr(choice("auto", "native", "emulate", "paravirt", "smpsafe"), default=None)
    catchup: Catchup | None = child(Catchup, default=None)


class Clock(Element, tag="clock"):
    """What time the guest sees at its start."""

    offset: str = attr(
        choice(
            "utc",
            "localtime",
            "variable",
            "timezone",
            "absolute",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="unknown clock offset '{}'",
        ),
        default="utc",
    )
    adjustment: str | None = attr(default=None)
    basis: str | None = attr(choice("utc", "localtime"), default=None)
    timezone: str | None = attr(default=None)
    start: int | None = attr(integer(maximum=_U64), default=None)
    timers: list[Timer] = children(Timer, factory=list)
