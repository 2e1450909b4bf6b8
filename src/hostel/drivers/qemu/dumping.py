"""A machine's memory as a file for debuggers, and how fast it changes.

A dump is recorded in the machine's state before its CPUs are stopped. Who finds the record after a crash waits until
QEMU writes no more, removes the file unless it is recorded to be whole, and lets the CPUs run on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef, PausedReason, Progress, RunningReason, ShutoffReason
from hostel.drivers.base.dumping import DirtyRateMode, DumpFlag, DumpFormat
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import failure, process, savefile
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import failed, invalid
from hostel.drivers.qemu.opening import open_named
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.saving import DUMP, migrate, wait_for_migration
from hostel.drivers.qemu.status import DUMPED, Ending
from hostel.drivers.together import check_together
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.features import ring_size

_FORMATS: Final = {
    DumpFormat.RAW: "elf", DumpFormat.KDUMP_ZLIB: "kdump-zlib", DumpFormat.KDUMP_LZO: "kdump-lzo",
    DumpFormat.KDUMP_SNAPPY: "kdump-snappy", DumpFormat.WIN_DMP: "win-dmp",
}  # fmt: skip
_MODES: Final = {
    DirtyRateMode.PAGE_SAMPLING: "page-sampling", DirtyRateMode.DIRTY_BITMAP: "dirty-bitmap",
    DirtyRateMode.DIRTY_RING: "dirty-ring",
}  # fmt: skip
_SECONDS: Final = (1, 60)  # that a measurement may last
_POLL: Final = 0.05  # seconds
_STALLED: Final = 120.0  # seconds without a byte of progress
_TOLD: Final = 2.0  # seconds in which a failure is told
_FILE: Final = "hostel-dump"


class DumpCalls(Calls):
    """Dumps; see :mod:`hostel.drivers.base.dumping`."""

    def domain_core_dump_with_format(
        self,
        domain: DomainRef,
        to: str,
        format: int,
        flags: DumpFlag = DumpFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write memory, and with ``CRASH`` end the machine, with ``RESET`` reset it."""
        path = Path(to)
        _check(path, format, flags)
        with self._running(domain) as machine:
            if machine.status.jobs and not flags & DumpFlag.MEMORY_ONLY:
                raise invalid("domain has active block job; end it with blockjob --abort or --pivot")
            name = _FORMATS[DumpFormat(format)]
            if name not in machine.ask("query-dump-guest-memory-capability")["formats"]:
                what = f"unsupported dumpformat '{name}' for this QEMU binary"
                raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
            self._dump(machine, path, name, flags, progress)

    def _dump(self, machine: Running, path: Path, format: str, flags: DumpFlag, progress: Progress | None) -> None:
        savefile.refuse_image(path)
        was_running = machine.runs()
        machine.save(dump=str(path), resumes=was_running)
        try:
            if was_running and not flags & DumpFlag.LIVE:
                machine.save(paused=int(PausedReason.DUMP))
                holding.stop(machine)
            write_dump(machine, path, format, flags, progress)
            machine.save(dump=DUMPED)
        except BaseException:
            settle_dump(machine)
            raise
        if flags & DumpFlag.CRASH:
            self._end_crashed(machine)
            return
        if flags & DumpFlag.RESET:
            machine.ask("system_reset")
        _go_on(machine)

    def _end_crashed(self, machine: Running) -> None:
        """End a machine that is dumped, as if it had crashed."""
        status = machine.status
        machine.save(ending="crashed")
        machine.close()
        if not process.end(status.pid, status.started):
            machine.save(ending="", dump="")
            raise failed(f"QEMU, process {status.pid}, does not end")
        process.exit_status(machine.run, 2)
        machine.forget(Ending(ShutoffReason.CRASHED, "dumped"))

    def domain_start_dirty_rate_calc(
        self, domain: DomainRef, seconds: int, flags: DirtyRateMode = DirtyRateMode.PAGE_SAMPLING
    ) -> None:
        """Have QEMU measure."""
        least, most = _SECONDS
        if not least <= seconds <= most:
            what = f"seconds={seconds} is invalid, please choose value within [{least}, {most}]."
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
        with self._running(domain) as machine:
            mode = flags & DirtyRateMode.DIRTY_BITMAP or flags & DirtyRateMode.DIRTY_RING
            if mode == DirtyRateMode.DIRTY_RING and ring_size(machine.domain.features) is None:
                what = "dirty-ring calculation mode requires dirty-ring feature enabled."
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            machine.ask("calc-dirty-rate", **{"calc-time": seconds, "mode": _MODES[mode]})


