"""A queue at work: a thread that takes requests out of the ring, has them answered, and wakes the guest."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from hostel.errors import NetworkError, RemoteProtocolError
from hostel.export.vhost_user_blk.device import BlkDevice
from hostel.export.vhost_user_blk.event import Event
from hostel.net.waker import Waker
from hostel.wire.virtio.memory import GuestMemory
from hostel.wire.virtio.ring import Addresses, SplitRing, check_size

_FEWEST, _MOST = 8, 32  # requests that are answered before the guest hears of them, if there are so many
_LOOK: Final = 40e-6  # seconds for which more is looked out for before sleeping
_END_TIMEOUT: Final = 60.0  # seconds for the thread to end
_BLIND: Final = 1  # milliseconds between looks at a queue without kicks


class Queue:
    """One queue, as the front end has set it up so far.

    Args:
        index: which of the device's.
        device: answers requests.
        report: told in one line why the queue is broken.
    """

    def __init__(self, index: int, device: BlkDevice, report: Callable[[str], None]) -> None:
        self._index = index
        self._device = device
        self._report = report
        self._size = 0
        self._addresses: Addresses | None = None
        self._base = 0
        self._kick = -1
        self._call, self._error = Event(), Event()
        self._kicked = False  # a kick, or that there will be none, was said
        self._enabled = False
        self._ring: SplitRing | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._waker = Waker()

    def set_size(self, size: int) -> None:
        """How many entries there are.

        Raises:
            RemoteProtocolError: it is running, or that is no size.
        """
        self._check_idle()
        check_size(size)
        self._size = size

    def set_addresses(self, addresses: Addresses) -> None:
        """Where the tables are."""
        self._check_idle()
        self._addresses = addresses

    def set_base(self, base: int) -> None:
        """Which entry comes next."""
        self._check_idle()
        self._base = base & 0xFFFF

    def set_call(self, fd: int) -> None:
        """What wakes the guest; -1 for nothing, since it looks itself."""
        self._call.put(fd)

    def set_error(self, fd: int) -> None:
        """What tells the guest that the queue is broken."""
        self._error.put(fd)

    def set_kick(self, fd: int) -> None:
        """What wakes us, -1 for nothing; the queue is started with it."""
        self.pause()
        old, self._kick, self._kicked = self._kick, fd, True
        _close(old)

    def enable(self, enabled: bool) -> None:
        """Let it run once it is started, or not."""
        if not enabled:
            self.pause()
        self._enabled = enabled

    def run(self, memory: GuestMemory, *, event_index: bool, indirect: bool) -> None:
        """Run, where it is started and enabled and does not run.

        Raises:
            RemoteProtocolError: the tables are not where they should be.
        """
        if self._thread is not None or not self._kicked or not self._enabled:
            return
        if not self._size or self._addresses is None:
            raise RemoteProtocolError(f"queue {self._index} is started without a size or without addresses")
        self._ring = SplitRing(
            memory, self._size, self._addresses, self._base, event_index=event_index, indirect=indirect
        )
        self._stopping = False
        self._thread = threading.Thread(target=self._run, args=(self._ring,), name="virtqueue", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether requests are taken."""
        return self._thread is not None

    def pause(self) -> None:
        """Let requests under way end, and take no more; :meth:`run` goes on where this was.

        Raises:
            NetworkError: they do not end.
        """
        if self._thread is None:
            return
        self._stopping = True
        self._waker.wake()
        self._thread.join(_END_TIMEOUT)
        if self._thread.is_alive():
            raise NetworkError(f"requests of queue {self._index} did not end within {_END_TIMEOUT:.0f} seconds")
        self._waker.clear()
        assert self._ring is not None
        self._base = self._ring.taken
        self._ring = self._thread = None

    def stop(self) -> int:
        """Stop; returns the entry that comes next."""
        self.pause()
        self._kicked = False
        return self._base

    def reset(self) -> None:
        """Forget what was set up."""
        self.pause()
        kick, self._kick = self._kick, -1
        self._kicked = self._enabled = False
        self._size = self._base = 0
        self._addresses = None
        self._call.put(-1)
        self._error.put(-1)
        _close(kick)

    def close(self) -> None:
        """Stop, and release everything."""
        try:
            self.reset()
        finally:
            if self._thread is None:  # else it uses them still
                for used in (self._call, self._error, self._waker):
                    used.close()

    def _check_idle(self) -> None:
        if self._thread is not None:
            raise RemoteProtocolError(f"queue {self._index} is changed while it runs")

    def _run(self, ring: SplitRing) -> None:
        try:
            self._serve(ring)
        except (RemoteProtocolError, OSError) as error:
            self._break(str(error))
        except Exception as error:
            # A mistake of ours must not take the other exports with it.
            self._break(f"internal error: {type(error).__name__}: {error}")

    def _break(self, why: str) -> None:
        self._report(f"vhost-user-blk: queue {self._index} is broken: {why}")
        with contextlib.suppress(OSError):
            self._error.tell()

    def _serve(self, ring: SplitRing) -> None:
        """Answer requests until the queue is to stop.

        Raises:
            RemoteProtocolError: the driver broke the rules.
        """
        answer, take, put, poll = self._device.answer_all, ring.take, ring.put, self._poll()
        ring.refuse_kicks()
        while not self._stopping:
            waiting = ring.waiting()
            if waiting:
                put(answer(ring, take(_FEWEST if waiting <= _FEWEST else _portion(waiting))))
                if ring.must_call():
                    self._call.tell()
            elif not self._look(ring) and ring.want_kicks():
                self._sleep(poll)
                ring.refuse_kicks()

    def _look(self, ring: SplitRing) -> bool:
        """Look out for a request for a moment: being woken takes longer than the next one takes to come."""
        has_more, clock = ring.has_more, time.perf_counter
        until = clock() + _LOOK
        while clock() < until:
            if has_more():
                return True
        return False

    def _poll(self) -> select.poll:
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        if self._kick >= 0:
            poll.register(self._kick, select.POLLIN)
        return poll

    def _sleep(self, poll: select.poll) -> None:
        for fd, events in poll.poll(_BLIND if self._kick < 0 else None):
            if fd == self._kick:
                if not events & select.POLLIN:
                    raise RemoteProtocolError("what should kick the queue is closed")
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 8)


def _portion(waiting: int) -> int:
    """How many requests to answer at once: about half of them, so that the guest wakes up over the others.

    Of many, a call for each few costs more than that gains.
    """
    half = 1 << max(waiting - 1, 1).bit_length() - 1
    return max(_FEWEST, min(half, _MOST))


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
