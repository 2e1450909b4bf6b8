"""The commands that move bytes: read, write and their kin."""

from __future__ import annotations

import errno
import functools
import os
import time
from typing import Final

from hostel.block.chain import rounded_length
from hostel.block.node import BlockNode
from hostel.cli.qemu_io.command import (
    MAX_REQUEST,
    BadUsage,
    Command,
    CommandError,
    Given,
    hexdump,
    length,
    report,
    require_sectors,
    size,
)
from hostel.cli.qemu_io.session import Session
from hostel.errors import BlockError, OutOfRange
from hostel.img import exercise
from hostel.units import MiB

_DEFAULT_PATTERN: Final = 0xCD
_PIECE: Final = 16 * MiB


def _verify(given: Given, data: bytearray, offset: int) -> None:
    """Compare what was read with the pattern of ``-P``."""
    pattern = given.pattern()
    if pattern is None:
        if given.has("l") or given.has("s"):
            raise BadUsage
        return
    start = given.number("s") or 0
    wanted = given.number("l")
    count = len(data) - start if wanted is None else wanted
    if data[start : start + count] != bytes([pattern]) * count:
        raise CommandError(f"Pattern verification failed at offset {offset + start}, {count} bytes")


def _check_pattern_range(given: Given, count: int) -> None:
    if given.get("P") is None and (given.has("l") or given.has("s")):
        raise BadUsage
    start, wanted = given.number("s") or 0, given.number("l")
    if start > count or (wanted is not None and start + wanted > count):
        raise CommandError("pattern verification range exceeds end of read data")


def _finish_read(session: Session, given: Given, data: bytearray, offset: int, seconds: float) -> None:
    failed: CommandError | None = None
    try:
        _verify(given, data, offset)
    except CommandError as error:
        # What was read is shown all the same.
        failed = error
        session.text(f"{error}\n")
    if not given.has("q"):
        if given.has("v"):
            session.text(hexdump(data, offset))
        session.text(report("read", offset, len(data), seconds, parsable=given.has("C")))
    if failed is not None:
        raise CommandError("")


def read(session: Session, given: Given) -> None:
    """Read a range."""
    given.pattern()
    given.require(2)
    offset, count = size(given.operands[0]), length(given.operands[1])
    _check_pattern_range(given, count)
    if count > _PIECE and not given.has("b") and not given.has("v"):
        _read_pieces(session, given, offset, count)
        return
    buffer = bytearray(count)
    node, view = session.node, memoryview(buffer)
    if given.has("b"):
        require_sectors("offset", offset)
        require_sectors("count", count)
        seconds = session.timed("read", lambda: exercise.load_vm_state(node, offset, view))
    else:
        seconds = session.timed("read", lambda: read_data(node, offset, view))
    _finish_read(session, given, buffer, offset, seconds)


def _read_pieces(session: Session, given: Given, offset: int, count: int) -> None:
    """Read and look at a large range piece by piece: memory holds one of them at a time."""
    pattern = given.pattern()
    if pattern is None and (given.has("l") or given.has("s")):
        raise BadUsage
    skipped, wanted = given.number("s") or 0, given.number("l")
    stop = count if wanted is None else skipped + wanted
    session.timed("read", lambda: require_inside(session.node, offset, count))
    buffer = bytearray(_PIECE)
    seconds, fits = 0.0, True
    for start in range(0, count, _PIECE):
        view = memoryview(buffer)[: min(_PIECE, count - start)]
        seconds += session.timed("read", functools.partial(session.node.pread, offset + start, view))
        low, high = max(skipped - start, 0), min(stop - start, len(view))
        if pattern is not None and low < high:
            fits = fits and buffer.count(pattern, low, high) == high - low
    if not fits:
        session.text(f"Pattern verification failed at offset {offset + skipped}, {stop - skipped} bytes\n")
    if not given.has("q"):
        session.text(report("read", offset, count, seconds, parsable=given.has("C")))
    if not fits:
        raise CommandError("")


def vector(words: list[str]) -> int:
    """The sum of several lengths."""
    total = 0
    for word in words:
        value = size(word)
        if value > MAX_REQUEST:
            raise CommandError(f"Argument '{word}' exceeds maximum size {MAX_REQUEST}")
        total += value
        if total > MAX_REQUEST:
            raise CommandError(f"The total number of bytes exceed the maximum size {MAX_REQUEST}")
    return total


def _readv(session: Session, given: Given) -> None:
    given.pattern()
    if len(given.operands) < 2:
        raise BadUsage
    offset, count = size(given.operands[0]), vector(given.operands[1:])
    buffer = bytearray(count)
    seconds = session.timed("readv", lambda: read_data(session.node, offset, memoryview(buffer)))
    _finish_read(session, given, buffer, offset, seconds)


