"""Where a machine that is started goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.drivers.base import PausedReason, RunningReason
from hostel.drivers.events import Started, Suspended

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running
    from hostel.drivers.qemu.status import Migration


class Origin(NamedTuple):
    """Where a machine goes on from.

    Attributes:
        reason: why it runs.
        event: what is told of its start.
        memory: a file with its memory; None where it boots.
        offset: where in the file the memory begins.
        paused: why it is paused, where it is.
        suspended: what is told of that.
        prepare: what is done to the machine before its CPUs run.
        ending: what it is started for, where that is its end.
        reset_nvram: whether UEFI's variables are made anew before.
        migration: the migration that brings its memory, which ``prepare`` lets in.
        unpack: the command that unpacks memory in a file, where it is compressed.
    """

    reason: RunningReason = RunningReason.BOOTED
    event: Started = Started.BOOTED
    memory: Path | None = None
    offset: int = 0
    paused: PausedReason = PausedReason.USER
    suspended: Suspended = Suspended.PAUSED
    prepare: Callable[[Running], None] | None = None
    ending: str = ""
    reset_nvram: bool = False
    migration: Migration | None = None
    unpack: tuple[str, ...] = ()


BOOT: Final = Origin()
