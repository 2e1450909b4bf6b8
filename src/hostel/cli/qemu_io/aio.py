"""Commands for requests that take their time, and for stopping them on their way: ``aio_*`` and breakpoints."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from hostel.cli.qemu_io.command import INJECT, BadUsage, Command, CommandError, Given, hexdump, report, size
from hostel.cli.qemu_io.outstanding import Debugger
from hostel.cli.qemu_io.request import payload, read_data, require_unregistered, vector, write_data, zero
from hostel.cli.qemu_io.session import Session, timed


def _start(session: Session, request: Callable[[], str]) -> None:
    """Start a request; that it fails is printed, and does not make the command fail."""

    def run() -> str:
        try:
            return request()
        except CommandError as error:
            return f"{error}\n"

    session.outstanding.start(run)


def _aio_read(session: Session, given: Given) -> None:
    """Start reading."""
    if given.has(INJECT):
        session.text("injecting invalid read request\n")
        return
    pattern = given.pattern()
    if len(given.operands) < 2:
        raise BadUsage
    offset, count = size(given.operands[0]), vector(given.operands[1:])
    node = session.node

    def request() -> str:
        buffer = bytearray(count)
        seconds = timed("readv", lambda: read_data(node, offset, memoryview(buffer)))
        text = ""
        if pattern is not None and buffer != bytes([pattern]) * count:
            text = f"Pattern verification failed at offset {offset}, {count} bytes\n"
        if given.has("q"):
            return text
        if given.has("v"):
            text += hexdump(buffer, offset)
        return text + report("read", offset, count, seconds, parsable=given.has("C"))

    _start(session, request)


def _aio_write(session: Session, given: Given) -> None:
    """Start writing."""
    if given.has(INJECT):
        session.text("injecting invalid write request\n")
        return
    given.pattern()
    if len(given.operands) < 2:
        raise BadUsage
    if given.has("z") and len(given.operands) != 2:
        raise CommandError("-z supports only a single length parameter")
    if given.has("u") and not given.has("z"):
        raise CommandError("-u requires -z to be specified")
    offset = size(given.operands[0])
    count = size(given.operands[1]) if given.has("z") else vector(given.operands[1:])
    if given.has("z"):
        require_unregistered(given)
    data = b"" if given.has("z") else payload(session, given, count)
    node = session.node

    def request() -> str:
        if given.has("z"):
            seconds = timed("aio_write", lambda: zero(node, offset, count, given))
        else:
            seconds = timed("aio_write", lambda: write_data(node, offset, data, given))
        return "" if given.has("q") else report("wrote", offset, count, seconds, parsable=given.has("C"))

    _start(session, request)


def _aio_flush(session: Session, given: Given) -> None:
    """Wait for all requests."""
    session.outstanding.wait()


def _debugger(session: Session, failure: str) -> Debugger:
    debugger = session.outstanding.debugger
    if debugger is None:
        raise CommandError(f"{failure}: {os.strerror(errno.ENOTSUP)}")
    return debugger


def _call(session: Session, failure: str, call: Callable[[Debugger], None]) -> None:
    debugger = _debugger(session, failure)
    try:
        call(debugger)
    except FileNotFoundError as error:
        raise CommandError(f"{failure}: {error.strerror}") from None


def _break(session: Session, given: Given) -> None:
    event, tag = given.operands
    _call(session, "Could not set breakpoint", lambda debugger: debugger.set_breakpoint(event, tag))


def _remove_break(session: Session, given: Given) -> None:
    tag = given.operands[0]
    _call(session, f"Could not remove breakpoint {tag}", lambda debugger: debugger.remove_breakpoint(tag))
    session.outstanding.let_go()


def _resume(session: Session, given: Given) -> None:
    tag = given.operands[0]
    _call(session, "Could not resume request", lambda debugger: debugger.resume(tag))
    session.outstanding.let_go()


def _wait_break(session: Session, given: Given) -> None:
    session.outstanding.wait_for_break(given.operands[0])


COMMANDS: Final = (
    Command("aio_read", "", _aio_read, "asynchronously reads a number of bytes", "CP:iqrv", (2, -1),
            "[-Ciqv] [-P pattern] off len [len..]", patient=True),
    Command("aio_write", "", _aio_write, "asynchronously writes a number of bytes", "CfiP:qruz", (2, -1),
            "[-Cfiquz] [-P pattern] off len [len..]", patient=True, writes=True),
    Command("aio_flush", "", _aio_flush, "completes all outstanding aio requests", patient=True),
    Command("break", "", _break, "sets a breakpoint on event and tags the stopped request as tag", "", (2, 2),
            "event tag", patient=True),
    Command("remove_break", "", _remove_break, "remove a breakpoint by tag", "", (1, 1), "tag", patient=True),
    Command("resume", "", _resume, "resumes the request tagged as tag", "", (1, 1), "tag", patient=True),
    Command("wait_break", "", _wait_break, "waits for the suspension of a request", "", (1, 1), "tag", patient=True),
)  # fmt: skip
