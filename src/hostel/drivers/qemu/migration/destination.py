"""The destination's steps: Prepare and Finish."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.cause.holder import find_holders
from hostel.drivers.base import DomainRef, PausedReason, RunningReason
from hostel.drivers.base.migration import (
    COPIES_DISKS,
    DEST_NAME,
    DEST_XML,
    DISKS_PORT,
    DISKS_URI,
    LISTEN_ADDRESS,
    MIGRATE_DISKS,
    URI,
    MigrateFlag,
    Parameters,
)
from hostel.drivers.events import Defined, Lifecycle, Started
from hostel.drivers.fault import fault
from hostel.drivers.qemu import document, jobstats, lease
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.block.create import create_image
from hostel.drivers.qemu.command.disk import format_node
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import Machines, failed, invalid
from hostel.drivers.qemu.migration import cookie as cookies
from hostel.drivers.qemu.migration import copying, encryption, statistics
from hostel.drivers.qemu.migration.rules import check_encrypted, check_flags, copied_disks
from hostel.drivers.qemu.migration.settling import arrive, drop, has_run, pending
from hostel.drivers.qemu.migration.source import now, where_from
from hostel.drivers.qemu.migration.tuning import Tuning, apply, number, text, texts, tuning
from hostel.drivers.qemu.origin import Origin
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.source import translate
from hostel.drivers.qemu.status import Migration, Pending
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import BackingStore, DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.volumes import name_volumes
from hostel.model.pool import read_pool
from hostel.model.storage import Capacity, PoolType, Volume, VolumeTarget

_POLL: Final = 0.02  # seconds
_ARRIVAL_SECONDS: Final = 300.0


class Prepared(NamedTuple):
    """What Prepare gives.

    Attributes:
        cookie: for Perform.
        uri: where QEMU waits, if the client did not say.
        descriptor: where to write what comes through a tunnel, or -1.
    """

    cookie: bytes
    uri: str | None
    descriptor: int = -1


class Incoming:
    """Prepare.

    Args:
        machines: the session's.
        launcher: starts QEMU.
        params: as the client gave them.
        cookie: the source's.
        flags: as the client gave them.
    """

    def __init__(
        self, machines: Machines, launcher: Launcher, params: Parameters, cookie: bytes, flags: MigrateFlag
    ) -> None:
        xml = text(params, DEST_XML)
        if xml is None:
            raise fault(ErrorCode.INTERNAL_ERROR, "no domain XML passed", ErrorDomain.QEMU)
        check_flags(flags)
        self._machines = machines
        self._launcher = launcher
        self._params = params
        self._flags = flags
        self._settings = launcher.settings().migration
        check_encrypted(flags, self._settings)
        self._told: Tuning = tuning(params, flags, is_source=False)
        self.domain = document.parse_stored(xml)
        self._original = self.domain.name
        self.domain.name = text(params, DEST_NAME) or self._original
        self._said = cookies.read(cookie, machines.directories, self._original, self.domain.uuid or "")
        self._copied = self._disks() if flags & COPIES_DISKS and self._said is not None else []
        self._uri: str | None = text(params, URI)
        self._port: int | None = None  # of the NBD server
        self._writes = -1
        self._can: cookies.Capabilities | None = None

    def _disks(self) -> list[Disk]:
        assert self._said is not None
        if self._said.nbd is None:
            return []
        return copied_disks(self.domain, texts(self._params, MIGRATE_DISKS))

    def run(self, *, tunnelled: bool = False) -> Prepared:
        """Wait for the machine; the caller holds the domain's lock, and has found nothing that is in the way.

        Raises:
            VirtError: nothing waits, and nothing is left.
        """
        name = self.domain.name
        path = self._machines.lease(name)
        if lease.is_leased(path):
            raise invalid(f"domain '{name}' is expected already")
        lease.take(path)
        mark = Migration(way="in", phase="prepare", flags=int(self._flags), name=self._original, began=now())
        try:
            self._machines.incoming.write(name, Pending(migration=mark, domain=self.domain).format())
            uri = None
            if not self._flags & MigrateFlag.OFFLINE:
                self._make_images(mark)
                uri = self._start(mark, tunnelled=tunnelled)
                self._machines.incoming.remove(name)
            else:
                self._check_offline()
                uri = self._uri or f"tcp:{socket.gethostname()}:{self._settings.ports[0]}"
        except BaseException:
            self._machines.undo_arrival(name, mark)
            self._machines.incoming.remove(name)
            lease.let_go(path)
            raise
        return Prepared(self._cookie(), uri, self._writes)

    def _check_offline(self) -> None:
        wanted = self.domain.copy()
        self._launcher.finish(wanted, is_given=False)

    def _make_images(self, mark: Migration) -> None:
        """Make the files of disks that are copied, where they are not there."""
        sizes = {disk.target: disk.capacity for disk in self._said.nbd.disks} if self._said and self._said.nbd else {}
        for disk in self._copied:
            if disk.type == SourceType.VOLUME:
                self._make_volume(mark, disk, sizes)
                continue
            chain = list(images(disk))
            top = chain[0]
            if not self._flags & MigrateFlag.NON_SHARED_INC:
                disk.backing_store = BackingStore() if top.format == "qcow2" else None
            if top.file is None:
                continue
            if Path(top.file).exists():
                _check_unused(disk, top.file)
                continue
            size = _size(disk, sizes)
            below = chain[1] if self._flags & MigrateFlag.NON_SHARED_INC and len(chain) > 1 else None
            mark.made.append(top.file)
            name = self.domain.name
            self._machines.incoming.write(name, Pending(migration=mark, domain=self.domain).format())
            create_image(top, size, self._launcher.find_secret, backing=below)

    def _make_volume(self, mark: Migration, disk: Disk, sizes: Mapping[str, int]) -> None:
        """Make the volume that a disk is copied to, where its pool has none of the name."""
        is_full = not self._flags & MigrateFlag.NON_SHARED_INC
        if is_full:
            disk.backing_store = BackingStore() if disk.image_format == "qcow2" else None
        storage, source, found = self._launcher.storage, disk.source or DiskSource(), disk.copy()
        try:
            translate(found, storage)
        except VirtError as error:
            if error.code is not ErrorCode.NO_STORAGE_VOL:
                raise
        else:
            top = next(images(found))
            if top.file is not None:
                _check_unused(disk, top.file)
            return
        if not is_full:
            what = "pre-creation of storage targets for incremental storage migration is not supported"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, f"{what}: make volume '{source.volume}'", ErrorDomain.QEMU)
        assert storage is not None
        size = _size(disk, sizes)
        pool = storage.storage_pool_lookup_by_name(source.pool or "")
        document = read_pool(storage.storage_pool_get_xml_desc(pool))
        if document.type in (PoolType.DIR, PoolType.FS, PoolType.NETFS) and document.target is not None:
            mark.made.append(f"{document.target.path}/{source.volume}")
            name = self.domain.name
            self._machines.incoming.write(name, Pending(migration=mark, domain=self.domain).format())
        target = VolumeTarget(format_type=disk.image_format)
        wanted = Volume(name=source.volume, capacity=Capacity(value=size, unit="bytes"), target=target)
        storage.storage_vol_create_xml(pool, wanted.format())

    def _start(self, mark: Migration, *, tunnelled: bool) -> str | None:
        """Start a QEMU that waits."""
        let_in = self._let_in_tunnel if tunnelled else self._let_in
        origin = Origin(
            RunningReason.MIGRATED, Started.MIGRATED, paused=PausedReason.MIGRATION, prepare=let_in, migration=mark
        )
        try:
            self._launcher.start(self.domain, paused=True, origin=origin)
        except BaseException:
            if self._writes >= 0:
                os.close(self._writes)
            raise
        return None if tunnelled else self._uri

    def _tune(self, machine: Running) -> None:
        tls = encryption.give(machine, self._flags, self._params, "server")
        apply(machine, self._told._replace(parameters={**self._told.parameters, **tls}))
        self._can = cookies.capabilities(machine)

    def _let_in_tunnel(self, machine: Running) -> None:
        self._tune(machine)
        reads, self._writes = os.pipe2(os.O_CLOEXEC)
        try:
            machine.qmp.pass_file("hostel-incoming", reads)
        except QmpError as error:
            raise machine.translated(error, "getfd") from error
        finally:
            os.close(reads)
        machine.ask("migrate-incoming", uri="fd:hostel-incoming")

    def _let_in(self, machine: Running) -> None:
        """Have QEMU listen: for disks first, since they come first."""
        self._tune(machine)
        address = text(self._params, LISTEN_ADDRESS) or self._settings.address or _any_address()
        if self._copied:
            self._serve_disks(machine, address)
        uri = self._uri
        where = where_from(uri) if uri is not None else None
        if where is not None and where.uri.startswith("unix:"):
            machine.ask("migrate-incoming", uri=where.uri)
            return
        given = int(where.uri.rpartition(":")[2]) if where is not None else 0
        port = _listening(
            lambda port: machine.ask("migrate-incoming", uri=f"tcp:{_in_uri(address)}:{port}"),
            given,
            self._settings.ports,
        )
        if uri is None:
            self._uri = f"tcp:{_in_uri(self._settings.host or _host_name())}:{port}"
        elif not given:
            self._uri = f"{uri.rstrip('/')}:{port}"

    def _serve_disks(self, machine: Running, address: str) -> None:
        uri, given = text(self._params, DISKS_URI), number(self._params, DISKS_PORT)
        if uri is None and not 0 <= given <= 65535:
            raise fault(ErrorCode.INVALID_ARG, "nbd port must be in range 0-65535", ErrorDomain.QEMU)
        where = copying.server(uri, address, given)

        def start(port: int) -> None:
            data = {key: value for key, value in where.items() if key != "type"}
            if where["type"] == "inet":
                data["port"] = str(port)
            tls = {"tls-creds": encryption.CREDENTIALS} if self._flags & MigrateFlag.TLS else {}
            machine.ask("nbd-server-start", addr={"type": where["type"], "data": data}, **tls)

        if where["type"] == "unix":
            start(0)
        else:
            self._port = _listening(start, int(where["port"]), self._settings.ports)
        live = {disk.target.dev: disk for disk in machine.domain.devices.disks}
        for disk in self._copied:
            found = live[disk.target.dev]
            node = format_node(next(images(found)).number)
            name = copying.export_of(found)
            export: dict[str, Any] = {"type": "nbd", "id": name, "name": name, "writable": True}
            machine.ask("block-export-add", **export, **{"node-name": node})

    def _cookie(self) -> bytes:
        cookie = cookies.new(self._machines.directories, self._original, self.domain.uuid or "")
        cookie.place = cookies.place_of(self._machines.directories)
        cookie.capabilities = self._can
        if self._copied:
            cookie.nbd = cookies.Nbd(port=self._port)
        return cookies.written(cookie)


class Come(NamedTuple):
    """A machine that has come.

    Attributes:
        told: what the source told of how it went.
        original: what it is called there.
        received: when all of it was here, in milliseconds since 1970.
        is_postcopy: something is missing, which follows while it runs.
    """

    told: cookies.Numbers | None
    original: str
    received: int
    is_postcopy: bool


def finish(machine: Running, launcher: Launcher, cookie_in: bytes, flags: MigrateFlag) -> Come:
    """Let a machine run that has come; the caller holds the domain's lock.

    Raises:
        VirtError: it has not come whole, or cannot run; nothing is left of it, unless QEMU does not answer.
    """
    mark = machine.status.migration
    assert mark is not None
    received = now()
    try:
        said = cookies.read(cookie_in, machine.machines.directories, mark.name, machine.domain.uuid or "")
        is_postcopy = _wait(machine)
        machine.attempt("nbd-server-stop")
        if said is not None and said.network is not None:
            cookies.take_ports(machine.domain, said.network)
        launcher.wiring.arrive(machine.domain)
        if flags & MigrateFlag.PERSIST_DEST:
            _define(machine, launcher, mark, said.domain if said is not None else None)
        if not flags & MigrateFlag.PAUSED:
            _let_run(machine, mark)
    except BaseException as error:
        # Who finds the mark asks a QEMU that may let its guest run yet, or may have done so before it ended.
        if not machine.is_unanswered and not machine.status.destruction.exists() and mark.phase == "prepare":
            drop(machine, str(error))
        raise
    told = said.statistics if said is not None else None
    if told is not None:
        told.delta = received - told.sent if told.sent is not None else None
        told.downtime = now() - told.stopped if told.stopped is not None else told.downtime
    return Come(told, mark.name, received, is_postcopy)


def conclude(machine: Running, come: Come, flags: MigrateFlag) -> tuple[DomainRef, bytes]:
    """Forget that it came; the caller holds the domain's lock.

    Raises:
        VirtError: QEMU does not answer.
    """
    told = come.told
    if told is not None and told.started is not None:
        told.time_elapsed = now() - told.started
    if machine.status.migration is not None:
        arrive(machine)
    found = statistics.from_cookie(told, statistics.MIGRATION_IN)
    with contextlib.suppress(VirtError):  # it has come, whether or not there is room for how it did
        jobstats.keep(machine, found)
    if flags & MigrateFlag.PAUSED:
        machine.publish("lifecycle", event=int(Lifecycle.SUSPENDED), detail=0)
    machine.publish("job-completed", **found)
    answer = cookies.new(machine.machines.directories, come.original, machine.domain.uuid or "")
    answer.statistics = told
    return DomainRef(machine.name, machine.domain.uuid or "", machine.status.id), cookies.written(answer)


def _wait(machine: Running) -> bool:
    """Wait until QEMU has all that it needs to run the guest; whether more follows then.

    Raises:
        VirtError: ``OPERATION_FAILED``: it has ended, or something is missing.
    """
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while True:
        found = machine.ask("query-migrate")
        match found.get("status"):
            case "completed":
                return False
            case "postcopy-active":
                return True
            case "failed" | "cancelled":
                raise failed(f"job 'migration in' failed: {found.get('error-desc', found['status'])}")
        if time.monotonic() >= deadline:
            raise failed("migration in job: not all of the machine has come")
        time.sleep(_POLL)


def _let_run(machine: Running, mark: Migration) -> None:
    """Start the CPUs. An answer that got lost is no refusal: a guest that runs has come, whatever was heard.

    Raises:
        VirtError: it does not run; where it has not done so for a moment its mark is again that of one that is coming.
    """
    before = machine.ask("query-status")["status"]  # a guest that an error had stopped comes as it was
    mark.phase = "finish"  # from now on it may have run
    try:
        machine.save(migration=mark)
        holding.run(machine)
    except VirtError:
        status = machine.attempt("query-status")
        if status is not None and has_run(status) and status["status"] != before:
            return
        if status is not None:
            mark.phase = "prepare"
        raise


def _define(machine: Running, launcher: Launcher, mark: Migration, wanted: Domain | None) -> None:
    """Keep what comes as a definition; the mark remembers what was there, until it runs."""
    machines = machine.machines
    definition = wanted if wanted is not None else machine.domain.copy()
    name_volumes(definition)
    forget_run(definition)
    definition.name, definition.uuid = machine.name, machine.domain.uuid
    document.finish(definition, launcher.platform(definition), is_given=False)
    with machines.definitions.locked():
        before = machines.definitions.read(machine.name)
        mark.definition = before or ""
        machine.save(migration=mark)
        machines.definitions.write(machine.name, definition.format())
    detail = Defined.ADDED if before is None else Defined.UPDATED
    machine.publish("lifecycle", event=int(Lifecycle.DEFINED), detail=int(detail))


def finish_offline(machines: Machines, launcher: Launcher, name: str) -> tuple[DomainRef, bytes]:
    """Keep the definition of a domain that does not run; the caller holds the domain's lock.

    Raises:
        VirtError: none is expected.
    """
    found = pending(machines, name)
    if found is None:
        raise fault(ErrorCode.NO_DOMAIN, f"no domain with matching name '{name}'", ErrorDomain.QEMU)
    domain = found.domain
    document.finish(domain, launcher.platform(domain), is_given=False)
    with machines.definitions.locked():
        is_new = not machines.definitions.has(name)
        machines.definitions.write(name, domain.format())
    machines.incoming.remove(name)
    lease.let_go(machines.lease(name))
    detail = Defined.ADDED if is_new else Defined.UPDATED
    machines.publish(domain, "lifecycle", event=int(Lifecycle.DEFINED), detail=int(detail))
    answer = cookies.new(machines.directories, found.migration.name, domain.uuid or "")
    return DomainRef(name, domain.uuid or ""), cookies.written(answer)


def _size(disk: Disk, sizes: Mapping[str, int]) -> int:
    """How large a disk is at the source, in bytes.

    Raises:
        VirtError: ``INTERNAL_ERROR``: the source does not say.
    """
    if disk.target.dev not in sizes:
        what = f"pre-creation of disk {disk.target.dev}: the source does not say how large it is"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    return sizes[disk.target.dev]


def _check_unused(disk: Disk, path: str) -> None:
    """Refuse to copy a disk over what somebody writes to: mostly itself.

    Raises:
        VirtError: ``OPERATION_INVALID``, with who has it.
    """
    holders = find_holders(path)
    if holders:
        what = f"disk '{disk.target.dev}' cannot be copied to '{path}', which is in use by {', '.join(holders)}"
        raise invalid(f"{what}; name another file in --xml, or leave the disk out of --migrate-disks")


def _any_address() -> str:
    return "::" if Path("/proc/net/if_inet6").exists() else "0.0.0.0"


def _in_uri(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _host_name() -> str:
    """The host's name as others have it.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it is nobody's but this host's own.
    """
    name = socket.gethostname()
    if name.startswith("localhost"):
        what = "hostname on destination resolved to localhost, but migration requires an FQDN; give --migrateuri"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    return name


def _listening(listen: Callable[[int], object], given: int, ports: tuple[int, int]) -> int:
    """Have QEMU listen on a port: what was given, or the first that is free of those for it.

    Raises:
        VirtError: it cannot.
    """
    if given:
        listen(given)
        return given
    failure: VirtError | None = None
    for port in _free_ports(ports):
        try:
            listen(port)
            return port
        except VirtError as error:  # somebody was faster
            failure = error
            if "in use" not in error.message:
                raise
    raise failure or failed(f"no port from {ports[0]} to {ports[1]} is free")


def _free_ports(ports: tuple[int, int]) -> Iterator[int]:
    for port in range(ports[0], ports[1] + 1):
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        yield port