def payload(session: Session, given: Given, count: int) -> bytes:
    """What ``-P`` or ``-s`` says is written."""
    name = given.get("s")
    if name is None:
        pattern = given.pattern(_DEFAULT_PATTERN)
        assert pattern is not None
        return bytes([pattern]) * count
    try:
        with open(name, "rb") as stream:
            content = stream.read(count)
    except OSError as error:
        session.output.diagnostic(f"{name}: {error.strerror}")
        raise CommandError("") from None
    if not content:
        session.output.diagnostic(f"{name}: file is empty")
        raise CommandError("")
    return (content * (count // len(content) + 1))[:count]


def _check_write(given: Given) -> None:
    if given.has("b") and given.has("z"):
        raise CommandError("-b and -z cannot be specified at the same time")
    if given.has("f") and (given.has("b") or given.has("c")):
        raise CommandError("-f and -b or -c cannot be specified at the same time")
    for letter in "nu":
        if given.has(letter) and not given.has("z"):
            raise CommandError(f"-{letter} requires -z to be specified")
    if sum(map(given.has, "zPs")) > 1:
        raise CommandError("Only one of -z, -P, and -s can be specified at the same time")


def write(session: Session, given: Given) -> None:
    """Write a range."""
    given.pattern()
    given.require(2)
    _check_write(given)
    offset = size(given.operands[0])
    count = size(given.operands[1]) if given.has("n") else length(given.operands[1], hint=" without -n")
    if given.has("b") or given.has("c"):
        require_sectors("offset", offset)
        require_sectors("count", count)
    node = session.node
    if given.has("z"):
        require_unregistered(given)
        seconds = session.timed("write", lambda: zero(node, offset, count, given))
    else:
        data = payload(session, given, count)
        seconds = session.timed("write", lambda: write_data(node, offset, data, given))
    if not given.has("q"):
        session.text(report("wrote", offset, count, seconds, parsable=given.has("C")))


def require_unregistered(given: Given) -> None:
    """Refuse ``-r`` of 8.0 where there is no buffer; elsewhere it decides nothing: none needs it."""
    if given.has("r"):
        raise CommandError("cannot combine zero write with registered I/O buffer")


def require_inside(node: BlockNode, offset: int, count: int) -> None:
    """Refuse what lies beyond a disk's last sector: a file alone would read as zeroes there, or grow.

    Raises:
        OutOfRange: it does.
    """
    if offset + count > rounded_length(node):
        raise OutOfRange(f"{count} bytes at offset {offset} are outside '{node.filename}'")


def read_data(node: BlockNode, offset: int, view: memoryview) -> None:
    """Read a part of the disk."""
    require_inside(node, offset, len(view))
    node.pread(offset, view)


def zero(node: BlockNode, offset: int, count: int, given: Given) -> None:
    """Write zeroes; where ``-n`` is given, only if that is not known to take as long as writing."""
    require_inside(node, offset, count)
    if given.has("n") and not node.zeroes_fast(offset, count, unmap=given.has("u")):
        raise BlockError("zeroing would take as long as writing", errno=errno.ENOTSUP)
    node.write_zeroes(offset, count, unmap=given.has("u"))
    if given.has("f"):
        node.flush()


def write_data(node: BlockNode, offset: int, data: bytes, given: Given) -> None:
    """Write bytes: to the machine state, which is not compressed, or to the disk, compressed or not."""
    if given.has("b"):
        exercise.save_vm_state(node, offset, data)
        return
    require_inside(node, offset, len(data))
    if given.has("c"):
        exercise.write_compressed(node, offset, data)
        return
    node.pwrite(offset, data)
    if given.has("f"):
        node.flush()


def _writev(session: Session, given: Given) -> None:
    given.pattern()
    if len(given.operands) < 2:
        raise BadUsage
    offset, count = size(given.operands[0]), vector(given.operands[1:])
    data = payload(session, given, count)
    seconds = session.timed("writev", lambda: write_data(session.node, offset, data, given))
    if not given.has("q"):
        session.text(report("wrote", offset, count, seconds, parsable=given.has("C")))


def _flush(session: Session, given: Given) -> None:
    try:
        session.timed("flush", session.node.flush)
    except CommandError as error:
        # The real tool says nothing at all.
        session.output.error(str(error))
        raise CommandError("") from None


def _discard(session: Session, given: Given) -> None:
    given.require(2)
    offset, count = size(given.operands[0]), length(given.operands[1])
    seconds = session.timed("discard", lambda: _discard_data(session.node, offset, count))
    if not given.has("q"):
        session.text(report("discard", offset, count, seconds, parsable=given.has("C")))


def _discard_data(node: BlockNode, offset: int, count: int) -> None:
    require_inside(node, offset, count)
    node.discard(offset, count)


def _sleep(session: Session, given: Given) -> None:
    try:
        milliseconds = int(given.operands[0], 0)
    except ValueError:
        milliseconds = -1
    if milliseconds < 0:
        raise CommandError(f"{given.operands[0]} is not a valid number")
    session.outstanding.settle()
    time.sleep(milliseconds / 1000)


def _abort(session: Session, given: Given) -> None:
    session.flush()
    os.abort()


def _sigraise(session: Session, given: Given) -> None:
    number = size(given.operands[0])
    if number > 64:
        raise CommandError(f"signal argument '{given.operands[0]}' is too large to be a valid signal")
    session.flush()
    os.kill(os.getpid(), number)


COMMANDS: Final = (
    Command("read", "r", read, "reads a number of bytes at a specified offset", "bCl:pP:qrs:v", (2, -1),
            "[-abCqv] [-P pattern [-s off] [-l len]] off len", sizes="ls"),
    Command("readv", "", _readv, "reads a number of bytes at a specified offset", "CP:qrv", (2, -1),
            "[-Cqv] [-P pattern] off len [len..]"),
    Command("write", "w", write, "writes a number of bytes at a specified offset", "bcCfnpP:qrs:uz", (2, -1),
            "[-bcCfnquz] [-P pattern | -s source_file] off len", writes=True),
    Command("writev", "", _writev, "writes a number of bytes at a specified offset", "CfqrP:", (2, -1),
            "[-Cfq] [-P pattern] off len [len..]", writes=True),
    Command("flush", "f", _flush, "flush all in-core file state to disk"),
    Command("discard", "d", _discard, "discards a number of bytes at a specified offset", "Cq", (2, -1),
            "[-Cq] off len", writes=True),
    Command("sleep", "", _sleep, "waits for the given value in milliseconds", "", (1, 1), None, False, True),
    Command("abort", "", _abort, "simulate a program crash using abort(3)", needs_image=False),
    Command("sigraise", "", _sigraise, "raises a signal", "", (1, 1), "signal", False),
)  # fmt: skip