def _check(path: Path, format: int, flags: DumpFlag) -> None:
    check_together(flags)
    if format not in _FORMATS:
        raise fault(ErrorCode.INVALID_ARG, f"unknown dumpformat '{format}'", ErrorDomain.QEMU)
    if format != DumpFormat.RAW and not flags & DumpFlag.MEMORY_ONLY:
        what = "kdump-compressed format is only supported with memory-only dump"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    if not path.is_absolute():
        raise fault(ErrorCode.INVALID_ARG, f"dump file '{path}' must be an absolute path", ErrorDomain.QEMU)


def write_dump(machine: Running, path: Path, format: str, flags: DumpFlag, progress: Progress | None = None) -> None:
    """Have QEMU write its memory to a file, which is whole afterwards.

    Raises:
        VirtError: the host or QEMU refused.
    """
    try:
        descriptor = open_named(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with open(descriptor, "wb") as file:
            if flags & DumpFlag.MEMORY_ONLY:
                with machine.lent(file.fileno()):
                    _dump_memory(machine, file.fileno(), format, progress)
            else:
                with savefile.packed(file, _way(machine)) as target:
                    migrate(machine, target, DUMP, progress)
            os.fsync(file.fileno())
            if flags & DumpFlag.BYPASS_CACHE:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise system_fault(error, f"Failed to create file '{path}'", ErrorDomain.QEMU, path=str(path)) from error


def _way(machine: Running) -> savefile.Packing:
    """How a dump is packed; one that is not packed is better than none."""
    try:
        return savefile.packing(machine.settings.formats.dump, "dump")
    except VirtError as error:
        process.write_log(machine.machines.log(machine.name), [f"a dump is not packed: {error.message}"])
        return savefile.UNPACKED


def _dump_memory(machine: Running, descriptor: int, format: str, progress: Progress | None) -> None:
    try:
        machine.qmp.pass_file(_FILE, descriptor)
    except QmpError as error:
        raise machine.translated(error, "getfd") from error
    # ELF is what QEMU writes unless it is told otherwise.
    named = {} if format == _FORMATS[DumpFormat.RAW] else {"format": format}
    machine.ask("dump-guest-memory", paging=False, protocol=f"fd:{_FILE}", detach=True, **named)
    done, deadline = -1, time.monotonic() + _STALLED
    while (found := machine.ask("query-dump"))["status"] == "active":
        if progress is not None and found.get("total"):
            progress(int(found["completed"]), int(found["total"]))
        if found.get("completed", 0) != done:
            done, deadline = found.get("completed", 0), time.monotonic() + _STALLED
        if time.monotonic() >= deadline:
            raise fault(ErrorCode.OPERATION_TIMEOUT, "QEMU writes no more of its memory", ErrorDomain.QEMU)
        time.sleep(_POLL)
    if found["status"] != "completed":
        event = machine.qmp.wait(_TOLD, "DUMP_COMPLETED")
        why = (event["data"].get("error") if event is not None else None) or "it does not say why"
        raise failed(f"QEMU did not write its memory: {why}{failure.behind_writing(why, descriptor)}")


def settle_dump(machine: Running) -> None:
    """Bring a machine that was being dumped back to where it was, without a file unless that is whole.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``: QEMU still writes.
    """
    if machine.status.dump != DUMPED:
        _take_back(machine)
    _go_on(machine)


def _take_back(machine: Running) -> None:
    machine.attempt("migrate_cancel")
    wait_for_migration(machine)
    deadline = time.monotonic() + _STALLED
    while (machine.attempt("query-dump") or {}).get("status") == "active":
        if time.monotonic() >= deadline:
            what = f"QEMU still writes its memory to '{machine.status.dump}'"
            raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU)
        time.sleep(_POLL)
    savefile.discard(Path(machine.status.dump))


def _go_on(machine: Running) -> None:
    if not machine.status.resumes:
        machine.save(dump="")
        return
    if not holding.go_on(machine, RunningReason.UNPAUSED):
        machine.save(dump="")
        return
    machine.save(dump="", paused=0)
