"""The protocol driver ``nbd``: the client that images lie on."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from typing import Any, Final, Self, TypeVar

from hostel.block import objects
from hostel.block.driver import Cache, FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.interruption import breaks_in
from hostel.block.powers import ModeChange, Preallocation
from hostel.block.protocol import ProtocolDriver
from hostel.block.protocols.nbd import address
from hostel.block.protocols.nbd.connection import Connection, ConnectionLost, Security, negotiate
from hostel.block.write_lock import WriteLock
from hostel.errors import BlockError, NetworkError, NoSpace, Reentered, RemoteProtocolError, UnsupportedFeature
from hostel.net.address import Address, TcpAddress
from hostel.units import SECTOR, GiB, KiB, MiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.client import ClientHandshake, Connected, Export, OptionRefused
from hostel.wire.nbd.protocol import Command, CommandFlag, ExportFlag
from hostel.wire.nbd.reply import Reply

_READ: Final = 256 * KiB  # bytes of one read, so that the server works while we receive
_WRITE: Final = 4 * MiB  # bytes of one write
_UNDER_WAY: Final = 16  # requests of one thread
_RANGE: Final = GiB  # bytes of one request that moves no data
_RETRY: Final = 0.2  # seconds between attempts to connect
_ZEROES: Final = memoryview(bytes(MiB))

Result = TypeVar("Result")


class NbdDriver(ProtocolDriver):
    """A disk that a server exports.

    Reads and writes are cut into pieces of which several are under way. What a server does not offer is done without:
    zeroing by writing, flushing and trimming not at all, block status as nothing but data. The size is rounded up to
    whole sectors, like every disk's; what is beyond the server's own size reads as zeroes.
    """

    name = "nbd"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.ENDS
    threading = Threading.PARALLEL
    options: Final = address.OPTIONS  # type: ignore[misc]

    def __init__(self, options: Mapping[str, str], mode: OpenMode, *, creating: bool) -> None:
        super().__init__()
        self._address = address.server_address(options)
        self._export_name = options.get("export")
        self._security = _security(options, self._address)
        self._context = options.get("x-dirty-bitmap")
        self._reconnect_delay = int(options.get("reconnect-delay", "0"))
        self._read_only = mode.read_only
        self._no_flush = mode.cache.no_flush
        self._creating = creating
        self._lock = threading.RLock()  # a signal handler may come here again
        self._busy: set[int] = set()  # threads that have a request under way
        self._writes = WriteLock()
        self._written = 0  # writes that the server has said are done
        self._flushed = 0  # how many of them a flush has covered
        self._lost_writes = False  # it was lost before it had flushed one of them
        self._closed = False
        self._waiting: Event | None = None  # set, it ends the wait for a server to come back
        self._in_vain: Connection | None = None  # which was lost, and whose server was waited for
        self._export = Export("")
        self._connection = self._connect(time.monotonic() + int(options.get("open-timeout", "0")))
        self.filename = address.show(self._address, self._export_name)

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """See :func:`address.parse_filename`."""
        return address.parse_filename(name)

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Connect to the server that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: the server cannot be reached, or refuses; the text is QEMU's.
        """
        return cls(address.convert(options), mode, creating=creating)

    def reopened(self, change: ModeChange) -> NbdDriver:
        """Itself: the connection stays.

        Raises:
            BlockError: the server only lets read; also where ``auto-read-only`` would have it opened so, as in QEMU.
        """
        mode = change(OpenMode(cache=Cache(no_flush=self._no_flush)))
        if self._export.flags & ExportFlag.READ_ONLY and not mode.read_only:
            raise BlockError("Can't reopen read-only NBD mount as read/write", errno=errno.EINVAL)
        self._read_only, self._no_flush = mode.read_only, mode.cache.no_flush
        return self

    def _connect(self, until: float, given_up: Event | None = None) -> Connection:
        """Connect, again and again until a moment of the monotonic clock or until it is given up, at least once."""
        given_up = given_up or Event()
        while True:
            handshake = ClientHandshake(
                self._export_name or "",
                tls=self._security is not None,
                extended=True,
                contexts=(self._context or protocol.BASE_ALLOCATION,),
            )
            try:
                transport, event = negotiate(self._address, handshake, self._security)
            except (NetworkError, RemoteProtocolError) as error:
                # A server that is starting may listen before it has the export.
                left = until - time.monotonic()
                if left > 0 and not given_up.wait(min(_RETRY, left)):
                    continue
                raise _refused(error) from None
            assert isinstance(event, Connected)
            connection = Connection(transport, event, handshake.rest())
            try:
                self._learn(event.export)
            except BaseException:
                connection.close()
                raise
            return connection

    def _learn(self, export: Export) -> None:
        """Take what the server says of the export; a second time it must say the same."""
        if self._context is not None and not export.contexts:
            raise BlockError(f"requested x-dirty-bitmap {self._context} not found", errno=errno.EINVAL)
        if export.flags & ExportFlag.READ_ONLY and not self._read_only:
            raise BlockError("NBD export is read-only", errno=errno.EACCES)
        if self._export.flags and export.size != self._export.size:
            raise BlockError(
                f"'{self._address}' came back with another size: {export.size} bytes instead of {self._export.size}",
                errno=errno.EIO,
            )
        self._export = export
        self._minimum = export.minimum or (SECTOR if not export.contexts and not export.size % SECTOR else 1)
        self._largest = export.maximum or protocol.MAX_PAYLOAD

    @property
    def length(self) -> int:
        """The export's size, in whole sectors."""
        return -(-self._export.size // SECTOR) * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        inside = max(0, min(len(buf), self._export.size - offset))
        buf[inside:] = bytes(len(buf) - inside)
        low, high = self._enclose(offset, inside)
        if (low, high) == (offset, offset + inside):
            self._read(offset, buf[:inside])
        else:
            whole = memoryview(bytearray(high - low))
            self._read(low, whole)
            buf[:inside] = whole[offset - low :][:inside]

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``.

        Raises:
            NoSpace: it lies beyond the end.
        """
        if offset + len(data) > self._export.size:
            raise NoSpace(f"'{self.filename}' ends at {self._export.size} bytes, and cannot grow")
        low, high = self._enclose(offset, len(data))
        if (low, high) == (offset, offset + len(data)):
            with self._writes.together():
                self._write(offset, data)
            return
        with self._writes.alone():
            whole = memoryview(bytearray(high - low))
            self._read(low, whole)
            whole[offset - low :][: len(data)] = data
            self._write(low, whole)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range, by the server where it can."""
        if offset + length > self._export.size:
            raise NoSpace(f"'{self.filename}' ends at {self._export.size} bytes, and cannot grow")
        low, high = self._inside(offset, length)
        if self._export.flags & ExportFlag.SEND_WRITE_ZEROES and low < high:
            try:
                self._range(Command.WRITE_ZEROES, low, high, CommandFlag.NONE if unmap else CommandFlag.NO_HOLE)
            except BlockError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                low = high
        else:
            low = high = offset
        for start, end in ((offset, low), (high, offset + length)):
            for position in range(start, end, len(_ZEROES)):
                self.pwrite(position, _ZEROES[: min(len(_ZEROES), end - position)])

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the server zeroes; what that costs it is its own affair."""
        return bool(self._export.flags & ExportFlag.SEND_WRITE_ZEROES)

    def discard(self, offset: int, length: int) -> None:
        """Trim, where the server does."""
        if self._export.flags & ExportFlag.SEND_TRIM:
            low, high = self._inside(offset, min(length, self._export.size - offset))
            self._range(Command.TRIM, low, high, CommandFlag.NONE)

    def flush(self) -> None:
        """Make the server flush.

        Raises:
            BlockError: it failed; also, and for ever, where the connection was lost after writes that were done and
                never flushed. A write under way at that moment is done again, and not lost.
        """
        if not self._export.flags & ExportFlag.SEND_FLUSH or self._no_flush:
            return
        with self._lock:
            written = self._written
        if not self._lost_writes:
            self._simple(Command.FLUSH, 0, 0, CommandFlag.NONE)
        with self._lock:
            self._flushed = max(self._flushed, written)
            if not self._lost_writes:
                return
        raise BlockError(
            f"the connection to '{self.filename}' was lost with writes that were not flushed: they may be gone",
            errno=errno.EIO,
            hint="Open the image again, once it is known what it holds.",
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the server says of the range; all of it is data where it says nothing."""
        if not self._export.contexts:
            yield from super().extents(offset, length)
            return
        end = offset + length
        while offset < end:
            inside = min(end, self._export.size) - offset
            if inside <= 0:  # what its last sector lacks
                yield Extent(offset, end - offset, Status.ZERO | Status.ALLOCATED)
                return
            low, high = self._enclose(offset, min(inside, _RANGE))
            for size, flags in self._status(low, high - low):
                stop = min(low + size, end)
                if stop > offset:
                    meaning = self._meaning(flags)
                    yield Extent(offset, stop - offset, meaning, None if meaning == Status.ALLOCATED else offset)
                    offset = stop
                low += size

    def _meaning(self, flags: int) -> Status:
        if flags & protocol.STATE_ZERO:
            data = Status.UNALLOCATED if flags & protocol.STATE_HOLE else Status.DATA
            return Status.ZERO | Status.ALLOCATED | data
        if flags & protocol.STATE_HOLE and self._context is not None:
            return Status.ALLOCATED  # what a bitmap calls dirty, shown as something that base:allocation never says
        # A hole that is not known to read as zeroes has to be read.
        return Status.DATA | Status.ALLOCATED

    def info(self) -> FormatInfo:
        """Nothing: a server does not tell what lies behind an export."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Refuse: the server's size is its own. An image may be laid out in more room than it needs.

        Raises:
            UnsupportedFeature: always, but for that (ENOSPC where it is too small).
        """
        if not self._creating and size != self.length:
            code = errno.ENOSPC if size > self.length else errno.ENOTSUP
            raise UnsupportedFeature("Cannot resize NBD nodes", errno=code)
        if size > self.length:
            raise UnsupportedFeature("Cannot grow NBD nodes")
        if self._creating:
            # What was there must not be taken for the new image.
            self.write_zeroes(0, min(SECTOR, self._export.size), unmap=False)

    def close(self) -> None:
        """Disconnect."""
        self._require_outside()
        self._closed = True
        self._connection.close()

    def _enclose(self, offset: int, length: int) -> tuple[int, int]:
        """The smallest range of whole blocks around a range."""
        block = self._minimum
        if block == 1 or not length:
            return offset, offset + length
        return offset // block * block, -(-(offset + length) // block) * block

    def _inside(self, offset: int, length: int) -> tuple[int, int]:
        """The largest range of whole blocks within a range; empty where the end is not beyond the start."""
        block = self._minimum
        return -(-offset // block) * block, (offset + length) // block * block

    def _read(self, offset: int, buf: memoryview) -> None:
        def start(connection: Connection, position: int, size: int) -> int:
            return connection.start(Command.READ, offset + position, size, target=buf[position : position + size])

        self._pieces("read", len(buf), self._piece(_READ), start)

    def _write(self, offset: int, data: memoryview) -> None:
        def start(connection: Connection, position: int, size: int) -> int:
            payload = data[position : position + size]
            return connection.start(Command.WRITE, offset + position, size, payload=payload)

        self._pieces("write", len(data), self._piece(_WRITE), start, writes=True)

    def _piece(self, wanted: int) -> int:
        """Bytes of one request with data: whole blocks, and no more than the server takes."""
        block = self._minimum
        return max(block, min(wanted, self._largest) // block * block)

    def _range(self, command: Command, low: int, high: int, flags: CommandFlag) -> None:
        def start(connection: Connection, position: int, size: int) -> int:
            return connection.start(command, low + position, size, flags=flags)

        if low < high:
            with self._writes.together():
                self._pieces(protocol.command_text(command), high - low, _RANGE, start, writes=True)

    def _simple(self, command: Command, offset: int, length: int, flags: CommandFlag) -> Reply:
        what = "tell the block status" if command is Command.BLOCK_STATUS else protocol.command_text(command)

        def run(connection: Connection) -> Reply:
            return self._checked(what, connection.finish(connection.start(command, offset, length, flags=flags)))

        return self._run(run)

    def _status(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Lengths and flags from a block's start on, of whole blocks."""
        extents = self._simple(Command.BLOCK_STATUS, offset, length, CommandFlag.NONE).extents
        block, found = self._minimum, list[tuple[int, int]]()
        unknown = protocol.STATE_DIRTY if self._context is not None else 0  # what a backup copies, and who reads, reads
        for size, flags in next(iter(extents.values())):
            whole = size - size % block
            found.append((whole, flags) if whole else (block, unknown))
            if whole != size:  # the server keeps no account of its own blocks; of a part of one nothing is known
                break
        return found

    def _pieces(
        self,
        what: str,
        length: int,
        piece: int,
        start: Callable[[Connection, int, int], int],
        *,
        writes: bool = False,
    ) -> None:
        """Run a request in pieces, some of them at the same time; a failure is raised when none is under way."""

        def run(connection: Connection) -> None:
            if not length:
                return
            if length <= piece:
                self._checked(what, connection.finish(start(connection, 0, length)))
                return
            cookies: deque[int] = deque()
            failure: OSError | None = None
            position = 0
            while position < length or cookies:
                if position < length and len(cookies) < _UNDER_WAY and failure is None:
                    size = min(piece, length - position)
                    cookies.append(start(connection, position, size))
                    position += size
                    continue
                if not cookies:
                    break
                try:
                    self._checked(what, connection.finish(cookies.popleft()))
                except OSError as error:
                    if breaks_in(error):
                        raise
                    failure = failure or error
            if failure is not None:
                raise failure

        self._run(run, writes=writes)

    def _checked(self, what: str, reply: Reply) -> Reply:
        if reply.error:
            said = f": {reply.message}" if reply.message else f": {os.strerror(reply.error)}"
            raise BlockError(f"the server of '{self.filename}' failed to {what}{said}", errno=reply.error)
        return reply

    def _run(self, action: Callable[[Connection], Result], *, writes: bool = False) -> Result:
        """Run an action; after a lost connection again on a new one, as long as that is wanted.

        Raises:
            Reentered: in a signal handler, of a thread that runs one: it would wait for itself to receive.
        """
        self._require_outside()
        me = threading.get_ident()
        try:
            self._busy.add(me)
            return self._repeat(action, writes=writes)
        finally:
            self._busy.discard(me)

    def _require_outside(self) -> None:
        if threading.get_ident() in self._busy:
            raise Reentered.of(self.filename)

    def _repeat(self, action: Callable[[Connection], Result], *, writes: bool) -> Result:
        while True:
            connection = self._connection
            try:
                result = action(connection)
            except ConnectionLost as error:
                self._reconnect(connection, str(error))
                continue
            except BaseException as error:
                if breaks_in(error):
                    connection.break_off()
                raise
            if writes:
                with self._lock:
                    self._written += 1
                    # By now another thread may have another connection, to a server that may know nothing of it.
                    self._lost_writes |= connection is not self._connection
            return result

    def lose_patience(self) -> None:
        """See :class:`hostel.block.powers.Patient`."""
        if (waiting := self._waiting) is not None:
            waiting.set()

    def _reconnect(self, lost: Connection, reason: str) -> None:
        """Replace a lost connection, once for all threads.

        Raises:
            BlockError: the server does not come back in time.
        """
        with self._lock:
            if self._connection is not lost:
                return
            self._lost_writes |= self._written > self._flushed
            if not self._reconnect_delay or self._closed:
                raise BlockError(f"the connection to '{self.filename}' was lost: {reason}", errno=errno.EIO)
            # Who was to wait as well does not begin anew, but tries once.
            delay = 0 if lost is self._in_vain else self._reconnect_delay
            self._waiting = given_up = Event()
            try:
                self._connection = self._connect(time.monotonic() + delay, given_up)
            except OSError as error:
                self._in_vain = lost
                text = f"did not come back within {delay} seconds" if delay else "is still away"
                if given_up.is_set():
                    text = "did not come back before it was given up"
                raise BlockError(
                    f"the connection to '{self.filename}' was lost: {reason}; it {text}: {error}", errno=errno.EIO
                ) from None
            finally:
                self._waiting = None
            with contextlib.suppress(OSError):
                lost.close()


def _refused(error: NetworkError | RemoteProtocolError) -> BlockError:
    """Why there is no connection."""
    if isinstance(error, NetworkError):
        return BlockError(error.message, errno=error.errno, hint=error.hint)
    return BlockError(str(error), errno=errno.EINVAL, hint=error.hint if isinstance(error, OptionRefused) else None)


def _security(options: Mapping[str, str], server: Address) -> Security | None:
    """TLS as the options want it, or none.

    Raises:
        BlockError: the credentials are not there, or of no use to a client.
    """
    directory, identifier = options.get("tls-certificates"), options.get("tls-creds")
    if identifier is not None:
        credentials = objects.tls_credentials(identifier, server=False)
    elif directory is not None:
        from hostel.net.tls import TlsCredentials

        try:
            credentials = TlsCredentials(directory, server=False)
        except NetworkError as error:
            raise BlockError(error.message, errno=error.errno) from None
    else:
        return None
    hostname = options.get("tls-hostname")
    if hostname is None and isinstance(server, TcpAddress):
        hostname = server.host
    return Security(credentials, hostname)
