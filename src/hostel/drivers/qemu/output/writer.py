"""Writes what comes out of pipes into files that do not grow beyond a limit (``virrotatingfile.c``).

A guest that has QEMU complain, or that writes to a port with a log, must not fill the host's file system. It is a
program of its own, because it outlives who started it; it ends when nobody can write into its pipes any more. It needs
nothing of Hostel's, so that it is small and there at once.
"""

import os
import select
import stat
from collections.abc import Sequence

_CHUNK = 1 << 16
_LINE = 80  # bytes before the limit in which a line may end that is not to be cut


class RotatingFile:
    """A file that makes room for a new one when it is full: ``NAME``, then ``NAME.0``, ``NAME.1`` and so on.

    Args:
        file: it, open for appending.
        path: where it is.
        limit: how many bytes it may have; 0 for any number.
        backups: how many older ones are kept.
    """

    def __init__(self, file: int, path: str, limit: int, backups: int) -> None:
        self._file = file
        self._path = path
        self._limit = limit if stat.S_ISREG(os.fstat(file).st_mode) else 0
        self._backups = backups

    def write(self, data: bytes) -> None:
        """Append; what the host has no room for is dropped: a guest is not to wait for that."""
        try:
            self._write(data)
        except OSError:
            return

    def _write(self, data: bytes) -> None:
        while data:
            room = self._limit - os.fstat(self._file).st_size
            if not self._limit or len(data) <= room:
                self._put(data)
                return
            if room > 0:
                cut = data.rfind(b"\n", max(0, room - _LINE), room) + 1 or room
                self._put(data[:cut])
                data = data[cut:]
            self._roll()

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def _roll(self) -> None:
        names = [self._path, *(f"{self._path}.{number}" for number in range(self._backups))]
        for number in range(self._backups, 0, -1):
            try:
                os.rename(names[number - 1], names[number])
            except FileNotFoundError:
                continue
        if not self._backups:
            os.unlink(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        os.dup2(os.open(self._path, flags | os.O_EXCL, 0o600), self._file, inheritable=False)


def copy(streams: dict[int, RotatingFile]) -> None:
    """Copy from pipes until all have ended."""
    poll = select.poll()
    for pipe in streams:
        poll.register(pipe, select.POLLIN)
    while streams:
        for pipe, _ in poll.poll():
            data = os.read(pipe, _CHUNK)
            if data:
                streams[pipe].write(data)
            else:
                poll.unregister(pipe)
                os.close(pipe)
                del streams[pipe]


def main(words: Sequence[str]) -> None:
    """Copy what the words say: the limit, the number of older files, and a pipe, a file and its path each time."""
    limit, backups = map(int, words[:2])
    rest = words[2:]
    copy(
        {
            int(pipe): RotatingFile(int(file), path, limit, backups)
            for pipe, file, path in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        }
    )
