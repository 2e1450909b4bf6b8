"""The source's steps: Begin, Perform and Confirm.

Perform takes as long as the guest's memory needs, so the domain's lock is held only for a moment at a time: to look how
far QEMU is, and to say what comes next. The lease keeps everybody away who would change the machine meanwhile.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from hostel.drivers.base import DomainRef, PausedReason
from hostel.drivers.base.migration import (
    BANDWIDTH,
    COPIES_DISKS,
    DEST_NAME,
    DEST_XML,
    DISKS_URI,
    MIGRATE_DISKS,
    PERSIST_XML,
    TLS_DESTINATION,
    URI,
    MigrateFlag,
    Parameters,
    Tunnel,
)
from hostel.drivers.fault import fault
from hostel.drivers.qemu import document, jobstats, lease
from hostel.drivers.qemu.balloon import refresh
from hostel.drivers.qemu.firmware.nvram import usual_file
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import Machines, failed, invalid, not_running, not_stored
from hostel.drivers.qemu.migration import cookie as cookies
from hostel.drivers.qemu.migration import copying, encryption, statistics
from hostel.drivers.qemu.migration.carrying import Carrier
from hostel.drivers.qemu.migration.rules import check_allowed, check_encrypted, check_flags, check_safe, copied_disks
from hostel.drivers.qemu.migration.same import check_same
from hostel.drivers.qemu.migration.settling import resume, take_back, wake
from hostel.drivers.qemu.migration.tuning import UNLIMITED, Tuning, apply, number, text, texts, tuning
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot.catalog import Catalog
from hostel.drivers.qemu.status import Migration
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.domain.volumes import name_volumes

_MIB: Final = 1 << 20
_POLL: Final = 0.05  # seconds
_STALLED: Final = 300.0  # seconds in which nothing moves
_ENDED: Final = ("completed", "failed", "cancelled")
_MOST_MIB: Final = UNLIMITED // _MIB


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Where(NamedTuple):
    """Where the destination waits; ``host`` is empty where it is a socket or a tunnel."""

    uri: str
    host: str = ""


def where_from(uri: str | None) -> Where:
    """Read a migration's URI: ``tcp:host:port``, ``tcp://host:port`` or ``unix:///path``.

    Raises:
        VirtError: ``INVALID_ARG``, ``ARGUMENT_UNSUPPORTED``.
    """
    if uri is None:
        raise fault(ErrorCode.INVALID_ARG, "missing migration URI", ErrorDomain.QEMU)
    scheme, colon, rest = uri.partition(":")
    if not colon:
        raise fault(ErrorCode.INVALID_ARG, f"missing scheme in migration URI: {uri}", ErrorDomain.QEMU)
    if scheme == "unix":
        return Where(f"unix:{urlsplit(uri).path}")
    if scheme != "tcp":
        what = f"unsupported scheme {scheme} in migration URI {uri}"
        raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
    parts = urlsplit(f"tcp://{rest.removeprefix('//')}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise fault(ErrorCode.INVALID_ARG, f"migration URI {uri}: {error}", ErrorDomain.QEMU) from None
    if not host:
        raise fault(ErrorCode.INVALID_ARG, f"missing host in migration URI: {uri}", ErrorDomain.QEMU)
    return Where(f"tcp:{f'[{host}]' if ':' in host else host}:{port or 0}", host)


def begin(
    machines: Machines,
    platform: Platform,
    machine: Running | None,
    stored: Domain | None,
    params: Parameters,
    flags: MigrateFlag,
) -> tuple[bytes, str]:
    """Begin; the caller holds the domain's lock.

    Raises:
        VirtError: it cannot move, or must not.
    """
    check_flags(flags)
    tuning(params, flags, is_source=True)
    if machine is not None:
        refresh(machine)
    held = machine.domain if machine is not None else stored
    assert held is not None
    if machine is None and not flags & MigrateFlag.OFFLINE:
        raise not_running()
    if flags & MigrateFlag.OFFLINE:
        if stored is None:
            raise not_stored()
        held, machine = stored, None
    if count := len(Catalog(machines, held.name).names()):
        raise invalid(f"cannot migrate domain with {count} snapshots")
    copied: list[Disk] = []
    if machine is not None:
        check_allowed(machine, flags)
        if flags & COPIES_DISKS:
            copied = copied_disks(held, texts(params, MIGRATE_DISKS))
        if not flags & MigrateFlag.UNSAFE:
            check_safe(held, copied)
    cookie = cookies.new(machines.directories, held.name, held.uuid or "")
    if machine is not None:
        cookie.capabilities = cookies.capabilities(machine)
        cookies.add_locks(cookie, machine)
        if flags & COPIES_DISKS:
            cookie.nbd = cookies.Nbd(disks=[_copied(machine, disk) for disk in copied])
    wanted = _wanted(machines, held, platform, params)
    if machine is not None and flags & MigrateFlag.CHANGE_PROTECTION:
        _take(machine, Migration(way="out", phase="begin", flags=int(flags), began=now()))
    return cookies.written(cookie), wanted


def _take(machine: Running, mark: Migration) -> None:
    """Be the one who moves a machine, and mark it; nobody is where that cannot be written down."""
    lease.take(machine.lease)
    try:
        machine.save(migration=mark)
    except BaseException:
        lease.let_go(machine.lease)
        raise


def _wanted(machines: Machines, held: Domain, platform: Platform, params: Parameters) -> str:
    """The document for the destination."""
    xml = text(params, DEST_XML)
    if xml is None:
        return _movable(held, machines).format()
    wanted, known = document.parse(xml, platform, is_given=False), held.copy()
    name_volumes(known)
    document.finish(known, platform, is_given=False)
    check_same(known, wanted, name=text(params, DEST_NAME))
    return wanted.format()


def _movable(held: Domain, machines: Machines) -> Domain:
    """A document without the files that are this host's own: the destination has its own for them."""
    copy = held.copy()
    name_volumes(copy)  # the destination's pools may have them elsewhere
    for interface in copy.devices.interfaces:
        interface.actual = None  # the destination's network says what it is there
    for channel in copy.devices.channels:
        if channel.type == CharacterType.UNIX and channel.source is not None:
            path = channel.source.path or ""
            if channel.source.mode == "bind" and machines.is_of_a_run(path):
                channel.sources = []
    found = copy.os
    nvram = found.nvram if found is not None else None
    if found is not None and nvram is not None and nvram.path == str(usual_file(found, machines.variables(held.name))):
        nvram.path = None
    return copy


