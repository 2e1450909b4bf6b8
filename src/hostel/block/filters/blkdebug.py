"""Filter ``blkdebug``: requests fail, or wait, when a request above comes to a given point.

The node above says how far it is (:meth:`hostel.block.node.BlockNode.debug_event`); rules make the requests after that
fail, change the state in which rules count, or suspend the request. ``align`` and the limits make the node as
particular as a bad disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

from hostel.block.driver import FilterDriver, OpenMode, Supports
from hostel.block.extent import Extent
from hostel.block.filters.fitting import Fitting, Limits
from hostel.block.filters.rule import EVENTS, GROUPS, Breakpoint, Injection, Rule, StateChange, rules
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.block.powers import ModeChange

_INT_MAX: Final = 2**31 - 1
# The longest that a request stays suspended: whoever forgot to resume it gets it back all the same.
_MAX_SUSPENSION: Final = 3600.0  # seconds
_PERMISSIONS: Final = ("take-child-perms.", "unshare-child-perms.")


class BlkdebugDriver(FilterDriver):
    """Injects errors.

    Attributes:
        listener: is told ``Suspended request 'tag'`` and ``Resuming request 'tag'``, from the request's own thread
            and from the caller's.
    """

    name = "blkdebug"
    primary = "image"
    options: Final = Options(  # type: ignore[misc]
        Option("config", Kind.STRING, "Path to the configuration file"),
        Option("align", Kind.SIZE, "Required alignment in bytes", "0"),
        Option("max-transfer", Kind.SIZE, "Maximum transfer size in bytes", "0"),
        Option("opt-write-zero", Kind.SIZE, "Optimum write zero alignment in bytes", "0"),
        Option("max-write-zero", Kind.SIZE, "Maximum write zero size in bytes", "0"),
        Option("opt-discard", Kind.SIZE, "Optimum discard alignment in bytes", "0"),
        Option("max-discard", Kind.SIZE, "Maximum discard size in bytes", "0"),
    )

    def __init__(self, children: Mapping[str, BlockNode], limits: Limits, found: list[Rule]) -> None:
        super().__init__(children)
        self.supports |= Supports.ZEROES
        self.on_event = self._event
        self.listener: Callable[[str], None] = lambda line: None
        self._state = 1
        self._rules: dict[str, list[Rule]] = {}
        self._active: list[Injection] = []
        self._suspended: list[tuple[str, threading.Event]] = []
        self._changed = threading.Condition()
        self.request_alignment = limits.alignment
        self._fitting = Fitting(self, limits, self._event)
        for rule in found:
            self._add(rule)
        self._event("none")

    @classmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Read the rules and the limits.

        Raises:
            OptionError: an option or a rule is wrong, or a limit does not fit the alignment.
            BlockError: the configuration file cannot be read.
        """
        dotted = tuple(f"{group}." for group in GROUPS)
        own = {name: str(value) for name, value in mode.options.items() if not name.startswith(dotted + _PERMISSIONS)}
        for name in own:
            if name not in cls.options:
                raise OptionError(f"Block protocol 'blkdebug' doesn't support the option '{name}'")
        values = cls.options.convert(own)
        config = str(values["config"]) if values.get("config") else None
        found = rules(mode.options, config)
        return cls(children, _limits(values), found)

    def reopened(self, change: ModeChange) -> BlkdebugDriver:
        """Itself: its rules cannot change."""
        return self

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Read ``blkdebug:CONFIG:IMAGE``, or an image's name alone.

        Raises:
            OptionError: the second colon is missing.
        """
        if not name.startswith("blkdebug:"):
            return {"image.filename": name}
        config, colon, image = name.removeprefix("blkdebug:").partition(":")
        if not colon:
            raise OptionError("blkdebug requires both config file and image path")
        return {"config": config, "image.filename": image} if config else {"image.filename": image}

    @classmethod
    def filename(cls, options: Mapping[str, Value], children: Mapping[str, str]) -> str | None:
        """``blkdebug:CONFIG:IMAGE``, where there are no other options."""
        if set(options) - {"config"} or children["image"].startswith("json:"):
            return None
        return f"blkdebug:{options.get('config', '')}:{children['image']}"

    # ---- requests

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read, in pieces that fit."""
        self._fitting.read(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write, in pieces that fit."""
        self._fitting.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero, in pieces that fit."""
        self._fitting.zero(offset, length, unmap=unmap)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the child does, and no piece at an end is smaller than what may be zeroed."""
        return self._fitting.zeroes_whole(offset, length) and super().zeroes_fast(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Discard, in pieces that fit."""
        self._fitting.discard(offset, length)

    def flush(self) -> None:
        """Flush the child, unless a rule says no."""
        self._check("flush", 0, 0)
        self.child.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The child's, up to where a rule says no."""
        for extent in self.child.extents(offset, length):
            self._check("block-status", extent.offset, extent.length)
            yield extent

    def read_fitting(self, offset: int, buf: memoryview) -> None:
        """Read an aligned range; what lies beyond the child's end reads as zeroes."""
        self._check("read", offset, len(buf))
        if self.child.driver.supports & Supports.GROWS:
            self.child.pread(offset, buf)
        else:
            self.child.pread_padded(offset, buf)

    def write_fitting(self, offset: int, data: memoryview) -> None:
        """Write an aligned range."""
        self._check("write", offset, len(data))
        self.child.pwrite(offset, data[: self._inside(offset, len(data))])

    def zero_fitting(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero an aligned range."""
        self._check("write-zeroes", offset, length)
        self.child.write_zeroes(offset, self._inside(offset, length), unmap=unmap)

    def discard_fitting(self, offset: int, length: int) -> None:
        """Discard an aligned range."""
        self._check("discard", offset, length)
        self.child.discard(offset, self._inside(offset, length))

    def _inside(self, offset: int, length: int) -> int:
        """How much of a padded range lies inside a child that does not grow."""
        grows = self.child.driver.supports & Supports.GROWS
        return length if grows else max(0, min(length, self.child.length - offset))

    def _check(self, io_type: str, offset: int, length: int) -> None:
        """Fail if a rule says so."""
        if not self._active:
            return
        with self._changed:
            rule = next((each for each in self._active if each.hits(io_type, offset, length)), None)
            if rule is None or not rule.errno:
                return
            if rule.once:
                self._active.remove(rule)
                self._rules[rule.event].remove(rule)
        raise OSError(rule.errno, os.strerror(rule.errno), self.child.filename)

    # ---- events

    def _event(self, event: str) -> None:
        """A request above has come to a point."""
        if event not in self._rules:
            return
        waiting: list[tuple[str, threading.Event]] = []
        with self._changed:
            state = self._state
            active: list[Injection] = []
            for rule in list(self._rules[event]):
                if rule.state not in (0, self._state):
                    continue
                if isinstance(rule, Injection):
                    active.insert(0, rule)
                elif isinstance(rule, StateChange):
                    state = rule.new_state
                else:
                    self._rules[event].remove(rule)
                    waiting.append((rule.tag, threading.Event()))
            self._active = active or self._active
            self._state = state
            self._suspended[:0] = waiting
            if waiting:
                self._changed.notify_all()
        for tag, resumed in waiting:
            self.listener(f"Suspended request '{tag}'")
            resumed.wait(_MAX_SUSPENSION)

    def _add(self, rule: Rule) -> None:
        # The newest first.
        self._rules.setdefault(rule.event, []).insert(0, rule)

    # ---- breakpoints

    def set_breakpoint(self, event: str, tag: str) -> None:
        """Suspend the next request that comes to ``event``.

        Raises:
            FileNotFoundError: there is no such event.
        """
        if event not in EVENTS:
            raise FileNotFoundError(2, os.strerror(2), event)
        with self._changed:
            self._add(Breakpoint(event, tag))

    def remove_breakpoint(self, tag: str) -> None:
        """Forget the breakpoints of a tag and resume all requests that they suspended.

        Raises:
            FileNotFoundError: there are none.
        """
        found = False
        with self._changed:
            for listed in self._rules.values():
                mine = [rule for rule in listed if isinstance(rule, Breakpoint) and rule.tag == tag]
                found = found or bool(mine)
                listed[:] = [rule for rule in listed if rule not in mine]
        while self.is_suspended(tag):
            self.resume(tag)
            found = True
        if not found:
            raise FileNotFoundError(2, os.strerror(2), tag)

    def resume(self, tag: str) -> None:
        """Let the suspended request of a tag go on, the last one first.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._changed:
            found = next((each for each in self._suspended if each[0] == tag), None)
            if found is None:
                raise FileNotFoundError(2, os.strerror(2), tag)
            self._suspended.remove(found)
        self.listener(f"Resuming request '{tag}'")
        found[1].set()

    def is_suspended(self, tag: str) -> bool:
        """Whether a request of this tag is suspended."""
        return tag in self.suspended()

    def suspended(self) -> list[str]:
        """The tags of all suspended requests."""
        with self._changed:
            return [tag for tag, _ in self._suspended]

    def resume_all(self) -> None:
        """Let everything go on: nothing will be suspended any more."""
        with self._changed:
            for listed in self._rules.values():
                listed[:] = [rule for rule in listed if not isinstance(rule, Breakpoint)]
            waiting, self._suspended = self._suspended, []
        for _, resumed in waiting:
            resumed.set()

    def close(self) -> None:
        """Let suspended requests go."""
        self.resume_all()


def _limits(values: Mapping[str, Any]) -> Limits:
    align = int(values["align"])
    if align and (align >= _INT_MAX or align & (align - 1)):
        raise OptionError(f"Cannot meet constraints with align {align}")
    align = align or 1

    def limit(name: str, unit: int) -> int:
        value = int(values[name])
        if value and (value >= _INT_MAX or value % unit):
            raise OptionError(f"Cannot meet constraints with {name} {value}")
        return value

    transfer = limit("max-transfer", align)
    zero = limit("opt-write-zero", align)
    most_zero = limit("max-write-zero", max(zero, align))
    discard = limit("opt-discard", align)
    return Limits(align, transfer, zero, most_zero, discard, limit("max-discard", max(discard, align)))
