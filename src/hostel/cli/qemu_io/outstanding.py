"""Requests that were started and are not done: each in a thread of its own while ``blkdebug`` may suspend one.

Without a ``blkdebug`` node nothing can hold a request up, and each is done at once. What a request has to say is kept
until the session asks, so that only the session's thread prints: as with QEMU, before the next request to the image,
or when all are waited for. What ``blkdebug`` says is printed after the command that it belongs to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from hostel.cli.qemu_io.command import CommandError

# A request started while another one is suspended may have to wait for it: not longer than this is it waited for.
_GRACE: Final = 0.05  # seconds
_PATIENCE: Final = 30.0  # seconds that anything may take while a request is suspended


class Debugger(Protocol):
    """Who suspends requests."""

    listener: Callable[[str], None]

    def set_breakpoint(self, event: str, tag: str) -> None:
        """Suspend the next request that comes to an event."""

    def remove_breakpoint(self, tag: str) -> None:
        """Forget a breakpoint, and resume its requests."""

    def resume(self, tag: str) -> None:
        """Resume a request."""

    def resume_all(self) -> None:
        """Resume all requests, and suspend none any more."""

    def suspended(self) -> list[str]:
        """The tags of the suspended requests."""


class Outstanding:
    """The requests of one open image.

    Attributes:
        debugger: None where no ``blkdebug`` node is below.
    """

    def __init__(self, debugger: Debugger | None, text: Callable[[str], None]) -> None:
        self.debugger = debugger
        self._text = text
        self._said: list[tuple[int, str]] = []  # the number of the request, 0 where blkdebug says it
        self._started = 0
        self._running = 0
        self._changed = threading.Condition()
        if debugger is not None:
            debugger.listener = lambda line: self._say(0, f"blkdebug: {line}\n")

    def _say(self, number: int, text: str) -> None:
        with self._changed:
            # Of requests that end together, the one that was started first speaks first.
            place = len(self._said)
            while number and place and self._said[place - 1][0] > number:
                place -= 1
            self._said.insert(place, (number, text))
            self._changed.notify_all()

    def settle(self) -> None:
        """Print what the requests had to say since the last time."""
        self._print(everything=True)

    def tell(self) -> None:
        """Print what ``blkdebug`` had to say since the last time."""
        self._print(everything=False)

    def _print(self, *, everything: bool) -> None:
        with self._changed:
            said, self._said = self._said, []
            if not everything:
                self._said = [each for each in said if each[0]]
        for number, text in said:
            if everything or not number:
                self._text(text)

    def suspended(self) -> list[str]:
        """The tags of the suspended requests."""
        return self.debugger.suspended() if self.debugger is not None else []

    def start(self, request: Callable[[], str]) -> None:
        """Start a request, which returns what is to be printed; it is done already where nothing holds it up."""
        self._started += 1
        number = self._started
        if self.debugger is None:
            self._said.append((number, request()))
            return
        before = self.suspended()
        done = self._launch(lambda: self._say(number, request()))
        with self._changed:
            self._changed.wait_for(lambda: done.is_set() or self.suspended() != before, _GRACE if before else _PATIENCE)
        self.tell()

    def _launch(self, call: Callable[[], None]) -> threading.Event:
        done = threading.Event()

        def run() -> None:
            try:
                call()
            finally:
                with self._changed:
                    done.set()
                    self._running -= 1
                    self._changed.notify_all()

        with self._changed:
            self._running += 1
        threading.Thread(target=run, daemon=True).start()
        return done

    def aside(self, call: Callable[[], bool]) -> bool:
        """Run what may have to wait for a suspended request; whether it was done, and well.

        Raises:
            CommandError: it waits for a request that is suspended.
        """
        result: list[bool] = []
        done = self._launch(lambda: result.append(call()))
        if not done.wait(_PATIENCE):
            raise CommandError(f"It waits for the suspended request '{self.suspended()[0]}': resume that first")
        return bool(result and result[0])

    def let_go(self) -> None:
        """Give a request that was resumed, and what waited for it, the time to end."""
        before = self.suspended()
        with self._changed:
            self._changed.wait_for(lambda: not self._running or self.suspended() != before, _GRACE)
        self.tell()

    def wait(self) -> None:
        """Wait until all requests are done.

        Raises:
            CommandError: a request is suspended, which nobody would resume meanwhile.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._running or bool(self.suspended()))
        self.settle()
        if tags := self.suspended():
            raise CommandError(f"Request '{tags[0]}' is suspended: resume it first")

    def wait_for_break(self, tag: str) -> None:
        """Wait until a request is suspended under a tag.

        Raises:
            CommandError: there is none, and none under way that could come to it.
        """
        if tag in self.suspended():
            return
        with self._changed:
            self._changed.wait_for(lambda: tag in self.suspended() or not self._running, _PATIENCE)
        self.settle()
        if tag not in self.suspended():
            raise CommandError(f"No request is suspended under the tag '{tag}', and none is on its way there")

    def finish(self) -> None:
        """Let everything go on, and wait for it: the image is to be closed."""
        if self.debugger is not None:
            self.debugger.resume_all()
            with self._changed:
                self._changed.wait_for(lambda: not self._running)
        self.settle()
