"""What is counted of a machine while it runs: ``<perf>``.

A counter is a file that somebody holds. libvirt's daemon holds it; here it is a process beside the machine, started
with the first event, which is asked over a socket in the directory of the run and ends with the machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import perf_event, process
from hostel.drivers.store import take_lock
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_SOCKET: Final = "perf"
_LOCK: Final = "perf.lock"
_PROGRAM: Final = "import sys; from hostel.drivers.qemu.perf import main; main(sys.argv[1:])"
_ANSWER: Final = 5.0  # seconds
_START: Final = 20.0
_LONGEST: Final = 64 << 10


def counted(run: Path) -> dict[str, int]:
    """What is counted of a run, and how much it is by now; nothing where nobody counts."""
    try:
        answer = _ask(run, {})
    except OSError:
        return {}
    return {name: int(value) for name, value in answer["values"].items()}


def change(run: Path, pid: int, log: Path, *, begin: Collection[str], end: Collection[str] = ()) -> None:
    """Begin to count events, and end it of others; where one cannot be counted none is begun.

    Args:
        run: the directory of the run.
        pid: its QEMU.
        log: where the counting process says what goes wrong with it.
        begin: names of events.
        end: names of events.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the kernel does not count one; ``ARGUMENT_UNSUPPORTED``: no processor here does.
    """
    for name in begin:
        if not perf_event.is_here(name):
            what = f"unable to enable host cpu perf event for {name}"
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.PERF)
    try:
        answer = _told(run, pid, log, {"begin": list(begin), "end": list(end)}, is_needed=bool(begin))
    except (OSError, subprocess.SubprocessError) as error:
        reason = error if isinstance(error, OSError) else OSError(str(error))
        raise system_fault(reason, "cannot count events", ErrorDomain.PERF) from error
    if "failed" in answer:
        raise _refusal(str(answer["failed"]), int(answer["errno"]))


def _refusal(name: str, code: int) -> VirtError:
    reason, level = os.strerror(code), perf_event.paranoia()
    if code == errno.EACCES and level is not None:
        reason += f"; kernel.perf_event_paranoid is {level}, which lets only root count what the kernel does"
    return system_fault(OSError(code, reason), f"unable to open host cpu perf event for {name}", ErrorDomain.PERF)


def _told(run: Path, pid: int, log: Path, request: dict[str, Any], *, is_needed: bool) -> dict[str, Any]:
    try:
        return _ask(run, request)
    except (FileNotFoundError, ConnectionError):
        if not is_needed:
            return {}
    process.detach([sys.executable, "-P", "-c", _PROGRAM, str(run), str(pid)], log)
    until = time.monotonic() + _START
    while True:
        try:
            return _ask(run, request)
        except (FileNotFoundError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _ask(run: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the counting process of a run.

    Raises:
        OSError: there is none, or it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(_ANSWER)
        connected.connect(str(run / _SOCKET))
        connected.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(_line(connected) or "{}")
    if "values" not in answer:
        raise ConnectionError("the process that counts events has ended")
    return dict(answer)


def _line(connected: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\n") and len(read) < _LONGEST:
        piece = connected.recv(4096)
        if not piece:
            break
        read += piece
    return read


class _Counting:
    """The process that counts."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._counters: dict[str, perf_event.Counter] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin and end counting, and say what there is."""
        begun: list[str] = []
        for name in request.get("begin", ()):
            if name in self._counters:
                continue
            try:
                self._counters[name] = perf_event.Counter(name, self._pid)
            except OSError as error:
                self._end(begun)
                return {"failed": name, "errno": error.errno, "values": {}}
            begun.append(name)
        self._end(request.get("end", ()))
        return {"values": {name: counter.read() for name, counter in self._counters.items()}}

    def _end(self, names: Sequence[str]) -> None:
        for name in names:
            if (counter := self._counters.pop(name, None)) is not None:
                counter.close()


def serve(run: Path, pid: int) -> None:
    """Count until the machine of this run is gone."""
    try:
        machine = os.pidfd_open(pid)
        lock = take_lock(run / _LOCK)
    except OSError:
        return  # it is gone
    if lock is None:
        return  # it has one
    counting = _Counting(pid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        (run / _SOCKET).unlink(missing_ok=True)
        listening.bind(str(run / _SOCKET))
        listening.listen(8)
        while machine not in select.select([listening.fileno(), machine], [], [])[0]:
            connected = listening.accept()[0]
            with connected, contextlib.suppress(OSError, ValueError):
                connected.settimeout(_ANSWER)
                connected.sendall(json.dumps(counting.answer(json.loads(_line(connected)))).encode() + b"\n")


def main(words: Sequence[str]) -> None:
    """Count what the words say: the directory of a run, and its QEMU."""
    run, pid = words
    serve(Path(run), int(pid))
