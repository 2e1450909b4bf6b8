"""Commands about jobs that run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hostel.block.jobs.job import Job
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed
from hostel.errors import QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_PROMPT: Final = 5.0  # seconds for a job to come to its end before its command is answered: others wait for that

_Run = Callable[["Daemon", Mapping[str, Any]], Any]


def _job(daemon: Daemon, given: Mapping[str, Any]) -> Job:
    job = daemon.jobs.get(given["id"])
    if job is None:
        raise generic("Job not found")
    return job


def _block_job(daemon: Daemon, given: Mapping[str, Any], key: str = "device") -> Job:
    job = daemon.jobs.get(given[key])
    if job is None or not job.is_block_job:
        raise QmpError("DeviceNotActive", f"Block job '{given[key]}' not found")
    return job


def _end(job: Job, verb: Callable[[], None]) -> None:
    """Let a job come to its end; where a disk hangs, it does so once that goes on, with nobody waiting."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            verb()
        except Exception as error:
            failures.append(error)  # later than in time, only that the job has come to its end already

    thread = threading.Thread(target=run, name=f"end of job-{job.id}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the host has no thread left for us
        run()
    else:
        thread.join(_PROMPT)
    for failure in failures:
        raise failure


def _finalize(job: Job) -> None:
    _end(job, job.finalize)


def _cancel(daemon: Daemon, given: Mapping[str, Any]) -> None:
    job = _job(daemon, given)
    _end(job, partial(job.cancel, force=True))


def _cancel_block_job(daemon: Daemon, given: Mapping[str, Any]) -> None:
    job = _block_job(daemon, given)
    force = given.get("force", False)
    if job.info()["paused"] and not force:
        raise generic(f"The block job for device '{job.id}' is currently paused")
    _end(job, partial(job.cancel, force=force))


def _set_speed(daemon: Daemon, given: Mapping[str, Any]) -> None:
    _block_job(daemon, given).set_speed(given["speed"])


def _query(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [job.job_info() for job in daemon.jobs.values()]


def _query_block_jobs(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    return [job.info() for job in daemon.jobs.values() if job.is_block_job]


def _on_job(verb: Callable[[Job], None]) -> _Run:
    return lambda daemon, given: verb(_job(daemon, given))


def _on_block_job(verb: Callable[[Job], None], key: str = "device") -> _Run:
    return lambda daemon, given: verb(_block_job(daemon, given, key))


COMMANDS: Final = (
    Command("job-pause", _on_job(Job.pause), (needed("id"),)),
    Command("job-resume", _on_job(Job.resume), (needed("id"),)),
    Command("job-cancel", _cancel, (needed("id"),)),
    Command("job-complete", _on_job(Job.complete), (needed("id"),)),
    Command("job-dismiss", _on_job(Job.dismiss), (needed("id"),)),
    Command("job-finalize", _on_job(_finalize), (needed("id"),)),
    Command("query-jobs", _query),
    Command("query-block-jobs", _query_block_jobs),
    Command("block-job-set-speed", _set_speed, (needed("device"), needed("speed", Kind.INT))),
    Command("block-job-cancel", _cancel_block_job, (needed("device"), Parameter("force", Kind.BOOL))),
    Command("block-job-pause", _on_block_job(Job.pause), (needed("device"),)),
    Command("block-job-resume", _on_block_job(Job.resume), (needed("device"),)),
    Command("block-job-complete", _on_block_job(Job.complete), (needed("device"),)),
    Command("block-job-finalize", _on_block_job(_finalize, "id"), (needed("id"),)),
    Command("block-job-dismiss", _on_block_job(Job.dismiss, "id"), (needed("id"),)),
)
