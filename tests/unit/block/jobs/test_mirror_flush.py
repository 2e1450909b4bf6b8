"""What the guest has had synced is synced in the disk that takes over: no moment lies between the two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostel.block.driver import Threading
from hostel.block.jobs.mirror import CopyMode, MirrorJob, MirrorSettings
from hostel.block.node import BlockNode
from support import jobs
from support.jobs import KIB
from support.memory import Kind, LoggedDriver


class Watched(LoggedDriver):
    """A target that lets the guest go on once it was synced."""

    threading = Threading.PARALLEL
    meanwhile: Callable[[], None] | None = None

    def flush(self) -> None:
        super().flush()
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


@pytest.mark.parametrize("mode", list(CopyMode))
@pytest.mark.parametrize("takes_over", [True, False])
def test_nothing_that_was_synced_is_lost_with_the_source(mode: CopyMode, takes_over: bool) -> None:
    driver = Watched(bytes(256 * KIB))
    source = BlockNode(LoggedDriver(bytes(256 * KIB)), "source", read_only=False)
    target = BlockNode(driver, "target", read_only=False)
    job = MirrorJob(jobs.settings(), source, target, MirrorSettings(copy_mode=mode))
    job.start()
    jobs.step(job, lambda: job.info()["ready"])
    written = []

    def guest() -> None:
        if not job.is_done:
            driver.meanwhile = guest
            return
        source.pwrite(64 * KIB, b"\x5a" * 4 * KIB)
        source.flush()
        written.append(job.status)

    driver.meanwhile = guest
    if takes_over:
        job.complete()
    else:
        job.cancel()
    jobs.step(job, lambda: job.is_over)

    assert job.error is None
    assert written
    kinds = [entry.kind for entry in driver.log]
    assert Kind.FLUSH in kinds[max(at for at, kind in enumerate(kinds) if kind is Kind.WRITE) :]
    assert target.read(64 * KIB, 4 * KIB) == b"\x5a" * 4 * KIB
    source.close()
    target.close()
