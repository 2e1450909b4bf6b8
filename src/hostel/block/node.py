"""Block nodes: the contract between those who use images and the drivers that do the work."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeGuard

from hostel.block import forked, sizes, unclosed
from hostel.block.draining import ATTEMPT, DRAIN_TIMEOUT, insist, requests_ended
from hostel.block.driver import WRITEBACK, BlockDriver, Cache, FilterDriver, Supports
from hostel.block.extent import Extent, Status, merge
from hostel.block.gate import Gate
from hostel.block.interruption import breaks_in, is_interrupted
from hostel.block.lock import Entry, Lock, Lockable, Wall
from hostel.block.marks import Marks
from hostel.block.powers import FastZeroing, Preallocating, Preallocation, Resizable, lose_patience
from hostel.block.restraint import unrestrained
from hostel.errors import BlockError, NoSpace, OutOfRange, ReadOnly, UnsupportedFeature
from hostel.units import INT64_MAX, MiB

_ZEROES: Final = memoryview(bytes(MiB))
# Plain numbers: an operation on an enum's member takes longer than what it decides.
_GROWS, _ENDS = int(Supports.GROWS), int(Supports.ENDS)
_WRITES_ZEROES, _DISCARDS = int(Supports.ZEROES), int(Supports.DISCARD)
_numbers = itertools.count(100)
_resizable: dict[type[BlockDriver], bool] = {}

_HASTE: Final = 2.0  # seconds likewise, after an interruption: one of them may be what was interrupted
_counting: Final = threading.RLock()  # of every node's users; a signal handler may come here again
forked.in_child(_counting._at_fork_reinit)  # type: ignore[attr-defined]


def new_name() -> str:
    """A name that no node has yet."""
    return f"#block{next(_numbers)}"


class BlockNode(Lockable):
    """An open image, or a file below one.

    Every offset and length is in bytes. A range outside the node raises :class:`OutOfRange`; a write to a read-only
    node raises :class:`ReadOnly`. Nodes may be used from several threads. Close a node, or use it as a context
    manager: a format's metadata may be held back until then, and a failure to write it is raised by ``close``.

    An interruption, such as Ctrl-C, may leave a driver in the middle of a change. The image lies then as after a kill,
    which is safe, and stays so: nothing more is read or written through the node, and nothing is written by closing it.

    Attributes:
        name: QEMU's node name.
        filename: as the user or the parent image wrote it.
        probed: the format was guessed.
        discards: what the guest gives back is given back; else discarding does nothing.
        detect_zeroes: whether zeroes that are written become a zero write: ``off``, ``on``, or ``unmap``, which gives
            their space back.
        bounded: nothing is beyond the end, not even zeroes.
        marks: how far the node was written.
        given: what it was opened with, by dotted names, without what was said of its children.
        inheriting: the edges of children that were opened for this node alone, and go by what is said of it.
        blockers: why nothing but I/O may be done to the node now; empty where everything may.
    """

    def __init__(
        self,
        driver: BlockDriver,
        filename: str,
        *,
        read_only: bool,
        cache: Cache = WRITEBACK,
        probed: bool = False,
        bounded: bool = False,
    ) -> None:
        super().__init__(driver)
        self.name = new_name()
        self.filename = filename
        self.read_only = read_only
        self.cache = cache
        self.probed = probed
        self.discards = True
        self.detect_zeroes = "off"
        # A protocol's node without a format above it has nobody else to keep its bounds.
        self.bounded = bounded
        supports = int(driver.supports)
        self._grows = bool(supports & _GROWS) and not bounded
        self._ends = bool(supports & _ENDS) and not bounded
        self.blockers: list[str] = []
        self.marks = Marks()
        self.given: Mapping[str, Any] = {}
        self.inheriting: frozenset[str] = frozenset()
        self._on_event = driver.on_event
        self._refusal = ""  # why nothing is written, where it is another reason than the user's wish
        self._users = 1
        self._disowned = False
        forked.watch(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError as second:
            if error is None:
                raise
            # What failed first says why; a note keeps the rest.
            error.add_note(f"Closing '{self.filename}' failed too: {second}")

    def __repr__(self) -> str:
        return f"<BlockNode {self.name} {self.format} '{self.filename}'>"

    @property
    def grows(self) -> bool:
        """Whether a write beyond the end extends it."""
        return self._grows

    @property
    def format(self) -> str:
        """The driver's name: ``qcow2``, ``raw``, ``file``."""
        return self.driver.name

    @property
    def length(self) -> int:
        """The virtual size in bytes."""
        return self.driver.length

    @property
    def file(self) -> BlockNode | None:
        """The node that holds this one's bytes."""
        return self.driver.children.get(self.driver.primary)

    @property
    def storage(self) -> BlockNode | None:
        """The node that this one's guest data lies in, which is where the host offsets of extents point."""
        if isinstance(self.driver, FilterDriver):
            return self.driver.child.storage
        return self.driver.children.get("data-file", self.file) if self.driver.children else self

    @property
    def direct(self) -> BlockNode | None:
        """The storage, where reading it is as good as reading this node; None where a filter would be passed by."""
        storage = self.storage
        if isinstance(self.driver, FilterDriver) or (storage and isinstance(storage.driver, FilterDriver)):
            return None
        return storage

    @property
    def backing(self) -> BlockNode | None:
        """The node below an overlay, and below the overlay that a filter shows."""
        if isinstance(self.driver, FilterDriver):
            return self.driver.child.backing if self.driver.primary else None
        return self.driver.children.get("backing")

    @property
    def place(self) -> str:
        """The name of the file that holds the bytes: names in the image are relative to its directory."""
        return self.filename if self.file is None else self.file.place

    def chain(self) -> Iterator[BlockNode]:
        """This node, its backing node, and so on down."""
        node: BlockNode | None = self
        while node is not None:
            yield node
            node = node.backing

    def debug_event(self, event: str) -> None:
        """Tell a ``blkdebug`` driver, where there is one, how far a request of the node above has come."""
        if self._on_event is not None:
            self._on_event(event)

    def require_unblocked(self) -> None:
        """Refuse what a job on the node forbids.

        Raises:
            BlockError: EBUSY, with QEMU's text.
        """
        if self.blockers:
            raise BlockError(f"Node '{self.name}' is busy: {self.blockers[0]}", errno=errno.EBUSY)

    def require_open(self) -> None:
        """Refuse what would put something into a node that is closed, as who waits for its drain may find it.

        Raises:
            BlockError: EIO: it is.
        """
        if self.closed and isinstance(self._lock, Wall):
            raise BlockError(f"'{self.filename}' is closed", errno=errno.EIO)

    def exchange(self, driver: BlockDriver) -> None:
        """Put another driver in the place of the present one, which stays open; only while the node is drained."""
        super().exchange(driver)
        self._on_event = driver.on_event

    def read(self, offset: int, length: int) -> bytearray:
        """Read ``length`` bytes into a new buffer."""
        buffer = bytearray(length)
        self.pread(offset, memoryview(buffer))
        return buffer

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``."""
        length = len(buf)
        gate = self._lock  # before the range is looked at: where the node shrinks after that, the lock is another one
        if self._grows:
            if offset < 0 or offset > INT64_MAX - length:
                raise _outside(offset)
        elif not self._ends:
            self._check(offset, length)
        elif not self._reaches(offset, length):
            self.pread_padded(offset, buf)
            return
        if not length:
            return
        if type(gate) is Gate:
            # What most requests do, without the calls that a with statement costs.
            me = threading.get_ident()
            try:
                gate.come(me)
                if not gate.holder and gate is self._lock:
                    self.driver.pread(offset, buf)
                    return
            finally:
                gate.go(me)
                if gate.holder:
                    gate.left()
        else:
            with gate:
                if gate is self._lock and not self._busy:
                    self._busy = True
                    try:
                        self.driver.pread(offset, buf)
                    except BaseException as error:
                        if breaks_in(error):
                            self.break_off()
                        raise
                    finally:
                        self._busy = False
                    return
        with Entry(self):  # the driver was exchanged meanwhile, or is about to be
            if not (self._grows or self._ends):
                self._check(offset, length)
            self.driver.pread(offset, buf)

    def pread_padded(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``, with zeroes from the node's end on: how an overlay reads a shorter backing."""
        inside = max(0, min(len(buf), self.length - offset))
        if inside:
            self.pread(offset, buf[:inside])
        if inside < len(buf):
            fill_zeroes(buf[inside:])

    def pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` at ``offset``."""
        view = data if isinstance(data, memoryview) else memoryview(data)
        if self.detect_zeroes != "off" and view and is_zero(view):
            self.write_zeroes(offset, len(view), unmap=self.detect_zeroes == "unmap")
            return
        lock = self._lock  # see pread()
        self._check_write(offset, len(view))
        if view:
            if (end := offset + len(view)) > self.marks.level:
                self.marks.reach(end, self.name)
            self._pwrite(offset, view, lock)
            if self.cache.writethrough:
                self._flush()

    def _pwrite(self, offset: int, view: memoryview, gate: Lock) -> None:
        if type(gate) is Gate:
            me = threading.get_ident()
            try:
                gate.come(me)
                if not gate.holder and gate is self._lock:
                    self.driver.pwrite(offset, view)
                    return
            finally:
                gate.go(me)
                if gate.holder:
                    gate.left()
        else:
            with gate:
                if gate is self._lock and not self._busy:
                    self._busy = True
                    try:
                        self.driver.pwrite(offset, view)
                    except BaseException as error:
                        if breaks_in(error):
                            self.break_off()
                        raise
                    finally:
                        self._busy = False
                    return
        with Entry(self):  # the driver was exchanged meanwhile, or is about to be
            self._check_write(offset, len(view))
            self.driver.pwrite(offset, view)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Make a range read as zeroes; ``unmap`` allows giving its space back."""
        self._check_write(offset, length)
        if not length:
            return
        if offset + length > self.marks.level:
            self.marks.reach(offset + length, self.name)
        with Entry(self):
            self._check_write(offset, length)  # again, now that the size is what it is
            if int(self.driver.supports) & _WRITES_ZEROES:
                self.driver.write_zeroes(offset, length, unmap=unmap and self.discards)
            else:
                for start in range(offset, offset + length, len(_ZEROES)):
                    self.driver.pwrite(start, _ZEROES[: min(len(_ZEROES), offset + length - start)])
        self._written()

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool = False) -> bool:
        """Whether zeroing a range is known to be faster than writing it."""
        self._check_write(offset, length)
        with Entry(self):
            driver = self.driver
            if (offset | length) % driver.request_alignment or not isinstance(driver, FastZeroing):
                return False
            return driver.zeroes_fast(offset, length, unmap=unmap and self.discards)

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back where that is possible; what it reads as afterwards is the driver's choice."""
        self._check_write(offset, length)
        if length and self.discards and int(self.driver.supports) & _DISCARDS:
            if self.marks.threshold:
                self.marks.exceed(offset + length, self.name)
            with Entry(self):
                self._check_write(offset, length)
                self.driver.discard(offset, length)
            self._written()

    def flush(self) -> None:
        """Make all completed writes survive a power cut (with cache mode ``unsafe``: hand them to the host)."""
        if not self.read_only:
            self._flush()
            if (file := self.file) is not None:
                file.debug_event("flush_to_disk")

    def _flush(self) -> None:
        if (file := self.file) is not None:
            file.debug_event("flush_to_os")
        with Entry(self):
            self.driver.flush()

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """This layer's extents in a range, neighbours merged; to the end where ``length`` is None.

        A lazy iterator: the node must not be written to while it is consumed.
        """
        if isinstance(self._lock, Wall):
            self._lock.__enter__()
        self._require_outside()
        if length is None:
            length = self.length - offset
        if self._ends and not self._reaches(offset, length):
            return merge(self._padded_extents(offset, length))
        if not self._grows:
            self._check(offset, length)
        if not length:
            return iter(())
        return merge(self.driver.extents(offset, length))

    def _padded_extents(self, offset: int, length: int) -> Iterator[Extent]:
        inside = max(0, min(length, self.length - offset))
        if inside:
            yield from self.driver.extents(offset, inside)
        if inside < length:
            yield Extent(offset + inside, length - inside, Status.ZERO | Status.ALLOCATED)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Change the virtual size. Where it gets smaller, requests under way end first; later ones are held to it.

        Raises:
            UnsupportedFeature: the format cannot.
            BlockError: EBUSY: requests under way do not come to an end.
        """
        self._check_writable()
        if not _is_resizable(self.driver):
            raise UnsupportedFeature("Image format driver does not support resize")
        self.require_unblocked()
        if not 0 <= size <= INT64_MAX:
            raise OutOfRange(f"{size} bytes is no size for an image")
        if size < self.length:
            self._shrink(size, preallocation)
        else:
            with Entry(self):
                self.driver.resize(size, preallocation)
        sizes.tell()

    def _shrink(self, size: int, preallocation: Preallocation) -> None:
        with requests_ended(self):
            try:
                with Entry(self):
                    driver = self.driver
                    assert _is_resizable(driver)
                    driver.resize(size, preallocation)
            finally:
                if not isinstance(self._lock, Wall):
                    self.exchange(self.driver)  # whose size is another one: who waits for the lock looks again

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space for a range on the host; what it reads as does not change.

        Raises:
            UnsupportedFeature: the driver cannot.
        """
        self._check_write(offset, length)
        if not isinstance(self.driver, Preallocating):
            raise UnsupportedFeature(f"'{self.format}' does not support preallocation")
        if length:
            with Entry(self):
                self._check_write(offset, length)
                self.driver.preallocate(offset, length)

    @property
    def closed(self) -> bool:
        """Whether every user has closed it."""
        return not self._users

    def share(self) -> Self:
        """Have one more user of this node, which is then closed only when each has closed it."""
        with _counting:
            if not self._users:
                raise ValueError(f"'{self.filename}' is closed")
            self._users += 1
        return self

    def close(self) -> None:
        """Write out what is held back and close this node and its children, unless others share it.

        Requests of other threads are waited for, and none is let in any more: what they would use is gone, and the
        number of a closed descriptor soon means another file.

        Raises:
            OSError: held-back metadata could not be written. Everything is closed nevertheless.
            BlockError: EBUSY: requests under way do not come to an end. Everything stays open.
            Reentered: by a signal handler, in the middle of a call. Everything stays open.
        """
        drains, ours = self.drains + 1, False
        try:
            with _counting:
                if self._users != 1 or self._disowned:
                    self._users = max(0, self._users - 1)
                    return
                self._users, ours = 0, True
            if not self._drain_impatiently():
                raise BlockError(
                    f"Requests to '{self.filename}' do not come to an end; it stays open", errno=errno.EBUSY
                )
        except BaseException:
            if ours:
                self._users = 1
                self.resume(drains)  # where an interruption came after that was done
            raise
        try:
            self._close()
        except BaseException:  # also an interruption that has kept it from being shut
            self._shut(drains)
            raise

    def _close(self) -> None:
        unclosed.forget(self)
        with contextlib.ExitStack() as stack:
            for child in self.driver.children.values():
                stack.callback(child.close)
            stack.callback(self._shut, self.drains)
            self._busy = True
            try:
                self.driver.close()
            except BaseException as error:
                if breaks_in(error):
                    self.break_off()
                raise
            finally:
                self._busy = False

    def disown(self, reason: str) -> None:
        """Let nobody in any more, and closing do nothing: the node is another process's."""
        self._disowned = True
        unclosed.forget(self)
        self._lock = Wall(reason, Gate())

    def _drain_impatiently(self) -> bool:
        """As :meth:`drain`, and no request in it waits for a limit, nor for a server to come back.

        Nobody wants what that brings.
        """
        if self.drain(0.0):
            return True
        with unrestrained(self):
            return insist(self._hurry, _HASTE if is_interrupted() else DRAIN_TIMEOUT)

    def _hurry(self) -> bool:
        lose_patience(self._own())
        return self.drain(ATTEMPT) > 0

    def _own(self) -> Iterator[BlockNode]:
        """This node, and what is below it for it alone."""
        yield self
        for child in list(self.driver.children.values()):
            if child._users == 1:
                yield from child._own()

    def _shut(self, drains: int) -> None:
        """Let nobody in any more, once the driver is closed; those who wait to get in are told."""
        self._wall_off(f"'{self.filename}' is closed")
        self.resume(drains)

    def break_off(self) -> None:
        """Let nobody in any more, and the driver write nothing by closing: what it holds may be half changed."""
        if isinstance(self._lock, Wall):
            return
        reason = f"'{self.filename}' was interrupted in the middle of a request; open it again"
        if not isinstance(self.driver, FilterDriver):
            for name, child in self.driver.children.items():
                if name != "backing":
                    child.read_only, child._refusal = True, reason
        self.driver.interrupted = reason  # wherever it is moved to
        self._wall_off(reason)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(self._refusal or f"'{self.filename}' is open for reading only")

    def _written(self) -> None:
        if self.cache.writethrough:
            self._flush()

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.driver.length:
            raise OutOfRange(
                f"{length} bytes at offset {offset} are outside '{self.filename}', which has {self.length} bytes"
            )

    def _check_write(self, offset: int, length: int) -> None:
        if self.read_only:
            self._check_writable()
        if self._grows:
            if offset < 0 or length < 0 or offset > INT64_MAX - length:
                raise _outside(offset)
        elif not self._ends:
            self._check(offset, length)
        elif not self._reaches(offset, length):
            raise NoSpace(f"'{self.filename}' ends at {self.length} bytes, and cannot grow")

    def _reaches(self, offset: int, length: int) -> bool:
        """Whether a node of a fixed size has a range; a range that no file can have is an error."""
        if offset < 0 or length < 0 or offset > INT64_MAX - length:
            raise _outside(offset)
        return offset + length <= self.driver.length


def _outside(offset: int) -> OutOfRange:
    return OutOfRange(f"offset {offset} is outside every file")


def _is_resizable(driver: BlockDriver) -> TypeGuard[Resizable]:
    """Whether a driver can be resized; asked of each class once, for formats grow their file with each block."""
    found = _resizable.get(type(driver))
    if found is None:
        found = _resizable[type(driver)] = isinstance(driver, Resizable)
    return found


def fill_zeroes(buf: memoryview) -> None:
    """Overwrite a buffer with zeroes."""
    for start in range(0, len(buf), len(_ZEROES)):
        part = buf[start : start + len(_ZEROES)]
        part[:] = _ZEROES[: len(part)]


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero."""
    return all(
        data[start : start + len(_ZEROES)] == _ZEROES[: min(len(_ZEROES), len(data) - start)]
        for start in range(0, len(data), len(_ZEROES))
    )
