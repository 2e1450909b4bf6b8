"""SFTP over one channel of an SSH connection: requests that wait for their answers, many of them at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from hostel.errors import BlockError, RemoteProtocolError
from hostel.wire.sftp.client import Attributes, Data, Event, Handle, SftpClient, Status, Version
from hostel.wire.sftp.protocol import FSYNC, Code, OpenFlag

if TYPE_CHECKING:
    import paramiko

_PORTION: Final = 256 * 1024  # bytes received at once
_PART: Final = 32 * 1024  # bytes of one request; every server takes as many
_UNDER_WAY: Final = 64  # requests
_ERRNOS: Final[Mapping[int, int]] = {Code.NO_SUCH_FILE: errno.ENOENT, Code.PERMISSION_DENIED: errno.EACCES}

Answer = TypeVar("Answer", Handle, Attributes)


class Sftp:
    """One session. One thread at a time. Once an answer does not come, or makes no sense, every request fails.

    Args:
        channel: a channel on which the server's subsystem was begun; its time-out is that of each answer.

    Raises:
        BlockError: the server does not speak the protocol, or is silent; so do all methods.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._machine = SftpClient()
        self._answers: dict[int, Event] = {}
        self._failure: BlockError | None = None
        self._extensions: frozenset[bytes] | None = None
        self._carry(lambda: self._extensions is not None)

    @property
    def can_sync(self) -> bool:
        """Whether the server can be asked to store what was written."""
        return FSYNC in (self._extensions or ())

    def open(self, path: str, flags: OpenFlag, permissions: int | None = None) -> bytes:
        """The handle of a file."""
        return self._result(self._machine.open(os.fsencode(path), flags, permissions), Handle).handle

    def size(self, handle: bytes) -> int:
        """A file's size in bytes."""
        return self._result(self._machine.stat(handle), Attributes).size or 0

    def set_size(self, handle: bytes, size: int) -> None:
        """Set a file's size in bytes."""
        self._done([self._machine.set_size(handle, size)])

    def sync(self, handle: bytes) -> None:
        """Have the host store what was written."""
        self._done([self._machine.sync(handle)])

    def close(self, handle: bytes) -> None:
        """Give a handle back."""
        self._done([self._machine.close(handle)])

    def write(self, handle: bytes, offset: int, data: memoryview) -> None:
        """Write all of ``data``; returns when the server has said of each part that it has it."""
        for start in range(0, len(data), _PART * _UNDER_WAY):
            end = min(start + _PART * _UNDER_WAY, len(data))
            self._done(
                [
                    self._machine.write(handle, offset + at, data[at : min(at + _PART, end)])
                    for at in range(start, end, _PART)
                ]
            )

    def read(self, handle: bytes, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what a server sends less than it was asked for is asked for again."""
        missing = [(at, min(_PART, len(buf) - at)) for at in range(0, len(buf), _PART)]
        while missing:
            now, missing = missing[:_UNDER_WAY], missing[_UNDER_WAY:]
            asked = [self._machine.read(handle, offset + at, buf[at : at + length]) for at, length in now]
            for (at, length), answer in zip(now, self._collect(asked), strict=True):
                if not isinstance(answer, Data):
                    raise _failure(answer)
                if answer.length < length:
                    missing.append((at + answer.length, length - answer.length))

    def _done(self, asked: Iterable[int]) -> None:
        for answer in self._collect(asked):
            if not isinstance(answer, Status) or answer.code != Code.OK:
                raise _failure(answer)

    def _result(self, asked: int, kind: type[Answer]) -> Answer:
        answer = self._collect([asked])[0]
        if not isinstance(answer, kind):
            raise _failure(answer)
        return answer

    def _collect(self, asked: Iterable[int]) -> list[Event]:
        """The answers to requests, all of them: what is still under way would write into the caller's memory later."""
        wanted = list(asked)
        self._carry(lambda: all(id in self._answers for id in wanted))
        return [self._answers.pop(id) for id in wanted]

    def _carry(self, enough: Callable[[], bool]) -> None:
        """Send what is to be sent, and receive until that is enough."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        try:
            self._channel.sendall(b"".join(self._machine.outgoing()))
            while not enough():
                data = self._channel.recv(_PORTION)
                if not data:
                    raise BlockError("the server has closed the connection", errno=errno.EIO)
                self._take(self._machine.receive(data))
        except TimeoutError:
            self._fail(BlockError("the server does not answer", errno=errno.ETIMEDOUT))
        except (BlockError, RemoteProtocolError, OSError, EOFError) as error:
            self._fail(BlockError(str(error) or type(error).__name__, errno=errno.EIO))

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Version):
                self._extensions = frozenset(event.extensions)
            else:
                self._answers[event.id] = event

    def _fail(self, error: BlockError) -> None:
        self._failure = error
        self._channel.close()
        raise error


def _failure(answer: Event) -> BlockError:
    """What an answer says that is none of those one hoped for."""
    if isinstance(answer, Status) and answer.code != Code.OK:
        if answer.code == Code.EOF:
            return BlockError("the remote file is shorter than it was", errno=errno.EIO)
        code = _ERRNOS.get(answer.code)
        if code is not None:
            return BlockError(os.strerror(code), errno=code)
        return BlockError(answer.text or f"the server says {answer.code}", errno=errno.EIO)
    return BlockError("the server's answer makes no sense", errno=errno.EIO)
