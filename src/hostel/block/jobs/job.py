"""What all jobs have in common: their states, commands, progress, speed, errors, and how they end.

A job is advanced step by step, by a thread of its own (:meth:`Job.launch`) or by whoever wants to know what happens
between two steps. A step copies at most a few megabytes and waits for nothing but I/O.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from hostel.block import notice
from hostel.block.jobs.event import JobEvent, Listener, event
from hostel.block.jobs.pace import Pace
from hostel.block.jobs.policy import Action, OnError, SourceError, TargetError, action
from hostel.block.jobs.state import ACCEPTED, TRANSITIONS, JobStatus, JobVerb
from hostel.block.jobs.transaction import JobTransaction
from hostel.block.node import BlockNode
from hostel.block.powers import lose_patience
from hostel.errors import BlockError

SLICE: Final = 0.1  # seconds after which a job that has nothing to do looks again
_MAX_SPEED: Final = 2**63 - 1


class JobFailed(BlockError):
    """A job cannot go on; the message is told as it is, not the error number's text."""


class JobSettings(NamedTuple):
    """What every job can be told at its start.

    Attributes:
        speed: bytes a second; 0 for no limit.
        auto_finalize: change the graph when all is copied; else wait for the command.
        auto_dismiss: be gone when concluded; else wait for the command.
        on_source_error: what to do when a read fails.
        on_target_error: what to do when a write fails.
        transaction: the group; None for one of its own.
        listener: who is told what happens.
    """

    id: str
    speed: int = 0
    auto_finalize: bool = True
    auto_dismiss: bool = True
    on_source_error: OnError = OnError.REPORT
    on_target_error: OnError = OnError.REPORT
    transaction: JobTransaction | None = None
    listener: Listener | None = None


