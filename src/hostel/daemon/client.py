"""One client: its connection, what it has opened, the calls that are worked on, its streams and events."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon import auth
from hostel.daemon.access import Identity, api_name, check_looking
from hostel.daemon.calls import OPENING, Handling, find
from hostel.daemon.fault import describe, located, speaker
from hostel.daemon.given import check_given
from hostel.daemon.hosts import Host
from hostel.daemon.stream import Stream, Upload
from hostel.drivers.adapters import uuid_text
from hostel.drivers.autodestroy import end_all
from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, HostelError, ProtocolError, VirtError
from hostel.net.channel import Channel, close_all
from hostel.units import KiB, MiB
from hostel.wire.rpc import keepalive
from hostel.wire.rpc.connection import (
    Alive,
    Call,
    Handed,
    ServerConnection,
    ServerEvent,
    StreamData,
    StreamEnd,
    StreamFrames,
    StreamHole,
)
from hostel.wire.rpc.programs import PROGRAMS
from hostel.wire.rpc.scram import ScramServer

if TYPE_CHECKING:
    from hostel.daemon.server import Daemon

_SMALL: Final = 64 * KiB  # bytes of arguments that are worked on in the loop
_WAITING: Final = 4 * MiB  # bytes of the arguments of calls that wait; while there are more, no more calls are read
_UNSENT: Final = 4 * MiB  # bytes of answers; while more wait to be taken, no more calls are read
_TURN: Final = 0.01  # seconds for which one client's calls are answered in the loop before it is another's turn
_UNOPENED_MESSAGE: Final = 64 * KiB  # bytes of a message of somebody who has opened nothing


class Client:
    """One connection. Everything happens in the loop, but for what workers and streams do.

    Args:
        daemon: whose client it is.
        channel: its connection.
        number: what it is called in logs.
        identity: who it is.
        read_only: it may only look.
        needs_password: it may do nothing before it has shown that it knows one.

    Attributes:
        channel: see above.
        identity: see above.
        read_only: see above.
        host: the drivers that it has opened.
        uri: how it calls them.
        scram: the attempt that is under way.
        since: when it came, by the monotonic clock.
        migrating: the domains of whose migration it leads the steps.
        autodestroys: the domains that end with it.
    """

    def __init__(
        self,
        daemon: Daemon,
        channel: Channel,
        number: int,
        identity: Identity,
        *,
        read_only: bool,
        needs_password: bool = False,
    ) -> None:
        self.daemon: Daemon = daemon
        self.channel = channel
        self.number = number
        self.identity = identity
        self.read_only = read_only
        self.host: Host | None = None
        self.uri: str = ""
        self.since = time.monotonic()
        self.needs_password = needs_password
        self.scram: ScramServer | None = None
        self.callbacks: dict[int, Any] = {}
        self.migrating: set[str] = set()
        self.autodestroys: list[DomainRef] = []
        self._machine = ServerConnection(PROGRAMS, min(_UNOPENED_MESSAGE, daemon.config.limits.message))
        self._working = 0  # calls that workers have
        self._waiting: deque[Call] = deque()
        self._waiting_size = 0  # bytes of their arguments
        self._arrived: deque[ServerEvent] = deque()
        self._goes_on = False  # more has arrived than a turn was long enough for
        self._awaits_reader = False  # it is to take its answers before it is given more
        self._streams: dict[int, Stream] = {}
        self._paused: set[object] = set()
        self._lock = threading.Lock()  # of the streams and the reasons to pause
        self._keepalive: keepalive.KeepAlive | None = None
        channel.receive = self._receive
        channel.room = self._machine.splitter.room
        channel.received = self._received
        channel.closed = self._closed

    def opened(self, uri: str, host: Host) -> None:
        """Remember what was opened; from then on it is a client like others."""
        self.uri, self.host = uri, host
        self._machine.splitter.limit = self.daemon.config.limits.message
        self.daemon.client_opened(self)

    def let_in(self, user: str) -> None:
        """It has shown who it is."""
        self.needs_password = False
        self.identity = self.identity._replace(user=user)
        self.daemon.log("user", client=self.number, user=user)

    def close_host(self) -> None:
        """Let go of what was opened."""
        if self.migrating:
            from hostel.daemon.migration import forsake

            forsake(self)
        if self.autodestroys and self.host is not None:
            end_all(self.host.drivers.hypervisor, self.autodestroys)
        host, self.host = self.host, None
        if host is not None:
            self.daemon.events.forget(self, host)
            self.daemon.hosts.release(host)

    def start_keepalive(self) -> None:
        """The client can answer questions: ask when it is silent."""
        limits = self.daemon.config.limits
        if limits.keepalive_interval and self._keepalive is None:
            now = time.monotonic()
            self._keepalive = keepalive.KeepAlive(limits.keepalive_interval, limits.keepalive_count, now)
            self._arm(now)

    def send(self, message: bytes) -> None:
        """Send; from any thread."""
        self.channel.send(message)

    def pause(self, reason: object, on: bool) -> None:
        """Read no more for a reason, or go on without it; from any thread."""
        with self._lock:
            if on:
                self._paused.add(reason)
            else:
                self._paused.discard(reason)
        self.daemon.reactor.call_soon(self._apply_pause)

    def _apply_pause(self) -> None:
        if not self.channel.is_closed:
            self.channel.read(not self._paused)

    # What arrives.

    def _receive(self, data: bytes, fds: Sequence[int]) -> None:
        splitter = self._machine.splitter
        if fds:
            splitter.fds += fds
        try:
            packets = splitter.feed(data)
            if packets:
                self._take(packets)
        except ProtocolError as error:
            self._broken(error)

    def _received(self, count: int) -> None:
        try:
            packets = self._machine.splitter.received(count)
            if packets:
                self._take(packets)
        except ProtocolError as error:
            self._broken(error)

    def _take(self, packets: Sequence[Any]) -> None:
        if self._keepalive is not None:
            self._keepalive.heard(time.monotonic())
        self._arrived += self._machine.receive(packets)
        if not self._goes_on:
            self._deal_with_arrived()

    def _deal_with_arrived(self) -> None:
        """Deal with what has arrived, for as long as a turn is: the calls of other clients wait meanwhile."""
        self._goes_on = False
        try:
            self._take_turn()
        finally:
            if not self.channel.is_closed:
                self._end_turn()

    def _take_turn(self) -> None:
        arrived = self._arrived
        end = time.monotonic() + _TURN
        while arrived and not self.channel.is_closed:
            self._deal_with(arrived.popleft())
            if time.monotonic() > end:
                break

    def _end_turn(self) -> None:
        """Ask for another turn, where one is needed and somebody takes what comes of it."""
        machine = self._machine
        if machine.out:
            self.channel.send(*machine.out)
            machine.out.clear()
        if self.channel.queued > _UNSENT and not self._awaits_reader:
            self._wait_for_reader()
        self._goes_on = bool(self._arrived)
        if self._goes_on and not self._awaits_reader:
            self.daemon.reactor.call_soon(self._deal_with_arrived)
        if self._goes_on is not (self._turn_reason in self._paused):
            self.pause(self._turn_reason, self._goes_on)

    def _deal_with(self, event: ServerEvent) -> None:
        if type(event) is Call:
            self._call(event)
        elif isinstance(event, StreamData | StreamHole | StreamEnd):
            stream = self._streams.get(event.serial)
            # What was under way when a stream ended is passed over.
            if stream is not None:
                stream.receive(event)
        else:
            assert isinstance(event, Alive)

    def _broken(self, error: ProtocolError) -> None:
        self.daemon.log("client broke the protocol", client=self.number, reason=str(error))
        self.channel.close(error)

    def _wait_for_reader(self) -> None:
        self._awaits_reader = True
        self.pause(self._reader_reason, True)
        self.daemon.reactor.call_later(0.05, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.channel.is_closed:
            return
        if self.channel.queued > _UNSENT // 2:
            self.daemon.reactor.call_later(0.05, self._look_at_reader)
            return
        self._awaits_reader = False
        self.pause(self._reader_reason, False)
        if self._goes_on:
            self._deal_with_arrived()

    # Calls.

    def _call(self, call: Call) -> None:
        handling = find(call)
        try:
            if handling is None:
                self._check(call)
                raise _unsupported(call)
            if self.needs_password and call.procedure.name not in auth.ANSWERS:
                raise VirtError(ErrorCode.AUTH_FAILED, "authentication required", domain=ErrorDomain.RPC)
            if self.host is None and call.procedure.name not in OPENING:
                raise VirtError(
                    ErrorCode.INTERNAL_ERROR, "internal error: connection not open", domain=ErrorDomain.THREAD
                )
            self._check(call)
        except VirtError as error:
            close_all(call.fds)
            self._refuse(call, error)
            return
        at_once = handling.quick or (
            self.host is not None
            and self.host.in_memory
            and not (handling.streams or handling.asks)
            and call.size <= _SMALL
        )
        if at_once:
            self._answer(call, handling)
        elif not self._may_begin():
            self._waiting.append(call)
            self._waiting_size += call.size
            if len(self._waiting) >= self.daemon.config.limits.waiting or self._waiting_size > _WAITING:
                self.pause(self._waiting_reason, True)
        else:
            self._submit(call, handling)

    _waiting_reason: Final = "calls"
    _turn_reason: Final = "turn"
    _reader_reason: Final = "reader"

    def _check(self, call: Call) -> None:
        if self.read_only:
            check_looking(call.procedure, call.arguments)

    def _submit(self, call: Call, handling: Handling) -> None:
        self._working += 1

        def work() -> None:
            try:
                self._answer(call, handling)
            finally:
                self.daemon.reactor.call_soon(self._worked)

        self.daemon.workers.submit(work, urgent=call.procedure.high)

    def _may_begin(self) -> bool:
        """Whether a call may be worked on: not while a volume that was sent whole is still being stored."""
        if self._working >= self.daemon.config.limits.requests:
            return False
        with self._lock:
            return not any(isinstance(stream, Upload) and stream.is_settling for stream in self._streams.values())

    def settled(self) -> None:
        """What a stream has brought is ready; from any thread."""
        self.daemon.reactor.call_soon(self._begin_waiting)

    def _begin_waiting(self) -> None:
        while self._waiting and self._may_begin():
            call = self._waiting.popleft()
            self._waiting_size -= call.size
            handling = find(call)
            assert handling is not None
            self._submit(call, handling)
            if len(self._waiting) < self.daemon.config.limits.waiting // 2 and self._waiting_size <= _WAITING // 2:
                self.pause(self._waiting_reason, False)

    def _worked(self) -> None:
        self._working -= 1
        self._begin_waiting()
        if self.channel.is_closed:
            self._drop_waiting()
            self._let_go()

    def _answer(self, call: Call, handling: Handling) -> None:
        """Work on a call, in the loop or a worker, and send what comes of it."""
        access = self.daemon.access
        fds: tuple[int, ...] = ()
        try:
            if not access.is_open:
                access.check(self.identity, call.procedure, call.arguments, self._name_of)
            check_given(call.procedure, call.arguments)
            result = handling.answer(self, call)
            if result is None:
                return  # a stream, which answers by itself
            if isinstance(result, Handed):
                result, fds = result
                if not self.channel.takes_fds:
                    raise fault(ErrorCode.NO_SUPPORT, "files cannot be passed but over a unix socket")
            if not access.is_open:
                access.check_found(self.identity, call.procedure, result)
            message = self._machine.reply(call, result, len(fds))
        except Exception as error:
            close_all(fds)
            self._refuse(call, error)
            return
        finally:
            close_all(call.fds)
        self.channel.send(message, *fds)

    def _name_of(self, kind: str, reference: Any) -> str:
        """The name of the object that a reference is to.

        Raises:
            VirtError: there is none, or it is another one than the reference says.
        """
        if self.host is None or kind not in ("domain", "network", "pool"):
            return str(reference[0])
        drivers = self.host.drivers
        uuid = uuid_text(reference.uuid)
        if kind == "domain":
            name = drivers.hypervisor.domain_lookup_by_uuid(uuid).name
        elif kind == "network":
            name = drivers.network.network_lookup_by_uuid(uuid).name
        else:
            name = drivers.storage.storage_pool_lookup_by_uuid(uuid).name
        if name != reference.name:
            raise fault(ErrorCode.INVALID_ARG, f"'{reference.name}' does not have the UUID {uuid}")
        return name

    def _refuse(self, call: Call, error: Exception) -> None:
        described = self.described(error)
        if self.host is not None:
            name = call.procedure.name
            described = located(described, api_name(name), speaker(name, self.host.drivers.uri))
        self.channel.send(self._machine.error(call, described))

    def described(self, error: Exception) -> VirtError:
        """An exception as the client is told it; one that is our mistake is logged."""
        if not isinstance(error, HostelError | OSError | UnicodeEncodeError):
            self.daemon.failed(error)
        return describe(error)

    # Streams.

    def open_stream(self, call: Call, stream: Stream, run: Any) -> None:
        """Let a thread carry a stream.

        Raises:
            VirtError: ``RESOURCE_BUSY``: the client has too many.
        """
        with self._lock:
            if len(self._streams) >= self.daemon.config.limits.streams:
                raise fault(ErrorCode.RESOURCE_BUSY, f"there are {len(self._streams)} streams already")
            if self.channel.is_closed:
                raise VirtError(ErrorCode.RPC, "connection closed", domain=ErrorDomain.RPC)
            self._streams[call.serial] = stream
        threading.Thread(target=run, name=f"stream-{self.number}", daemon=True).start()

    @staticmethod
    def frames(call: Call) -> StreamFrames:
        """The messages of the stream that a call opens."""
        return StreamFrames.of(call)

    def accepted(self, call: Call, result: Sequence[Any] = ()) -> None:
        """Answer a call whose stream begins."""
        self.channel.send(self._machine.reply(call, result))

    def refused(self, call: Call, error: Exception) -> None:
        """Answer a call whose stream does not begin."""
        self._refuse(call, error)

    def forget(self, serial: int, stream: Stream) -> None:
        """A stream is over; from any thread."""
        with self._lock:
            if self._streams.get(serial) is stream:
                del self._streams[serial]
            self._paused.discard(stream)
        self.daemon.reactor.call_soon(self._apply_pause)

    # Time, and the end.

    def _arm(self, now: float) -> None:
        if self._keepalive is not None:
            self.daemon.reactor.call_later(max(0.0, self._keepalive.deadline - now), self._ask)

    def _ask(self) -> None:
        if self.channel.is_closed or self._keepalive is None:
            return
        now = time.monotonic()
        if self._paused or self.channel.queued:
            # We do not read its answers, or it has not come to our question yet: it is slow, not dead.
            self._keepalive.heard(now)
        try:
            if self._keepalive.due(now):
                self.channel.send(keepalive.ping)
        except TimeoutError as error:
            self.daemon.log("client is dead", client=self.number, reason=str(error))
            self.channel.close(error)
            return
        self._arm(now)

    def _closed(self, error: Exception | None) -> None:
        with self._lock:
            streams = list(self._streams.values())
            self._streams.clear()
        for stream in streams:
            stream.cut()
        self._drop_waiting()
        close_all(self._machine.splitter.fds)  # of a message that is not whole
        self._machine.splitter.fds.clear()
        self.daemon.client_closed(self, error)
        if not self._working:
            self._let_go()

    def _drop_waiting(self) -> None:
        for event in (*self._waiting, *self._arrived):
            if isinstance(event, Call):
                close_all(event.fds)
        self._waiting.clear()
        self._arrived.clear()

    def _let_go(self) -> None:
        # Closing drivers may take a while, and nobody waits for it.
        if self.host is not None:
            self.daemon.workers.submit(self.close_host)


def _unsupported(call: Call) -> VirtError:
    return fault(ErrorCode.NO_SUPPORT, api_name(call.procedure.name))
