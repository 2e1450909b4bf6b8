"""Open files that stand for images (``qemuDomainFDAssociate``): given to a connection, and kept until it closes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain

_FIRST: Final = 20  # below it, the shell that starts QEMU has its own


class Descriptors:
    """Groups of open files, each by the domain and by its name; safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], list[int]] = {}

    def associate(self, uuid: str, name: str, files: Sequence[int]) -> None:
        """Keep copies of open files; those that a group of this name had are closed.

        Raises:
            VirtError: ``SYSTEM_ERROR``: one is not open.
        """
        copies: list[int] = []
        for index, file in enumerate(files):
            try:
                copies.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FIRST))
            except (OSError, OverflowError, ValueError) as error:
                _close(copies)
                reason = error if isinstance(error, OSError) else OSError(str(error))
                raise system_fault(
                    reason, f"failed to duplicate passed fd with index '{index}'", ErrorDomain.QEMU
                ) from error
        with self._lock:
            _close(self._groups.pop((uuid, name), []))
            self._groups[uuid, name] = copies

    def take(self, uuid: str, names: Iterable[str], given: contextlib.ExitStack) -> dict[str, tuple[int, ...]]:
        """Copies of the files of a domain's groups, which ``given`` closes.

        Raises:
            VirtError: ``INVALID_ARG``: there is no such group.
        """
        taken: dict[str, tuple[int, ...]] = {}
        with self._lock:
            for name in names:
                group = self._groups.get((uuid, name))
                if group is None:
                    what = f"file descriptor group '{name}' was not associated with the domain"
                    raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
                copies = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FIRST) for file in group]
                given.callback(_close, copies)
                taken[name] = tuple(copies)
        return taken

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for group in self._groups.values():
                _close(group)
            self._groups.clear()


def _close(files: Iterable[int]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)