class Job(abc.ABC):
    """A job.

    Args:
        settings: see :class:`JobSettings`.
        nodes: those with which nothing else may be done meanwhile.
        shared: likewise, jobs of the same type excepted.

    Attributes:
        type: QMP's name.
        error: why it failed, as QMP says it; None while it has not.
        cause: the exception behind ``error``, with what the driver found out.
        offset: bytes done.
        length: bytes in all, as far as is known; it may grow.
        io_status: ``ok``, ``failed`` or ``nospace``.

    Raises:
        BlockError: another job uses one of the nodes, or the speed is negative.
    """

    type: ClassVar[str]
    is_block_job: ClassVar[bool] = True  # known to the older commands, and told of by their events

    def __init__(self, settings: JobSettings, nodes: Sequence[BlockNode], *, shared: Sequence[BlockNode] = ()) -> None:
        self.id = settings.id
        self.auto_finalize = settings.auto_finalize
        self.auto_dismiss = settings.auto_dismiss
        self.status = JobStatus.UNDEFINED
        self.error: str | None = None
        self.cause: OSError | None = None
        self.offset = 0
        self.length = 0
        self.io_status = "ok"
        self.is_done = False
        self._settings = settings
        self._transaction = settings.transaction or JobTransaction()
        self._blocker = f"block device is in use by block job: {self.type}"
        self._cancelled = False
        self._soft_cancelled = False
        self._completing = False
        self._taken_back = False
        self._user_paused = False
        self._busy = False
        self._awaited: set[JobVerb] = set()  # whose callers wait for the end
        self._untold: list[JobEvent] | None = None
        self._telling = threading.RLock()  # from a change until it is told
        self._pace = Pace(0)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._set_pace(settings.speed)
        self._nodes = self._block(nodes, shared)
        self._transaction.jobs.append(self)
        self._become(JobStatus.CREATED)

    # ---- what each type of job does

    def _attach(self) -> None:
        """Change the graph as the job needs it, before its first step."""

    @abc.abstractmethod
    def _work(self) -> float | None:
        """Do one step; the seconds until the next is worth while, or None when all is done.

        Raises:
            SourceError: a read failed.
            TargetError: a write failed.
            OSError: the job cannot go on.
        """

    def _prepare(self) -> None:
        """Do what may fail of the job's end, such as to write a header.

        Raises:
            OSError: the job fails.
        """

    def _commit(self) -> None:
        """Change the graph: the job has succeeded."""

    def _abort(self) -> None:
        """Leave everything as it was: the job has failed or was cancelled."""

    def _clean(self) -> None:
        """Take out of the graph what the job has put in; after either end, and after a failure to attach."""

    @property
    def can_complete(self) -> bool:
        """Whether the job is of a type that becomes ready and waits to be completed."""
        return False

    # ---- running

    def start(self) -> None:
        """Attach the job, and let it run; its next steps are made by :meth:`advance`.

        Raises:
            OSError: it could not be attached; it is gone, and the graph is as it was.
        """
        self.attach()
        self.begin()

    def attach(self) -> None:
        """Change the graph as the job needs it.

        Raises:
            OSError: see :meth:`start`.
        """
        try:
            self._attach()
        except BaseException:
            with contextlib.suppress(OSError):
                self._clean()
            self.discard()
            raise

    def begin(self) -> None:
        """Let an attached job run."""
        self._become(JobStatus.RUNNING)

    def take_back(self) -> None:
        """End a job that was attached and does not run: nobody has to dismiss it, or hears that it was cancelled."""
        self._taken_back = self.auto_dismiss = True
        self.abandon()
        self.advance()

    def discard(self) -> None:
        """Give up a job that was never started."""
        self._unblock()
        self._transaction.jobs.remove(self)
        self._become(JobStatus.NULL)

    def launch(self) -> None:
        """Start the job and advance it in a thread of its own."""
        self.start()
        self.follow()

    def follow(self) -> None:
        """Advance a started job in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=f"job-{self.id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (pause := self.advance()) is not None:
            if pause:
                with self._wake:
                    if not (self._cancelled or self._soft_cancelled or self._completing):
                        self._wake.wait(min(pause, 1.0))
                    else:
                        self._wake.wait(min(pause, 0.01))

    def join(self, timeout: float) -> bool:
        """Wait for the thread, and for the job's end; False where that takes longer than ``timeout`` seconds."""
        until = time.monotonic() + timeout
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        with self._wake:
            return self._wake.wait_for(lambda: self.is_over, max(0.0, until - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether it is concluded."""
        return self.status in (JobStatus.CONCLUDED, JobStatus.NULL)

    def advance(self) -> float | None:
        """Make one step; the seconds until the next is worth while, or None when no more are to be made here."""
        if self.is_done:
            return None
        if self._cancelled:
            self._done(errno.ECANCELED, None)
            return None
        if self._user_paused:
            self._pause()
            return 1.0
        self._unpause()
        if (owed := self._pace.due()) > 0:
            return owed
        self._busy = True
        try:
            pause = self._work()
        except SourceError as failure:
            return self._failed(failure)
        except OSError as error:
            self._done(error.errno or errno.EIO, error)
            return None
        except Exception as error:
            # A mistake of ours must not leave the nodes with a job that nobody advances.
            self._done(errno.EIO, _own_mistake(error))
            return None
        finally:
            self._busy = False
        if pause is None:
            self._done(0, None)
        return pause

    def _pause(self) -> None:
        if self.status is JobStatus.RUNNING:
            self._become(JobStatus.PAUSED)
        elif self.status is JobStatus.READY:
            self._become(JobStatus.STANDBY)

    def _unpause(self) -> None:
        if self.status is JobStatus.PAUSED:
            self._become(JobStatus.RUNNING)
        elif self.status is JobStatus.STANDBY:
            self._become(JobStatus.READY)

    def _become_ready(self) -> None:
        with self._telling:
            self._become(JobStatus.READY)
            self._tell("BLOCK_JOB_READY", **self._progress())

    def _spent(self, length: int) -> None:
        """Bytes that were copied."""
        self.offset += length
        self._pace.spend(length)

    def _failed(self, failure: SourceError) -> float | None:
        """Follow the policy."""
        code = failure.cause.errno or errno.EIO
        is_write = isinstance(failure, TargetError)
        chosen = action(self._settings.on_target_error if is_write else self._settings.on_source_error, code)
        if chosen is Action.STOP:  # before it is told: who hears of it may resume the job at once
            self._user_paused = True
            self.io_status = "nospace" if code == errno.ENOSPC else "failed"
        self._tell("BLOCK_JOB_ERROR", device=self.id, operation=failure.operation, action=chosen.value)
        if chosen is Action.REPORT:
            self._done(code, failure.cause)
            return None
        if chosen is Action.STOP:
            self._pause()
        else:
            self._ignored(failure)
        return SLICE

    def _ignored(self, failure: SourceError) -> None:
        """A failure that the policy ignores; the range is tried again."""

    # ---- commands

    def pause(self) -> None:
        """Pause at the next step.

        Raises:
            BlockError: it is paused, or not in a state to be.
        """
        self._require(JobVerb.PAUSE)
        if self._user_paused:
            raise BlockError("Job is already paused", errno=errno.EPERM)
        self._user_paused = True
        self._nudge()

    def resume(self) -> None:
        """Go on.

        Raises:
            BlockError: it was not paused.
        """
        if not self._user_paused:
            raise BlockError("Can't resume a job that was not paused", errno=errno.EPERM)
        self._require(JobVerb.RESUME)
        self.io_status = "ok"
        self._user_paused = False
        self._nudge()

    def set_speed(self, speed: int) -> None:
        """Limit the job to ``speed`` bytes a second; 0 for no limit."""
        self._require(JobVerb.SET_SPEED)
        self._set_pace(speed)
        self._nudge()

    def cancel(self, *, force: bool = False) -> None:
        """Give up; of a job that is ready, without ``force``: come to an end without changing the graph."""
        self._require(JobVerb.CANCEL)
        if not force and self.can_complete and self.status in (JobStatus.READY, JobStatus.STANDBY):
            self._soft_cancelled = True
            self._user_paused = False
            self._nudge()
            return
        lose_patience(self._own_nodes())  # for one that is coming to its end, which holds the lock
        with self._alone(JobVerb.CANCEL), self._transaction.lock:
            self._require(JobVerb.CANCEL)  # it may have come to its end meanwhile
            if not self.is_done:
                self.abandon()
                if self.status is JobStatus.CREATED:
                    self._done(errno.ECANCELED, None)
                return
            self._cancelled = True
            self._settle(errno.ECANCELED, None)
            self._transaction.abort(self)

    def abandon(self) -> None:
        """Be cancelled at the next step, whatever state it is in, and wait for no server to come back for it."""
        self._cancelled = True
        self._user_paused = False
        lose_patience(self._own_nodes())
        self._nudge()

    def _own_nodes(self) -> Iterable[BlockNode]:
        """What is written for this job alone: a request that fails there when it is cancelled is nobody else's."""
        return ()

    def complete(self) -> None:
        """Come to an end, and change the graph.

        Raises:
            BlockError: it is not ready, or of a type that ends by itself.
        """
        self._require(JobVerb.COMPLETE)
        if not self.can_complete or self._cancelled or self._soft_cancelled:
            raise BlockError(f"The active block job '{self.id}' cannot be completed", errno=errno.EBUSY)
        self._completing = True
        self._nudge()

    def finalize(self) -> None:
        """Change the graph, and conclude; the other jobs of the group with it.

        Raises:
            BlockError: it is not in a state to be, or somebody else does so.
        """
        with self._alone(JobVerb.FINALIZE), self._transaction.lock:
            self._require(JobVerb.FINALIZE)
            self._transaction.finalize()

    def dismiss(self) -> None:
        """Be forgotten."""
        self._require(JobVerb.DISMISS)
        self._become(JobStatus.NULL)

    @contextlib.contextmanager
    def _alone(self, verb: JobVerb) -> Iterator[None]:
        """Let one caller at a time wait for the end: where a disk hangs, it comes no sooner for many."""
        with self._wake:
            if verb in self._awaited:
                raise BlockError(
                    f"Job '{self.id}' is at its end already, and waits for what a disk or a server does not answer",
                    errno=errno.EBUSY,
                )
            self._awaited.add(verb)
        try:
            yield
        finally:
            self._awaited.remove(verb)

    def _require(self, verb: JobVerb) -> None:
        if self.status not in ACCEPTED[verb]:
            raise BlockError(
                f"Job '{self.id}' in state '{self.status.value}' cannot accept command verb '{verb.value}'",
                errno=errno.EPERM,
            )

    def _set_pace(self, speed: int) -> None:
        if not 0 <= speed <= _MAX_SPEED:
            raise BlockError("Parameter 'speed' expects a non-negative value", errno=errno.EINVAL)
        self._pace.change(speed)

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify_all()

    # ---- the end

    def _done(self, code: int, cause: OSError | None) -> None:
        """All steps are made; ``code`` is why there are no more, 0 for success."""
        with self._transaction.lock:
            self.is_done = True
            self._unpause()
            if code or self._transaction.aborting:
                self._settle(code or errno.ECANCELED, cause)
                if self._transaction.aborting:
                    self.conclude()
                else:
                    self._transaction.abort(self)
            else:
                self._become(JobStatus.WAITING)
                self._transaction.succeeded()

    def _settle(self, code: int, cause: OSError | None) -> None:
        """The job fails, with an errno."""
        if self.error is None:
            self.error = _told(code, cause)
            self.cause = cause
        if self.status is not JobStatus.ABORTING:
            self._become(JobStatus.ABORTING)

    def become_pending(self) -> None:
        """All jobs of the group are done."""
        self._become(JobStatus.PENDING)
        if not self.auto_finalize and self.is_block_job:
            self._tell("BLOCK_JOB_PENDING", type=self.type, id=self.id)

    def prepare(self) -> bool:
        """Do what may fail of the end; whether it did not."""
        if self.error is None:
            try:
                self._prepare()
            except OSError as error:
                self._settle(error.errno or errno.EIO, error)
            except Exception as error:
                self._settle(errno.EIO, _own_mistake(error))
        return self.error is None

    def conclude(self) -> None:
        """Leave the graph, changed or as it was."""
        if self.is_over:
            return
        if self.error is None and self._transaction.aborting:
            self._cancelled = True
            self._settle(errno.ECANCELED, None)
        self._leave()
        with self._telling:
            self._tell_of_end()
        self._nudge()

    def _tell_of_end(self) -> None:
        # Who hears of the end may begin another job of this name: all is over before anything is told.
        self._untold = []
        if not self.is_block_job or self._taken_back:
            pass
        elif self._cancelled:
            self._tell("BLOCK_JOB_CANCELLED", **self._progress())
        else:
            reason = {} if self.error is None else {"error": self.error}
            self._tell("BLOCK_JOB_COMPLETED", **self._progress(), **reason)
        self._transaction.jobs.remove(self)
        self._become(JobStatus.CONCLUDED)
        if self.auto_dismiss:
            self._become(JobStatus.NULL)
        untold, self._untold = self._untold, None
        for each in untold:
            self._tell_of(each)

    def _leave(self) -> None:
        """The last changes; a failure here cannot be taken back, and is said."""
        try:
            for change in (self._commit if self.error is None else self._abort, self._clean):
                try:
                    change()
                except OSError as error:
                    self._fail_late(error)
                except Exception as error:
                    self._fail_late(_own_mistake(error))
        finally:
            self._unblock()

    def _fail_late(self, error: OSError) -> None:
        """The job fails at its last changes; where it has failed or was cancelled before, its end does not say so."""
        if self.error is None:
            self.error, self.cause = _told(error.errno or errno.EIO, error), error
        else:
            notice.tell(f"Job '{self.id}' did not end as it should: {error}")

    # ---- what others see

    def is_told(self, timeout: float = 0) -> bool:
        """Whether those who listen have heard of all that can be seen; it is waited for so many seconds."""
        if not self._telling.acquire(timeout=timeout):
            return False
        self._telling.release()
        return True

    def _measure(self) -> None:
        """Look at what others have moved on, before it is told how far the job is."""

    def _progress(self) -> dict[str, Any]:
        self._measure()
        return {
            "type": self.type,
            "device": self.id,
            "len": self.length,
            "offset": self.offset,
            "speed": self._pace.speed,
        }

    def info(self) -> dict[str, Any]:
        """What ``query-block-jobs`` says."""
        reason = {} if self.error is None else {"error": self.error}
        return {
            **self._progress(),
            "busy": self._busy,
            "paused": self._user_paused,
            "io-status": self.io_status,
            "ready": self.status in (JobStatus.READY, JobStatus.STANDBY),
            "status": self.status.value,
            "auto-finalize": self.auto_finalize,
            "auto-dismiss": self.auto_dismiss,
            **reason,
        }

    def job_info(self) -> dict[str, Any]:
        """What ``query-jobs`` says."""
        self._measure()
        reason = {} if self.error is None else {"error": self.error}
        progress = {"current-progress": self.offset, "total-progress": self.length}
        return {"id": self.id, "type": self.type, "status": self.status.value, **progress, **reason}

    # ---- helpers

    def _become(self, status: JobStatus) -> None:
        assert status in TRANSITIONS[self.status], (self.status, status)
        with self._telling:
            self.status = status
            self._tell("JOB_STATUS_CHANGE", id=self.id, status=status.value)

    def _tell(self, name: str, **data: Any) -> None:
        told = event(name, **data)
        if self._untold is not None:
            self._untold.append(told)
        else:
            self._tell_of(told)

    def _tell_of(self, told: JobEvent) -> None:
        if self._settings.listener is not None:
            self._settings.listener(told)

    def _block(self, nodes: Sequence[BlockNode], shared: Sequence[BlockNode]) -> list[BlockNode]:
        for node in shared:
            if any(reason != self._blocker for reason in node.blockers):
                node.require_unblocked()
        for node in nodes:
            node.require_unblocked()
        used = [*shared, *nodes]
        for node in used:
            node.blockers.append(self._blocker)
        return used

    def _unblock(self) -> None:
        for node in self._nodes:
            node.blockers.remove(self._blocker)
        self._nodes = []


def _told(code: int, cause: OSError | None) -> str:
    """Why a job fails, as QMP says it."""
    return cause.message if isinstance(cause, JobFailed) else os.strerror(code)


def _own_mistake(error: Exception) -> JobFailed:
    return JobFailed(f"internal error: {type(error).__name__}: {error}")
