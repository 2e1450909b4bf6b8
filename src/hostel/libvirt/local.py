"""Calls that are made in this process: what a daemon would answer, without one.

The daemon's own table answers (:mod:`hostel.daemon.calls`), with what stands in for its client here; so a program sees
the same whether it is connected to a daemon or not. Arguments and answers pass their codecs, which hold them to their
types and bounds, and make of them what would come over the wire.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from hostel.daemon.access import Access, Identity, api_name, check_looking
from hostel.daemon.calls import find
from hostel.daemon.events import Events
from hostel.daemon.fault import describe, located, speaker
from hostel.daemon.given import check_given
from hostel.daemon.hosts import Host
from hostel.daemon.streaming import ATTACHING, FORCE
from hostel.drivers.adapters import check_flags, uuid_text
from hostel.drivers.autodestroy import end_all
from hostel.drivers.base import ConsoleStream, DomainRef, Hole, VolumeRef
from hostel.drivers.base.storage import piece_size
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers
from hostel.errors import ErrorCode, ErrorDomain, HostelError, VirtError
from hostel.libvirt.method import Peer
from hostel.wire.rpc.connection import Call, ClientConnection, Message
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.programs import PROGRAMS, program_of

_SPARSE: Final = 1
_SERIAL: Final = 64 << 10  # bytes that are read of a serial port at once
_AHEAD: Final = 8  # pieces of an upload that may wait for the disk
_PATIENCE: Final = 600.0  # seconds that an upload waits for either side


class _Daemon:
    """What answers ask of a daemon."""

    def __init__(self) -> None:
        self.access = Access(None)
        self.events = Events(lambda action: action())

    def is_local(self, client: object) -> bool:
        return True


class LocalCaller:
    """Calls drivers; may be used from several threads.

    Args:
        drivers: of one connection.
        read_only: let only those calls through that change nothing.
    """

    def __init__(self, drivers: Drivers, *, read_only: bool = False) -> None:
        self.host: Host | None = Host(drivers.uri, drivers)
        self.uri = drivers.uri
        self.read_only = read_only
        self.identity = Identity("")
        self.daemon = _Daemon()
        self.autodestroys: list[DomainRef] = []
        self.migrating: set[str] = set()  # domains, which a client of a daemon's may leave half moved
        self._machine = ClientConnection(PROGRAMS)
        self._heard: Callable[[Procedure, Sequence[Any]], None] | None = None
        self._lock = threading.Lock()

    def call(self, procedure: Procedure, arguments: Sequence[Any]) -> Sequence[Any]:
        """Make a call; see :class:`hostel.libvirt.method.Caller`."""
        return self._answer(self._checked(procedure, arguments))

    def call_with_files(self, procedure: Procedure, arguments: Sequence[Any], files: Sequence[int]) -> Sequence[Any]:
        """Likewise, with open files."""
        return self._answer(self._checked(procedure, arguments)._replace(fds=tuple(files)))

    def _answer(self, call: Call) -> Sequence[Any]:
        procedure = call.procedure
        known = find(call)
        if known is None or known.streams:
            raise fault(ErrorCode.NO_SUPPORT, api_name(procedure.name))
        try:
            result = known.answer(cast("Any", self), call)
        except (HostelError, OSError) as error:
            raise self._described(error, procedure) from None
        if not procedure.result.fields:
            return ()
        return procedure.result.unpack(procedure.result.pack(result or ()))

    def _checked(self, procedure: Procedure, arguments: Sequence[Any]) -> Call:
        if self.host is None:
            raise fault(ErrorCode.INVALID_ARG, "the connection is closed", ErrorDomain.NONE)
        given = procedure.arguments.unpack(procedure.arguments.pack(arguments))
        if self.read_only:
            check_looking(procedure, given)
        check_given(procedure, given)
        return Call(program_of(procedure), procedure, 0, given)

    def open_stream(self, procedure: Procedure, arguments: Sequence[Any]) -> tuple[Sequence[Any], Peer]:
        """Make a call that opens a stream."""
        call = self._checked(procedure, arguments)
        assert self.host is not None
        drivers = self.host.drivers
        try:
            if procedure.name == "storage_vol_download":
                volume, offset, length, flags = call.arguments
                check_flags(flags, _SPARSE, api_name(procedure.name))
                sparse = bool(flags & _SPARSE)
                pieces = drivers.storage.storage_vol_download(VolumeRef(*volume), offset, length, sparse=sparse)
                return (), Download(pieces)
            if procedure.name == "storage_vol_upload":
                volume, offset, length, flags = call.arguments
                check_flags(flags, _SPARSE, api_name(procedure.name))
                ref, storage = VolumeRef(*volume), drivers.storage
                return (), Upload(lambda pieces: storage.storage_vol_upload(ref, pieces, offset, length), length)
            if procedure.name == "domain_screenshot" and hasattr(drivers.hypervisor, procedure.name):
                domain, screen, flags = call.arguments
                check_flags(flags, 0, api_name(procedure.name))
                where = DomainRef(domain.name, uuid_text(domain.uuid), domain.id)
                screens: Any = drivers.hypervisor
                picture = screens.domain_screenshot(where, screen)
                return (picture.mime,), Download(iter((memoryview(picture.content),)))
            if (known := ATTACHING.get(procedure.name)) and hasattr(drivers.hypervisor, procedure.name):
                domain, device, flags = call.arguments
                check_flags(flags, known, api_name(procedure.name))
                where = DomainRef(domain.name, uuid_text(domain.uuid), domain.id)
                attach = getattr(drivers.hypervisor, procedure.name)
                return (), Console(attach(where, device, force=bool(flags & FORCE)))
        except (HostelError, OSError) as error:
            raise self._described(error, procedure) from None
        raise fault(ErrorCode.NO_SUPPORT, api_name(procedure.name))

    def _described(self, error: Exception, procedure: Procedure) -> VirtError:
        """An error as a daemon would send it.

        Mostly it is the same one. Raised "from" itself it would keep handles, and with them the connection, until
        somebody collects garbage.
        """
        return located(describe(error), api_name(procedure.name), speaker(procedure.name, self.uri))

    def listen(self, heard: Callable[[Procedure, Sequence[Any]], None], ended: Callable[[int], None]) -> None:
        """Tell messages; a connection within one process does not end by itself."""
        self._heard = heard

    def send(self, message: bytes) -> None:
        """Take what a daemon would send to its client."""
        with self._lock:
            events = self._machine.receive(self._machine.splitter.feed(message))
        for event in events:
            if isinstance(event, Message) and self._heard is not None:
                self._heard(event.procedure, event.values)

    def is_alive(self) -> bool:
        """Whether it is open."""
        return self.host is not None

    def is_test(self) -> bool:
        """Whether it is the test driver."""
        return self.uri.startswith("test")

    def is_encrypted(self) -> bool:
        """There is no way to listen on."""
        return False

    def set_keepalive(self, interval: int, count: int) -> bool:
        """There is nobody to ask who could be gone.

        Raises:
            VirtError: ``NO_SUPPORT``: the test driver, as libvirt has it; who asks it of machines means a daemon.
        """
        if self.is_test():
            raise fault(ErrorCode.NO_SUPPORT, "virConnectSetKeepAlive")
        return True

    def close(self) -> None:
        """Release the drivers; running machines run on."""
        host, self.host = self.host, None
        if host is not None:
            self.daemon.events.close()
            end_all(host.drivers.hypervisor, self.autodestroys)
            host.drivers.close()


class Download:
    """A volume's bytes, as a stream."""

    def __init__(self, pieces: Iterator[memoryview | Hole]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """The next bytes, or the next hole."""
        while not len(self._rest):
            try:
                piece = next(self._pieces, None)
            except (HostelError, OSError) as error:
                raise describe(error) from None
            if piece is None:
                return b""
            if isinstance(piece, Hole):
                return piece.length
            self._rest = piece
        data, self._rest = bytes(self._rest[:length]), self._rest[length:]
        return data

    def wait(self, timeout: float) -> bool:
        """There is always something: it is read when it is asked for."""
        return True

    def send(self, data: bytes) -> None:
        """A download takes nothing."""
        raise _wrong_way()

    def send_hole(self, length: int) -> None:
        """A download takes nothing."""
        raise _wrong_way()

    def finish(self) -> None:
        """Let the volume go."""
        self.abort()

    def abort(self) -> None:
        """Let the volume go."""
        self._rest.release()
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


class _GaveUp(Exception):
    """The one who sends has aborted."""


class Upload:
    """What a volume's bytes become, as a stream; a thread writes.

    Args:
        take: stores them; it asks for more than ``length`` bytes when the volume may be used.
        length: bytes that are announced; 0 where they are not.
    """

    def __init__(self, take: Callable[[Iterator[bytes | Hole]], None], length: int) -> None:
        self._queue: queue.Queue[bytes | Hole | _GaveUp | None] = queue.Queue(_AHEAD)
        self._error: Exception | None = None
        self._done = threading.Event()
        self._settled = threading.Event()
        self._length = length
        self._coming = length  # bytes of it that are still to be sent
        self._take = take
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._take(self._pieces())
        except _GaveUp:
            pass
        except Exception as error:
            self._error = error
        finally:
            self._done.set()
            self._settled.set()

    def _pieces(self) -> Iterator[bytes | Hole]:
        given = 0
        while True:
            if self._length and given >= self._length:
                self._settled.set()
            try:
                piece = self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                raise fault(ErrorCode.OPERATION_TIMEOUT, "nothing was sent", ErrorDomain.STREAMS) from None
            if piece is None:
                return
            if isinstance(piece, _GaveUp):
                raise piece
            given += piece_size(piece)
            yield piece

    def _add(self, piece: bytes | Hole) -> None:
        """Hand over a piece; with the last one of what was announced, wait until the volume may be used."""
        self._check()
        self._put(piece)
        if self._coming > 0:
            self._coming -= piece_size(piece)
            if self._coming <= 0:
                self._settled.wait()

    def _put(self, piece: bytes | Hole | _GaveUp | None) -> None:
        """Hand a piece to the thread, which may have ended."""
        while not self._done.is_set():
            try:
                self._queue.put(piece, timeout=0.1)
                return
            except queue.Full:
                continue

    def _check(self) -> None:
        if self._done.is_set() and self._error is not None:
            raise describe(self._error)

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """An upload gives nothing."""
        raise _wrong_way()

    def wait(self, timeout: float) -> bool:
        """Nothing but a failure is to be heard."""
        return self._done.wait(timeout) and self._error is not None

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._add(bytes(data))

    def send_hole(self, length: int) -> None:
        """Send a hole."""
        self._add(Hole(length))

    def finish(self) -> None:
        """Wait until all of it is where it belongs."""
        self._put(None)
        self._thread.join()
        self._check()

    def abort(self) -> None:
        """Stop; what was written stays."""
        self._put(_GaveUp())
        self._thread.join()


class Console:
    """A guest's serial port, as a stream."""

    def __init__(self, console: ConsoleStream) -> None:
        self._console = console
        self._seen: bytes | None = None  # read, and not asked for yet
        self._lock = threading.Lock()

    def receive(self, length: int, *, block: bool) -> bytes | int | None:
        """What the guest has written."""
        while True:
            self.wait(0.5 if block else 0.0)
            with self._lock:
                seen = self._seen
                if seen is not None:
                    # The end stays the end.
                    self._seen = seen[length:] or (None if seen else b"")
                    return seen[:length]
            if not block:
                return None

    def wait(self, timeout: float) -> bool:
        """Whether the guest has written, or is gone."""
        with self._lock:
            if self._seen is None:
                self._seen = self._console.read(_SERIAL, timeout)
            return self._seen is not None

    def send(self, data: bytes) -> None:
        """Write to the guest."""
        self._console.write(data)

    def send_hole(self, length: int) -> None:
        """A serial port has none."""
        raise _wrong_way()

    def finish(self) -> None:
        """Detach."""
        self._console.close()

    def abort(self) -> None:
        """Detach."""
        self._console.close()


def _wrong_way() -> VirtError:
    return fault(ErrorCode.OPERATION_INVALID, "the stream does not go this way", ErrorDomain.STREAMS)
