"""The jobs ``create`` and ``amend``: an image is laid out, or given other keys, while others are served."""

from __future__ import annotations

from collections.abc import Callable

from hostel.block.jobs.job import Job, JobFailed, JobSettings
from hostel.errors import BlockError


class CreateJob(Job):
    """Lays an image out, in one step; it is no block job, since it uses no node that is there for others.

    Args:
        settings: see :class:`hostel.block.jobs.job.JobSettings`.
        work: does it.
        release: gives up what was held for it; called once, whatever comes of it.
    """

    type = "create"
    is_block_job = False

    def __init__(self, settings: JobSettings, work: Callable[[], None], release: Callable[[], None]) -> None:
        super().__init__(settings, ())
        self.length = 1
        self._act = work
        self._release = release

    def _work(self) -> float | None:
        try:
            self._act()
        except BlockError as error:
            raise JobFailed(str(error), errno=error.errno, hint=error.hint) from error
        finally:
            self.offset = 1
        return None

    def _clean(self) -> None:
        self._release()


class AmendJob(CreateJob):
    """Changes what an image was created with."""

    type = "amend"
