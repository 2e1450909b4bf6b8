"""Jobs by their ids."""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, ValuesView
from typing import Final

from hostel.block.jobs.job import Job
from hostel.block.jobs.state import JobStatus
from hostel.errors import BlockError

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


class JobTable(Mapping[str, Job]):
    """The jobs of a process, the oldest first; a job that was dismissed is no longer there. Any thread may ask."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def __getitem__(self, identifier: str) -> Job:
        return self._present()[identifier]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def values(self) -> ValuesView[Job]:
        """The jobs of this moment: one that Mapping found by its name could have gone in between."""
        return self._present().values()

    def _present(self) -> dict[str, Job]:
        with self._lock:
            present = {name: job for name, job in self._jobs.items() if job.status is not JobStatus.NULL}
            self._jobs = {name: job for name, job in self._jobs.items() if name in present or not job.is_told()}
            return present

    def wait_told(self, timeout: float) -> bool:
        """Wait until those who listen have heard of all that can be seen of jobs, also that one is no longer there.

        Whether they have within so many seconds.
        """
        until = time.monotonic() + timeout
        with self._lock:
            jobs = list(self._jobs.values())
        return all(job.is_told(max(0.0, until - time.monotonic())) for job in jobs)

    def require_free(self, identifier: str) -> None:
        """Refuse an id that no job can have.

        Raises:
            BlockError: with QEMU's text.
        """
        if not _IDENTIFIER.fullmatch(identifier):
            raise BlockError(f"Invalid job ID '{identifier}'", errno=errno.EINVAL)
        if identifier in self:
            raise BlockError(f"Job ID '{identifier}' already in use", errno=errno.EEXIST)

    def add(self, make: Callable[[], Job], identifier: str) -> Job:
        """Make a job of a free id.

        Raises:
            BlockError: the id is taken or wrong, or the job cannot be made.
        """
        self.require_free(identifier)
        job = make()
        with self._lock:
            self._jobs[identifier] = job
        return job

    def end(self, job: Job, seconds: float) -> None:
        """Cancel a job and wait for its end, for so many seconds at most.

        Raises:
            BlockError: it does not come to its end.
        """
        with contextlib.suppress(BlockError):  # it has come to its end, or is about to
            job.cancel(force=True)
        if not job.join(seconds):
            raise BlockError(f"Job '{job.id}' does not come to its end", errno=errno.ETIMEDOUT)
