"""The transmission phase of one connection: requests are answered in their order, many with one system call.

A request costs a few microseconds here, of which most are the host's; see ``docs/nbd.md`` for what was measured. So the
requests that matter, small reads and writes of a file that holds the disk as it is, go past the nodes: a read straight
from the file into the buffer that is sent, a write from the buffer that was received into the file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block.gate import BYPASS
from hostel.block.host_file import HostFile
from hostel.errors import RemoteProtocolError
from hostel.export.nbd.export import NbdExport
from hostel.export.nbd.lone import SMALL, LoneRequests
from hostel.export.nbd.outbox import PIECE, Outbox
from hostel.export.nbd.splice import CAPACITY, Splice
from hostel.net.transport import SocketTransport, Transport
from hostel.units import KiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Command, CommandFlag, to_wire_error
from hostel.wire.nbd.request import ReplyFormat, Request, RequestReader
from hostel.wire.nbd.server import Chosen

_FIRST: Final = 32 * KiB  # bytes of the first replies, over which the client wakes up while the others are made
_ROOM: Final = 192 * KiB  # bytes of replies that may wait when a small one is added
_DONE: Final = 64  # bytes, and more than a reply without data has
_SPARSE: Final = 64 * KiB  # bytes from which on it is worth knowing which parts of a read are zeroes

_AHEAD: Final = 1024 * KiB  # bytes of a read that the disk is told of before it is waited for

# Plain numbers: an operation on an enum's member takes longer than the rest of a request.
_READ, _WRITE, _DISC, _FLUSH = (int(kind) for kind in (Command.READ, Command.WRITE, Command.DISC, Command.FLUSH))
_FUA, _DF = int(CommandFlag.FUA), int(CommandFlag.DF)
_WRITES: Final = frozenset({_WRITE, int(Command.TRIM), int(Command.WRITE_ZEROES)})
_FLAGS: Final = {
    _READ: int(CommandFlag.FUA | CommandFlag.DF),
    int(Command.WRITE_ZEROES): int(CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO),
    int(Command.BLOCK_STATUS): int(CommandFlag.FUA | CommandFlag.REQ_ONE),
}
_FAILURES: Final = {
    Command.READ: "reading from file failed",
    Command.WRITE: "writing to file failed",
    Command.FLUSH: "flush failed",
    Command.TRIM: "discard failed",
    Command.CACHE: "caching data failed",
    Command.WRITE_ZEROES: "writing to file failed",
    Command.BLOCK_STATUS: "can't get block status",
}


class Transmission:
    """One client's requests.

    Args:
        transport: the connection.
        export: what the client has chosen.
        chosen: what was negotiated.
        data: what the client sent already.
        alone: whether no other connection needs the processor.
    """

    def __init__(
        self,
        transport: Transport,
        export: NbdExport,
        chosen: Chosen,
        data: bytes,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport = transport
        self._export = export
        self._chosen = chosen
        self._size = chosen.offer.size
        self._format = ReplyFormat(structured=chosen.structured, extended=chosen.extended)
        self._reader = RequestReader(extended=chosen.extended, data=data)
        self._outbox = Outbox(transport)
        self._generation = BYPASS.generation
        self._file = export.host_file()
        self._splice: Splice | None = None
        self._nowait = 0
        self._top = 0  # up to where the nodes know that they were written
        self._lone: LoneRequests | None = None
        if isinstance(transport, SocketTransport):
            self._lone = LoneRequests(transport.socket, self._reader, self._outbox, self._format, self._size, alone)
        self._deferred: list[Request] = []
        self._scratch = memoryview(b"")
        # With extended headers a write says that its payload follows.
        self._write_flag = int(CommandFlag.PAYLOAD_LEN) if chosen.extended else 0
        self._take_shortcut()

    def run(self) -> None:
        """Answer requests until the client disconnects or is gone.

        Raises:
            RemoteProtocolError: the client broke the protocol.
            OSError: the connection broke.
        """
        reader, receive = self._reader, self._transport.recv_into
        try:
            while self._answer_all():
                if self._lone is not None:
                    count = self._lone.receive(self._file, self._generation, self._nowait)
                else:
                    count = receive(reader.room())
                if not count:
                    reader.receive_eof()
                    return
                reader.received(count)
        except RemoteProtocolError:
            self._outbox.flush()
            raise
        finally:
            if self._splice is not None:
                self._splice.close()

    def _answer_all(self) -> bool:
        """Answer what has arrived; False when the client has disconnected."""
        if self._generation != BYPASS.generation:
            self._look_again()
        if self._file is not None:
            return self._answer_from_file(self._file)
        if not self._answer_through_node():
            return False
        self._outbox.flush()
        return True

    def _answer_through_node(self) -> bool:
        """Answer what has arrived, small requests on the shortest way; False when the client has disconnected."""
        outbox, export, size = self._outbox, self._export, self._size
        view, header, put_data, put_done = (
            outbox.view,
            self._format.read_header,
            self._format.put_data,
            self._format.put_done,
        )
        write_flag, room = self._write_flag, _FIRST
        for request in self._reader.requests():
            kind, flags, cookie, offset, length, payload = request
            if kind == _WRITE and flags == write_flag:
                flags = 0
            if outbox.used > room:
                outbox.flush()
                room = _ROOM
            if kind == _DISC:
                outbox.flush()
                return False
            if flags or kind > _WRITE or offset + length > size or not 0 < length <= SMALL:
                self._answer(request)
                continue
            try:
                if kind == _READ:
                    used = outbox.reserve(header + length)
                    export.read(offset, view[used + header : used + header + length])
                    put_data(view, used, cookie, offset, offset, length)
                    outbox.commit(header + length)
                elif export.writable:
                    export.write(offset, payload)
                    used = outbox.reserve(_DONE)
                    outbox.commit(put_done(view, used, cookie, offset))
                else:
                    self._answer(request)
            except (OSError, MemoryError) as error:
                self._fail(request, error)
        return True

    def _look_again(self) -> None:
        """The block graph has changed: find out whether there is a file, and which."""
        self._generation = BYPASS.generation
        self._file = self._export.host_file()
        if self._splice is not None:
            self._splice.close()
            self._splice = None
        self._take_shortcut()

    def _take_shortcut(self) -> None:
        self._top = 0
        if self._file is None:
            self._nowait = 0
            return
        self._nowait = getattr(os, "RWF_NOWAIT", 0)
        if isinstance(self._transport, SocketTransport):
            with self._file.gate:
                if self._generation == BYPASS.generation:
                    self._splice = Splice.open(self._file.fd, self._transport.socket)

    def _step_out(self, file: HostFile, act: Callable[..., object], *arguments: object) -> int:
        """Do what may take long without holding up who changes the block graph; up to where the file may be used."""
        file.gate.step_out()
        try:
            act(*arguments)
        finally:
            file.gate.rejoin()
        return self._size if self._generation == BYPASS.generation else 0

    def _answer_from_file(self, file: HostFile) -> bool:
        """Answer what has arrived, past the nodes as far as that may be; False when the client has disconnected."""
        gate, me = file.gate, threading.get_ident()
        gate.come(me)  # as a with statement does, without its calls
        if gate.holder:
            gate.go(me)
            gate.__enter__()
        try:
            if not self._answer_past_nodes(file):
                return False
        finally:
            gate.go(me)
            if gate.holder:
                gate.left()
        if self._deferred:
            self._outbox.flush()
            self._answer_deferred()
        self._outbox.flush()
        return True

    def _answer_past_nodes(self, file: HostFile) -> bool:
        """Answer small reads and writes here, with as few steps as there can be, and leave the rest to others."""
        fd, start, guarded = file.fd, file.start, file.guarded
        outbox, header = self._outbox, self._format.read_header
        view, put_data, put_done = outbox.view, self._format.put_data, self._format.put_done
        preadv, pwrite = os.preadv, os.pwrite
        write_flag, step_out = self._write_flag, functools.partial(self._step_out, file)
        size, room = self._size if self._generation == BYPASS.generation else 0, _FIRST
        for request in self._reader.requests():
            kind, flags, cookie, offset, length, payload = request
            if kind == _WRITE and flags == write_flag:
                flags = 0
            if flags or kind > _WRITE or offset + length > size or not 0 < length <= SMALL:
                if kind == _DISC:
                    step_out(self._answer_deferred)
                    step_out(outbox.flush)
                    return False
                size = step_out(self._answer_or_defer, request)
            elif kind == _READ:
                used = outbox.used
                if used > room:
                    size = step_out(outbox.flush)
                    used, room = 0, _ROOM
                    if not size:
                        step_out(self._answer, request)
                        continue
                end = used + header + length
                try:
                    whole = preadv(fd, (view[used + header : end],), start + offset, self._nowait) == length
                except OSError as error:
                    if self._would_wait(error):
                        self._defer(request)
                        continue
                    whole = False
                if whole:
                    put_data(view, used, cookie, offset, offset, length)
                    outbox.used = end
                else:
                    size = step_out(self._answer, request)
            elif offset >= guarded:
                try:
                    whole = pwrite(fd, payload, start + offset) == length
                except OSError:
                    whole = False
                if whole:
                    if offset + length > self._top:
                        self._top = offset + length
                        file.wrote(self._top)
                    if outbox.used > _ROOM:
                        size = step_out(outbox.flush)
                    outbox.used += put_done(view, outbox.used, cookie, offset)
                else:
                    size = step_out(self._answer, request)
            else:
                size = step_out(self._answer, request)
        return True

    def _answer_or_defer(self, request: Request) -> None:
        """Answer a request that is not small; a read whose beginning is not there waits."""
        kind, _, _, offset, length, _ = request
        if kind == _READ and length and offset + length <= self._size and self._waits_for_disk(offset):
            self._defer(request)
        else:
            self._answer(request)

    def _defer(self, request: Request) -> None:
        """Let the disk begin with a read that it must be waited for, and go on with other requests meanwhile."""
        _, _, _, offset, length, _ = request
        with self._usable_file() as file:
            if file is not None:
                os.posix_fadvise(file.fd, file.start + offset, min(length, _AHEAD), os.POSIX_FADV_WILLNEED)
        self._deferred.append(request)

    @contextlib.contextmanager
    def _usable_file(self) -> Iterator[HostFile | None]:
        """The file, with its gate held; None where there is none, or the graph has changed since."""
        file = self._file
        if file is None:
            yield None
            return
        with file.gate:
            yield file if self._generation == BYPASS.generation else None

    def _answer_deferred(self) -> None:
        """Wait for the disk, which has been told of all that is wanted."""
        deferred, self._deferred = self._deferred, []
        for request in deferred:
            self._answer(request)

    def _waits_for_disk(self, offset: int) -> bool:
        """Whether reading would have to wait, as far as one byte shows it."""
        if not self._nowait:
            return False
        with self._usable_file() as file:
            try:
                if file is not None:
                    os.preadv(file.fd, [bytearray(1)], file.start + offset, self._nowait)
            except OSError as error:
                return self._would_wait(error)
        return False

    def _would_wait(self, error: OSError) -> bool:
        """Whether that is what an error says; a file system that does not know is not asked again."""
        if error.errno == errno.EOPNOTSUPP:
            self._nowait = 0
        return error.errno == errno.EAGAIN

    def _answer(self, request: Request) -> None:
        kind = request[0]
        if kind == _READ:
            self._read(request)
        elif kind == _WRITE:
            self._write(request)
        else:
            self._command(request)

    def _read(self, request: Request) -> None:
        _, flags, cookie, offset, length, _ = request
        if self._refused(request):
            return
        try:
            if flags & _FUA:
                self._export.flush()
            if not length:
                self._outbox.add(self._format.done(cookie, offset))
            elif length > _SPARSE and self._format.structured and not flags & _DF:
                self._read_pieces(cookie, offset, length)
            elif length <= PIECE:
                if not self._spliced(cookie, offset, length):
                    self._put_piece(cookie, offset, offset, length, last=True)
            else:
                # The one reply must be known to be good before it begins.
                data = self._buffer(length)
                self._fill(offset, data)
                header = memoryview(bytearray(self._format.read_header))
                self._format.put_data(header, 0, cookie, offset, offset, length)
                self._outbox.send(header, data)
        except (OSError, MemoryError) as error:
            self._fail(request, error)

    def _spliced(self, cookie: int, offset: int, length: int) -> bool:
        """Answer with the file's pages themselves, where that is possible and worth it."""
        if self._splice is None or length < _SPARSE:
            return False
        count = self._fill_splice(self._splice, offset, length)
        if not count:
            return False
        rest = memoryview(b"")
        if count < length:
            rest = self._buffer(length - count)
            try:
                self._fill(offset + count, rest)
            except OSError:
                self._splice.drop()
                raise
        used = self._outbox.reserve(self._format.read_header)
        self._format.put_data(self._outbox.view, used, cookie, offset, offset, length)
        self._outbox.commit(self._format.read_header)
        self._outbox.drain(self._splice)
        self._outbox.add(rest)
        return True

    def _fill_splice(self, splice: Splice, offset: int, length: int) -> int:
        """Take pages of the file; how many bytes."""
        with self._usable_file() as file:
            return 0 if file is None else splice.fill(file.start + offset, length)

    def _put_piece(self, cookie: int, offset: int, position: int, length: int, *, last: bool) -> None:
        """Read at most a piece, and append it with its header."""
        header = self._format.read_header
        used = self._outbox.reserve(header + length)
        self._fill(position, self._outbox.view[used + header : used + header + length])
        self._format.put_data(self._outbox.view, used, cookie, offset, position, length, last)
        self._outbox.commit(header + length)

    def _read_pieces(self, cookie: int, offset: int, length: int) -> None:
        """Answer a large read piece by piece: holes by name, an error with its place."""
        end = offset + length
        position = offset
        try:
            for size, zero in self._export.pieces(offset, length):
                while size:
                    count = size
                    if zero:
                        last = position + count == end
                        self._outbox.add(self._format.hole(cookie, offset, position, count, last=last))
                    else:
                        count = self._send_piece(cookie, offset, position, size, end)
                    position += count
                    size -= count
        except OSError as error:
            text = f"{_FAILURES[Command.READ]}: {_reason(error)}"
            self._outbox.add(self._format.error(cookie, offset, to_wire_error(error.errno), text, at=position))
            return
        if position != end:
            raise AssertionError("the extents do not cover the read")

    def _send_piece(self, cookie: int, offset: int, position: int, length: int, end: int) -> int:
        """Send a part of a large read that ends at ``end``; how many bytes."""
        if self._splice is not None:
            count = self._fill_splice(self._splice, position, min(length, CAPACITY))
            if count:
                used = self._outbox.reserve(self._format.read_header)
                self._format.put_data(self._outbox.view, used, cookie, offset, position, count, position + count == end)
                self._outbox.commit(self._format.read_header)
                self._outbox.drain(self._splice)
                return count
        count = min(length, PIECE)
        self._put_piece(cookie, offset, position, count, last=position + count == end)
        return count

    def _fill(self, offset: int, buffer: memoryview) -> None:
        """Read into the buffer, past the node where that is the same."""
        done = 0
        if self._file is not None:
            with self._usable_file() as file:
                if file is not None:
                    done = os.preadv(file.fd, [buffer], file.start + offset)
        if done < len(buffer):
            # The file ends within the last sector, or was cut off by somebody: the node knows what that reads as.
            self._export.read(offset + done, buffer[done:])

    def _write(self, request: Request) -> None:
        _, flags, cookie, offset, length, payload = request
        if self._refused(request):
            return
        try:
            done = 0
            if self._file is not None and offset >= self._file.guarded:
                with self._usable_file() as file:
                    if file is not None:
                        done = os.pwrite(file.fd, payload, file.start + offset)
                        file.wrote(offset + done)
            if done < length:
                self._export.write(offset + done, payload[done:])
            if flags & _FUA:
                self._export.flush()
            self._outbox.add(self._format.done(cookie, offset))
        except (OSError, MemoryError) as error:
            self._fail(request, error)

    def _command(self, request: Request) -> None:
        """Answer what may take long: those who were answered before do not wait for it."""
        kind, flags, cookie, offset, length, _ = request
        self._outbox.flush()
        if self._refused(request):
            return
        try:
            if kind == Command.BLOCK_STATUS:
                self._block_status(request)
                return
            if kind == _FLUSH:
                self._export.flush()
            elif kind == Command.TRIM:
                self._export.trim(offset, length)
            elif kind == Command.CACHE:
                self._export.cache(offset, length)
            else:
                self._export.write_zeroes(
                    offset,
                    length,
                    may_unmap=not flags & CommandFlag.NO_HOLE,
                    fast=bool(flags & CommandFlag.FAST_ZERO),
                )
            if flags & _FUA and kind in _WRITES:
                self._export.flush()
            self._outbox.add(self._format.done(cookie, offset))
        except (OSError, MemoryError) as error:
            self._fail(request, error)

    def _block_status(self, request: Request) -> None:
        _, flags, cookie, offset, length, _ = request
        found = [
            (
                context,
                self._export.status(
                    context,
                    offset,
                    length,
                    one=bool(flags & CommandFlag.REQ_ONE),
                    extended=self._chosen.extended,
                ),
            )
            for context in self._chosen.contexts
        ]
        for context, extents in found:
            last = context == found[-1][0]
            self._outbox.add(self._format.status(cookie, offset, context, extents, last=last))

    def _refused(self, request: Request) -> bool:
        """Answer a request that must not be carried out."""
        kind, flags, cookie, offset, length, _ = request
        code, text = 0, ""
        allowed = _FUA | self._write_flag if kind == _WRITE else _FLAGS.get(kind, _FUA)
        if flags & ~allowed:
            code, text = errno.EINVAL, f"unsupported flags for command {protocol.command_text(kind)} (got 0x{flags:x})"
        elif not self._export.writable and kind in _WRITES:
            code, text = errno.EPERM, "Export is read-only"
        elif offset + length > self._size and kind != _FLUSH:
            code = errno.ENOSPC if kind in (Command.WRITE, Command.WRITE_ZEROES) else errno.EINVAL
            text = f"operation past EOF; From: {offset}, Len: {length}, Size: {self._size}"
        elif length > protocol.MAX_PAYLOAD and kind in (Command.READ, Command.CACHE):
            code, text = errno.EINVAL, f"len ({length}) is larger than max len ({protocol.MAX_PAYLOAD})"
        elif kind == Command.BLOCK_STATUS and not length:
            code, text = errno.EINVAL, "need non-zero length"
        elif kind == Command.BLOCK_STATUS and not self._chosen.contexts:
            code, text = errno.EINVAL, "CMD_BLOCK_STATUS not negotiated"
        elif kind not in protocol.COMMAND_TEXTS:
            code, text = errno.EINVAL, f"invalid request type ({kind}) received"
        if not code:
            return False
        self._outbox.add(self._format.error(cookie, offset, code, text))
        return True

    def _fail(self, request: Request, error: OSError | MemoryError) -> None:
        kind, _, cookie, offset, _, _ = request
        code = errno.ENOMEM if isinstance(error, MemoryError) else to_wire_error(error.errno)
        text = f"{_FAILURES[Command(kind)]}: {_reason(error)}"
        self._outbox.add(self._format.error(cookie, offset, code, text))

    def _buffer(self, length: int) -> memoryview:
        """A buffer for one large read; kept for the next."""
        if len(self._scratch) < length:
            self._scratch = memoryview(b"")
            self._scratch = memoryview(bytearray(length))
        return self._scratch[:length]


def _reason(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return os.strerror(errno.ENOMEM)
    return error.strerror or str(error)