def _copied(machine: Running, disk: Disk) -> cookies.CopiedDisk:
    from hostel.drivers.qemu.block.sizes import live_info

    return cookies.CopiedDisk(target=disk.target.dev, capacity=live_info(machine, disk).capacity)


class _Step(enum.Enum):
    """How far Perform is."""

    SENDING = enum.auto()
    ENDING = enum.auto()
    """The guest is stopped, and what its disks have is going."""
    SWITCHING = enum.auto()
    """What is left of the guest is going."""


class Outgoing:
    """Perform, from the first byte to the last.

    Args:
        machines: the session's.
        launcher: for what holds a machine.
        domain: which one.
        params: as the client gave them.
        cookie: the destination's.
        flags: as the client gave them.
        tunnel: where what QEMU sends goes, unless QEMU connects by itself.
        peer: the URI of the destination's daemon, where this side leads.
    """

    def __init__(
        self,
        machines: Machines,
        launcher: Launcher,
        domain: DomainRef,
        params: Parameters,
        cookie: bytes,
        flags: MigrateFlag,
        tunnel: Tunnel | None = None,
        peer: str = "",
    ) -> None:
        self._machines = machines
        self._launcher = launcher
        self._domain = domain
        self._params = params
        self._flags = flags
        self._tunnel = tunnel
        self._peer = peer
        self._said = cookies.read(cookie, machines.directories, domain.name, domain.uuid)
        self._where = where_from(text(params, URI)) if tunnel is None else Where("fd:hostel-migrate")
        self._persistent: Domain | None = None
        self._copied: list[str] = []
        self._ports = cookies.Ports()
        self._step = _Step.SENDING
        self._stopped = self._sent = 0
        self._told: dict[str, int] = {}
        self._began = now()

    def run(self) -> bytes:
        """Send the machine; the cookie for Finish. It is paused then, and stays so until Confirm.

        Raises:
            VirtError: ``OPERATION_FAILED``, ``OPERATION_ABORTED``: it runs on as before.
        """
        path = self._machines.lease(self._domain.name)
        with self._held(begins=True) as machine:
            earlier = machine.status.migration
            if earlier is not None and (earlier.way != "out" or earlier.phase != "begin"):
                raise invalid("domain is being migrated already")
            if earlier is None:  # nothing has kept others from it since it began
                check_allowed(machine, self._flags)
            _take(machine, earlier or Migration(way="out", phase="begin", began=self._began))
        carrier: Carrier | None = None
        try:
            with self._held() as machine:
                self._prepare(machine)
            self._wait_for_copies()
            with self._held() as machine:
                carrier = self._start(machine)
            self._follow()
            if carrier is not None:
                carrier.finish()
            return self._cookie()
        except BaseException:
            if carrier is not None:
                carrier.abort()
            self._give_up()
            lease.let_go(path)
            raise

    @contextlib.contextmanager
    def _held(self, *, begins: bool = False) -> Iterator[Running]:
        """Hold the machine for a moment.

        Raises:
            VirtError: it is no more; somebody has ended the migration.
        """
        with self._machines.locked(self._domain.name):
            status = self._machines.live(self._domain.name)
            if status is None:
                raise failed("migration out job: domain is not running")
            machine = Running(self._machines, status, self._launcher)
            try:
                if not begins and (status.migration is None or status.migration.abort):
                    raise _aborted()
                yield machine
            finally:
                machine.close()

    def _prepare(self, machine: Running) -> None:
        """Say what is about to happen, and set QEMU up for it."""
        check_flags(self._flags)
        check_encrypted(self._flags, machine.settings.migration)
        told = tuning(self._params, self._flags, is_source=True)
        encryption.check_names(self._flags, self._params, self._where.uri, text(self._params, DISKS_URI))
        runs = machine.runs()
        mark = Migration(way="out", phase="perform", flags=int(self._flags), resumes=runs, began=self._began)
        mark.peer, mark.place = self._peer, cookies.known_place(self._said)
        mark.name = text(self._params, DEST_NAME) or machine.name
        disks: list[Disk] = []
        if self._flags & COPIES_DISKS:
            disks = copied_disks(machine.domain, texts(self._params, MIGRATE_DISKS))
        self._copied = [disk.target.dev for disk in disks]
        mark.copied = ",".join(self._copied)
        self._persistent = self._definition(machine)
        self._machines.completed.remove(machine.name)
        paused = int(PausedReason.MIGRATION) if runs else machine.status.paused
        machine.save(migration=mark, paused=paused)
        self._tune(machine, told)
        if disks:
            self._copy(machine, disks)

    def _definition(self, machine: Running) -> Domain | None:
        """What the destination is to keep."""
        if not self._flags & MigrateFlag.PERSIST_DEST:
            return None
        xml = text(self._params, PERSIST_XML)
        if xml is not None:
            wanted = document.parse_stored(xml)
            self._launcher.finish(wanted)
            return wanted
        stored = self._machines.definition(machine.name) or machine.domain
        kept = _movable(stored, self._machines)
        forget_run(kept)
        return kept

    def _tune(self, machine: Running, told: Tuning) -> None:
        speed = number(self._params, BANDWIDTH) or machine.status.speed
        if speed > _MOST_MIB:
            raise fault(ErrorCode.OVERFLOW, f"bandwidth must be less than {_MOST_MIB}", ErrorDomain.QEMU)
        limited = {**told.parameters, "max-bandwidth": speed * _MIB or UNLIMITED}
        limited |= encryption.give(machine, self._flags, self._params, "client")
        apply(machine, told._replace(parameters=limited))

    def _copy(self, machine: Running, disks: list[Disk]) -> None:
        uri = text(self._params, DISKS_URI)
        port = self._said.nbd.port if self._said is not None and self._said.nbd is not None else None
        if uri is None and not port:
            what = "migration of non-shared disks requested but NBD is not set up"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        where = copying.server(uri, self._where.host, port or 0)
        speed = number(self._params, BANDWIDTH) or machine.status.speed
        tls: dict[str, str] = {}
        if self._flags & MigrateFlag.TLS:
            name = text(self._params, TLS_DESTINATION)
            tls = {"tls-creds": encryption.CREDENTIALS, **({"tls-hostname": name} if name else {})}
        copying.begin(machine, disks, where, self._flags, speed * _MIB, tls)

    def _wait_for_copies(self) -> None:
        progress = Progress("migration out job")
        while self._copied:
            with self._held() as machine:
                if copying.are_ready(machine, self._copied):
                    return
                self._check_errors(machine)
                progress.look([job["offset"] for job in machine.ask("query-block-jobs")])
            time.sleep(_POLL)

    def _start(self, machine: Running) -> Carrier | None:
        """Let QEMU send."""
        self._ports = cookies.ports_of(machine.domain)
        if not self._flags & MigrateFlag.LIVE and machine.ask("query-status").get("running"):
            holding.stop(machine)
        carrier: Carrier | None = None
        if self._tunnel is not None:
            carrier = Carrier(self._tunnel)
            try:
                machine.qmp.pass_file("hostel-migrate", carrier.descriptor)
            except QmpError as error:
                carrier.abort()
                raise machine.translated(error, "getfd") from error
            carrier.handed()
        try:
            machine.ask("migrate", uri=self._where.uri)
        except BaseException:
            if carrier is not None:
                carrier.abort()
            raise
        return carrier

    def _follow(self) -> None:
        """Watch QEMU until all is sent, or until the rest follows once the guest runs there."""
        progress = Progress("migration out job")
        while True:
            with self._held() as machine:
                found = machine.ask("query-migrate")
                match found.get("status"):
                    case "completed" | "postcopy-active":
                        self._sent_all(machine, found)
                        return
                    case "failed" | "cancelled":
                        raise failed(f"job 'migration out' failed: {found.get('error-desc', found['status'])}")
                    case "pre-switchover":
                        self._switch_over(machine)
                    case "cancelling":
                        wake(machine)
                    case _:
                        self._check_errors(machine)
                        if self._copied:
                            copying.check(machine, self._copied)
                progress.look([found.get("status"), found.get("ram", {}).get("transferred")])
            time.sleep(_POLL if self._step is _Step.SENDING else _POLL / 5)

    def _switch_over(self, machine: Running) -> None:
        """The guest is stopped: once its disks are all there as well, the rest of it goes."""
        if self._step is _Step.SENDING:
            copying.end(machine, self._copied)
            self._step = _Step.ENDING
        if self._step is _Step.ENDING and copying.are_over(machine, self._copied):
            if self._copied:
                self._disks(machine)
                copying.drop(machine)
                self._copied = []
            machine.ask("migrate-continue", state="pre-switchover")
            self._step = _Step.SWITCHING

    def _disks(self, machine: Running) -> None:
        """Remember how much was copied, which QEMU forgets."""
        jobs = [job for job in machine.ask("query-jobs") if str(job["id"]).startswith(copying.PREFIX)]
        done = sum(int(job["current-progress"]) for job in jobs)
        self._told = {"disk_total": done, "disk_processed": done, "disk_remaining": 0}

    def _check_errors(self, machine: Running) -> None:
        if self._flags & MigrateFlag.ABORT_ON_ERROR and machine.ask("query-status").get("status") == "io-error":
            raise failed("migration out job: failed due to I/O error")

    def _sent_all(self, machine: Running, found: dict[str, Any]) -> None:
        mark = machine.status.migration
        assert mark is not None
        mark.phase = "performed"
        is_postcopy = found["status"] == "postcopy-active"
        machine.save(paused=int(PausedReason.POSTCOPY if is_postcopy else PausedReason.MIGRATION), migration=mark)
        holding.settle(machine, gone=True)
        self._stopped = self._sent = now()
        copied = self._told
        self._told = statistics.numbers(found, [], self._stopped - self._began) | copied
        for name in ("total", "processed", "remaining"):
            self._told[f"data_{name}"] += copied.get(f"disk_{name}", 0)
        jobstats.keep(machine, self._told)

    def _cookie(self) -> bytes:
        cookie = cookies.new(self._machines.directories, self._domain.name, self._domain.uuid)
        cookie.domain, cookie.network = self._persistent, self._ports
        if self._flags & COPIES_DISKS:
            cookie.nbd = cookies.Nbd()  # so that libvirt ends its server, without which it could not move on
        cookie.statistics = statistics.as_cookie(self._told, self._began, self._stopped, self._sent)
        return cookies.written(cookie)

    def _give_up(self) -> None:
        """Bring the machine back to where it was."""
        with contextlib.suppress(VirtError), self._machines.locked(self._domain.name):
            status = self._machines.live(self._domain.name)
            if status is None or status.migration is None:
                return
            machine = Running(self._machines, status, self._launcher)
            try:
                take_back(machine)
                resume(machine)
            finally:
                machine.close()


class Progress:
    """Sees to it that something moves; ``what`` is named where nothing does."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last: object = None
        self._deadline = time.monotonic() + _STALLED

    def look(self, seen: object) -> None:
        """Look at what should change from time to time.

        Raises:
            VirtError: ``OPERATION_TIMEOUT``.
        """
        if seen != self._last:
            self._last, self._deadline = seen, time.monotonic() + _STALLED
        elif time.monotonic() >= self._deadline:
            what = f"{self._what}: nothing was sent for {_STALLED:.0f} seconds"
            raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU)


def _aborted() -> VirtError:
    message = "operation aborted: migration out job: canceled by client"
    return VirtError(ErrorCode.OPERATION_ABORTED, message, domain=ErrorDomain.QEMU)
