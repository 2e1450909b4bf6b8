"""Jobs that succeed or fail together (QEMU's ``JobTxn``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostel.block.jobs.job import Job


class JobTransaction:
    """A group of jobs: none is finalized before all are done, and where one fails all others are cancelled.

    A job that is given no group is one of its own.

    Attributes:
        lock: held while a job of the group comes to its end.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.jobs: list[Job] = []
        self.aborting = False

    def succeeded(self) -> None:
        """A job is done: where all are, finalize them, unless one of them waits for the command to."""
        if not all(job.is_done for job in self.jobs):
            return
        for job in list(self.jobs):
            job.become_pending()
        if all(job.auto_finalize for job in self.jobs):
            self.finalize()

    def finalize(self) -> None:
        """Carry out what all jobs have prepared for, or, where that fails, let all fail."""
        for job in list(self.jobs):
            if not job.prepare():
                self.abort(job)
                return
        for job in list(self.jobs):
            job.conclude()

    def abort(self, failed: Job) -> None:
        """A job has failed: cancel those that run, and conclude those that are done."""
        self.aborting = True
        for job in list(self.jobs):
            if job is not failed and not job.is_done:
                job.abandon()
        for job in list(self.jobs):
            if job.is_done:
                job.conclude()
