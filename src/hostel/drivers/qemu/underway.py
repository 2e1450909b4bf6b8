"""What the holder of a domain's lock is about, for others, who need not wait for it: how far it is, and to end it.

Two files in the run's directory: ``job`` is the holder's, replaced as it gets on; who wants it to end makes
``job-abort``. A lease goes with the holder's process: what one who was killed has left says nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu import lease
from hostel.drivers.store import write_atomically
from hostel.errors import ErrorCode, ErrorDomain

_JOB: Final = "job"
_ABORT: Final = "job-abort"
_LEASE: Final = "job-lease"
_POLL: Final = 0.05  # seconds
_END_SECONDS: Final = 30.0
_TOLD_SECONDS: Final = 0.2


class Underway:
    """A job as its holder has it.

    Args:
        run: the run's directory.
        name: what libvirt calls the job (``qemuMigrationJobName``).
    """

    def __init__(self, run: Path, name: str) -> None:
        self._run = run
        self._name = name
        self._told = 0.0

    def tell(self, numbers: Mapping[str, int]) -> None:
        """Say how far it is; not more often than anybody looks."""
        if time.monotonic() - self._told >= _TOLD_SECONDS:
            write_atomically(self._run / _JOB, json.dumps(dict(numbers)))
            self._told = time.monotonic()

    def check(self) -> None:
        """Stop where somebody wants that.

        Raises:
            VirtError: ``OPERATION_ABORTED``.
        """
        if (self._run / _ABORT).exists():
            what = f"{self._name}: canceled by client"
            raise fault(ErrorCode.OPERATION_ABORTED, what, ErrorDomain.QEMU)


@contextlib.contextmanager
def job(run: Path, name: str) -> Iterator[Underway]:
    """Begin a job; when it is left, nothing of it stays."""
    for file in (_ABORT, _JOB):
        (run / file).unlink(missing_ok=True)
    lease.take(run / _LEASE)
    try:
        yield Underway(run, name)
    finally:
        lease.let_go(run / _LEASE)
        for file in (_JOB, _ABORT):
            with contextlib.suppress(OSError):  # a saved machine's directory is gone
                (run / file).unlink(missing_ok=True)


def progress(run: Path) -> dict[str, int] | None:
    """How far the job of the lock's holder is; None where it is about nothing of this kind."""
    if not lease.is_leased(run / _LEASE):
        return None
    try:
        found = json.loads((run / _JOB).read_text())
        return {str(name): int(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def end(run: Path) -> bool:
    """Have the holder's job end; False where it is about nothing of this kind.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``: it does not.
    """
    if progress(run) is None:
        return False
    deadline = time.monotonic() + _END_SECONDS
    with contextlib.suppress(FileNotFoundError):
        (run / _ABORT).touch(mode=0o600)
    while progress(run) is not None:
        if time.monotonic() >= deadline:
            raise fault(ErrorCode.OPERATION_TIMEOUT, "the job does not end", ErrorDomain.QEMU)
        time.sleep(_POLL)
    return True
