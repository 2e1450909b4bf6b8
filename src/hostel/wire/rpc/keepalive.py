"""Keepalive: a peer that has been silent is asked, and counts as dead when it does not answer (``virkeepalive.c``)."""

from __future__ import annotations

from typing import Final

from hostel.wire.rpc.packet import Status, Type, frame

PROGRAM: Final = 0x6B656570
PING: Final = 1
PONG: Final = 2

ping: Final = frame(PROGRAM, PING, Type.MESSAGE, 0, Status.OK)
pong: Final = frame(PROGRAM, PONG, Type.MESSAGE, 0, Status.OK)


class KeepAlive:
    """When to ask, and when to give up; told the time, and what arrives.

    Args:
        interval: seconds of silence after which the peer is asked, and between two questions.
        count: questions without an answer after which it is dead.
        now: the monotonic time.
    """

    def __init__(self, interval: float, count: int, now: float) -> None:
        self.interval = interval
        self.count = count
        self._heard = now
        self._asked = 0

    def heard(self, now: float) -> None:
        """Something has arrived, whatever it was."""
        self._heard = now
        self._asked = 0

    @property
    def deadline(self) -> float:
        """When :meth:`due` has something to say."""
        return self._heard + self.interval * (self._asked + 1)

    def due(self, now: float) -> bool:
        """Whether to send a ping now.

        Raises:
            TimeoutError: the peer is dead.
        """
        if now < self.deadline:
            return False
        if self._asked >= self.count:
            raise TimeoutError(f"no response to {self.count} keepalive messages in {int(now - self._heard)} seconds")
        self._asked += 1
        return True
