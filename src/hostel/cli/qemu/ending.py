"""The end of a server: all that runs is ended at once, so that what hangs holds nothing up, and within one time."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from hostel.block import unclosed
from hostel.block.powers import Patient
from hostel.block.restraint import below
from hostel.cause import hint_of
from hostel.cli.qemu.output import reason
from hostel.errors import BlockError, HostelError

if TYPE_CHECKING:
    from hostel.block.node import BlockNode

PATIENCE: Final = 600.0  # seconds for the whole end: a healthy disk may have minutes of cached data to write out
_TURN: Final = 1.0  # seconds after which what comes next is ended, though what came before has not
_QUIET: Final = 5.0  # seconds after which it is told what is waited for; until then signals are one and the same wish
_GLANCE: Final = 0.2  # seconds after which one who waits looks whether it was told to give up


class _Step(threading.Thread):
    """Ends one thing, called ``what``, in a thread of its own; ``rewires``: until then it may change the graph."""

    def __init__(self, what: str, end: Callable[[], object], loss: str, rewires: bool) -> None:
        super().__init__(name=f"end of {what}", daemon=True)
        self.what = what
        self.loss = loss
        self.rewires = rewires
        self.error: Exception | None = None
        self._end = end

    def run(self) -> None:
        try:
            self._end()
        except Exception as error:
            self.error = error


class Ending:
    """Ends things, each in a thread of its own, and waits for all of them until one moment.

    What comes first has a short while to itself, so that things go in their order where nothing hangs.

    Args:
        report: told in one line what went wrong, and what is waited for.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._steps: list[_Step] = []
        self._nodes: list[BlockNode] = []
        self._began: float | None = None
        self._told = self._given_up = False

    def give_up(self) -> None:
        """Wait no more, if it was told what is waited for; a signal handler may call it.

        Before that, nothing: a terminal that goes sends a signal twice, and what does not hang has its time.
        """
        self._given_up = self._told

    def begin(
        self, ends: Mapping[str, Callable[[], object]], *, turn: float = _TURN, loss: str = "", rewires: bool = False
    ) -> None:
        """End things, which the keys name, and wait for them for a short while.

        Args:
            ends: what ends each.
            turn: how long, in seconds.
            loss: what is lost where it does not come to its end.
            rewires: they may change the graph until they end; nodes are closed only then.
        """
        if self._began is None:
            self._began = time.monotonic()
        steps = [_Step(what, end, loss, rewires) for what, end in ends.items()]
        self._steps += steps
        for step in steps:
            try:
                step.start()
            except RuntimeError:  # the host has no thread left for us
                step.run()
        self._wait(steps, time.monotonic() + turn)

    def close(self, nodes: Mapping[str, BlockNode]) -> None:
        """Close nodes, which the keys name; what hangs, or is in use by what hangs, is flushed at least."""
        self._nodes += nodes.values()
        self.begin({what: partial(self._close, node) for what, node in nodes.items()})
        busy = {step.what for step in self._steps if step.is_alive()}
        self.begin(
            {f"flushing {what}": _flushing(node) for what, node in nodes.items() if what in busy or not node.closed},
            loss="what was written to it since its last flush may be lost",
        )

    def _close(self, node: BlockNode) -> None:
        until = self._after(PATIENCE)
        for step in self._steps:
            if step.rewires and step.is_alive():  # it could take the driver out of the node while that is being closed
                step.join(2 * PATIENCE)  # all is given up before that
                if step.is_alive():
                    raise BlockError(f"it stays open for {step.what}", errno=errno.EBUSY)
        while True:
            try:
                node.close()
                return
            except BlockError as error:  # requests to it take longer than it waits for them
                if error.errno != errno.EBUSY or node.closed or time.monotonic() >= until:
                    raise
                time.sleep(_GLANCE)

    def _after(self, seconds: float) -> float:
        """The moment so many seconds after the end began."""
        return (time.monotonic() if self._began is None else self._began) + seconds

    def finish(self) -> None:
        """Wait for the end of all that was begun.

        Raises:
            BlockError: something failed, or has not ended; there is a line for each.
        """
        if not self._wait(self._steps, self._after(_QUIET)):
            self._told = True
            names = ", ".join(step.what for step in self._steps if step.is_alive())
            self._report(f"waiting for {names}; another signal, or {PATIENCE:.0f} seconds since the first, end that")
            if not self._wait(self._steps, self._after(PATIENCE)):
                self._lose_patience()
        self._require_success(time.monotonic() - self._after(0.0))

    def _wait(self, steps: Sequence[_Step], until: float) -> bool:
        """Wait for steps; False where that takes too long, or is given up."""
        for step in steps:
            while step.is_alive():
                left = until - time.monotonic()
                if left <= 0 or self._given_up:
                    return False
                step.join(min(left, _GLANCE))
        return True

    def _lose_patience(self) -> None:
        """Wait for no server to come back any more, so that what waits for one can say so."""
        waiting = [node.driver for node in below(self._nodes) if isinstance(node.driver, Patient)]
        self._given_up = False
        until = time.monotonic() + _TURN
        while waiting and time.monotonic() < until:
            for driver in waiting:
                driver.lose_patience()
            if self._wait(self._steps, min(until, time.monotonic() + _GLANCE)):
                return

    def _require_success(self, seconds: float) -> None:
        lines: list[str] = []
        hint, code = None, errno.ETIMEDOUT
        for step in self._steps:
            if step.is_alive():
                loss = f": {step.loss}" if step.loss else ""
                lines.append(f"{step.what} did not end within {seconds:.0f} seconds{loss}")
            elif step.error is not None:
                lines.append(f"{step.what}: {_describe(step.error)}")
                if isinstance(step.error, OSError):
                    hint, code = hint or hint_of(step.error), step.error.errno or errno.EIO
        if not lines:
            return
        if any(step.is_alive() for step in self._steps):
            unclosed.forget_all()  # what hangs would be waited for once more
        raise BlockError("\n".join(lines), errno=code, hint=hint)


def _flushing(node: BlockNode) -> Callable[[], None]:
    def flush() -> None:
        try:
            node.flush()
        except BlockError:
            if not node.closed:  # which it may be by now
                raise

    return flush


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        return reason(error)
    return str(error) if isinstance(error, HostelError) else f"internal error: {type(error).__name__}: {error}"
