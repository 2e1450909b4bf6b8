"""Domain management: moving domains to other hosts."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Final

from hostel.cli.options import UINT, Args, Command, data, flag, number, value
from hostel.cli.virsh.block import pretty, progress
from hostel.cli.virsh.session import DOMAIN, CommandError, Connection, Session, read_document
from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import JobStatsDriver, JobType
from hostel.drivers.base.migration import (
    BANDWIDTH,
    BANDWIDTH_POSTCOPY,
    COMPRESSION,
    DEST_NAME,
    DEST_XML,
    DISKS_PORT,
    DISKS_URI,
    GRAPHICS_URI,
    LISTEN_ADDRESS,
    MIGRATE_DISKS,
    PERSIST_XML,
    TLS_DESTINATION,
    URI,
    MigrateFlag,
    MigrationDriver,
    MigrationSettings,
)
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault
from hostel.drivers.migrating import migrate
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError

_POLL: Final = 0.5  # seconds
_FLAGS: Final = {
    "live": MigrateFlag.LIVE,
    "p2p": MigrateFlag.PEER2PEER,
    "tunnelled": MigrateFlag.TUNNELLED,
    "persistent": MigrateFlag.PERSIST_DEST,
    "undefinesource": MigrateFlag.UNDEFINE_SOURCE,
    "suspend": MigrateFlag.PAUSED,
    "copy-storage-all": MigrateFlag.NON_SHARED_DISK,
    "copy-storage-inc": MigrateFlag.NON_SHARED_INC,
    "copy-storage-synchronous-writes": MigrateFlag.NON_SHARED_SYNCHRONOUS_WRITES,
    "change-protection": MigrateFlag.CHANGE_PROTECTION,
    "unsafe": MigrateFlag.UNSAFE,
    "compressed": MigrateFlag.COMPRESSED,
    "auto-converge": MigrateFlag.AUTO_CONVERGE,
    "rdma-pin-all": MigrateFlag.RDMA_PIN_ALL,
    "offline": MigrateFlag.OFFLINE,
    "abort-on-error": MigrateFlag.ABORT_ON_ERROR,
    "postcopy": MigrateFlag.POSTCOPY,
    "postcopy-resume": MigrateFlag.POSTCOPY_RESUME,
    "zerocopy": MigrateFlag.ZEROCOPY,
    "tls": MigrateFlag.TLS,
    "parallel": MigrateFlag.PARALLEL,
}
_TEXTS: Final = {
    "migrateuri": URI,
    "graphicsuri": GRAPHICS_URI,
    "listen-address": LISTEN_ADDRESS,
    "disks-uri": DISKS_URI,
    "dname": DEST_NAME,
    "tls-destination": TLS_DESTINATION,
}
_NUMBERS: Final = {
    "disks-port": DISKS_PORT,
    "comp-mt-level": "compression.mt.level",
    "comp-mt-threads": "compression.mt.threads",
    "comp-mt-dthreads": "compression.mt.dthreads",
    "comp-xbzrle-cache": "compression.xbzrle.cache",
    "auto-converge-initial": "auto_converge.initial",
    "auto-converge-increment": "auto_converge.increment",
    "postcopy-bandwidth": BANDWIDTH_POSTCOPY,
    "parallel-connections": "parallel.connections",
    "bandwidth": BANDWIDTH,
}
_LISTS: Final = {"migrate-disks": MIGRATE_DISKS, "comp-methods": COMPRESSION}
_FILES: Final = {"xml": DEST_XML, "persistent-xml": PERSIST_XML}
_REQUIRED: Final = (
    ("postcopy-after-precopy", "postcopy"),
    ("postcopy-resume", "postcopy"),
    ("timeout-postcopy", "postcopy"),
    ("persistent-xml", "persistent"),
    ("tls-destination", "tls"),
)


def _migrate(session: Session, args: Args) -> None:
    args.exclude("live", "offline")
    args.exclude("timeout-suspend", "timeout-postcopy")
    for option, needed in _REQUIRED:
        if args.has(option) and not args.has(needed):
            raise UsageError(f"Option --{needed} is required by option --{option}")
    domain = session.domain(args)
    timeout = args.number("timeout", most=UINT) or 0
    if timeout and not args.has("live"):
        raise CommandError("migrate: Unexpected timeout for offline migration")
    if not timeout and (args.has("timeout-suspend") or args.has("timeout-postcopy")):
        raise CommandError("migrate: Unexpected --timeout-* option without --timeout")
    is_led_there = not args.has("p2p") and not args.has("direct")
    with contextlib.ExitStack() as stack:
        there = None
        if is_led_there:
            there = session.connect(args["desturi"])
            stack.callback(there.close)
        mover = _Mover(session, args, domain, there)
        mover.watch(timeout)


class _Mover:
    """One migration, led by a thread while this one watches it."""

    def __init__(self, session: Session, args: Args, domain: DomainRef, there: Connection | None) -> None:
        self._session = session
        self._args = args
        self._domain = domain
        self._there = there
        self._flags = args.flags(MigrateFlag.NONE, _FLAGS)
        if self._flags & MigrateFlag.NON_SHARED_SYNCHRONOUS_WRITES and not self._flags & (
            MigrateFlag.NON_SHARED_DISK | MigrateFlag.NON_SHARED_INC
        ):
            what = "'--copy-storage-synchronous-writes' requires one of '--copy-storage-all', 'copy-storage-inc'"
            raise CommandError(what)
        self._params = _parameters(args)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="migration", daemon=True)

    def _run(self) -> None:
        try:
            if self._there is not None:
                self._lead(self._there)
            else:
                self._let_lead()
        except (HostelError, OSError) as error:
            self._failure = error

    def _lead(self, there: Connection) -> None:
        if self._flags & MigrateFlag.TUNNELLED:
            what = "cannot perform tunnelled migration without using peer2peer flag"
            raise fault(ErrorCode.OPERATION_INVALID, what)
        migrate(self._session.hypervisor, there.hypervisor, self._domain, self._params, self._flags)

    def _let_lead(self) -> None:
        if not self._flags & MigrateFlag.PEER2PEER:
            what = "direct migration is not supported by the source host"
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what)
        driver = offered(self._session.hypervisor, MigrationDriver, "virDomainMigrateToURI3")
        uri = self._args["desturi"]
        driver.domain_migrate_perform3_params(self._domain, uri, self._params, b"", self._flags)

    def watch(self, timeout: int) -> None:
        """Lead it, and see to it; ``timeout`` in seconds, 0 is none.

        Raises:
            VirtError: it failed.
        """
        self._thread.start()
        began, is_late, is_posted = time.monotonic(), False, False
        try:
            while self._thread.is_alive():
                self._thread.join(_POLL)
                if not self._thread.is_alive():
                    break
                if timeout and not is_late and time.monotonic() - began > timeout:
                    is_late = True
                    self._hurry()
                stats = self._progress()
                if self._args.has("postcopy-after-precopy") and not is_posted and stats.get("memory_iteration", 0) > 1:
                    is_posted = self._post()
        except KeyboardInterrupt:
            self._abort()
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        if self._args.has("verbose"):
            progress("Migration", 0, 1)

    def _progress(self) -> dict[str, int]:
        with contextlib.suppress(VirtError):
            driver = offered(self._session.hypervisor, JobStatsDriver, "virDomainGetJobStats")
            kind, stats = driver.domain_get_job_stats(self._domain)
            if kind is not JobType.NONE:
                if self._args.has("verbose") and stats.get("data_total"):
                    progress("Migration", max(1, stats["data_remaining"]), stats["data_total"])
                return dict(stats)
        return {}

    def _hurry(self) -> None:
        if self._args.has("timeout-postcopy"):
            self._post()
        else:
            with contextlib.suppress(VirtError):
                self._session.hypervisor.domain_suspend(self._domain)

    def _post(self) -> bool:
        with contextlib.suppress(VirtError):
            _settings(self._session, "virDomainMigrateStartPostCopy").domain_migrate_start_post_copy(self._domain)
            return True
        return False

    def _abort(self) -> None:
        driver: Any = self._session.hypervisor
        with contextlib.suppress(VirtError):
            driver.domain_abort_job(self._domain)


def _parameters(args: Args) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for option, name in _TEXTS.items():
        if (text := args.get(option)) is not None:
            params[name] = text
    for option, name in _NUMBERS.items():
        amount = args.number(option)
        if amount is not None and (amount or option != "disks-port"):
            params[name] = amount
    for option, name in _LISTS.items():
        if (text := args.get(option)) is not None:
            params[name] = tuple(text.split(","))
    for option, name in _FILES.items():
        if (path := args.get(option)) is not None:
            params[name] = _document(path)
    return params


def _document(path: str) -> str:
    try:
        return read_document(path)
    except CommandError as error:
        raise CommandError(f"cannot read file '{path}'", error) from error


def _settings(session: Session, api: str) -> MigrationSettings:
    return offered(session.hypervisor, MigrationSettings, api)


def _set_downtime(session: Session, args: Args) -> None:
    domain = session.domain(args)
    downtime = args.number("downtime") or 0
    if downtime < 1:
        raise CommandError("migrate: Invalid downtime")
    _settings(session, "virDomainMigrateSetMaxDowntime").domain_migrate_set_max_downtime(domain, downtime)


def _get_downtime(session: Session, args: Args) -> None:
    domain = session.domain(args)
    settings = _settings(session, "virDomainMigrateGetMaxDowntime")
    session.output.line(str(settings.domain_migrate_get_max_downtime(domain)))


def _set_speed(session: Session, args: Args) -> None:
    domain = session.domain(args)
    speed = args.number("bandwidth", wraps=True) or 0
    settings = _settings(session, "virDomainMigrateSetMaxSpeed")
    settings.domain_migrate_set_max_speed(domain, speed, postcopy=args.has("postcopy"))


def _get_speed(session: Session, args: Args) -> None:
    domain = session.domain(args)
    settings = _settings(session, "virDomainMigrateGetMaxSpeed")
    session.output.line(str(settings.domain_migrate_get_max_speed(domain, postcopy=args.has("postcopy"))))


def _cache(session: Session, args: Args) -> None:
    domain = session.domain(args)
    settings = _settings(session, "virDomainMigrateGetCompressionCache")
    size = args.number("size")
    if size is not None:
        settings.domain_migrate_set_compression_cache(domain, size)
    amount, unit = pretty(settings.domain_migrate_get_compression_cache(domain))
    session.output.text(f"Compression cache: {amount:.3f} {unit}")


def _post_copy(session: Session, args: Args) -> None:
    domain = session.domain(args)
    _settings(session, "virDomainMigrateStartPostCopy").domain_migrate_start_post_copy(domain)


_POSTCOPY: Final = flag("postcopy", "once the guest runs there, and what is missing follows")

COMMANDS = (
    Command(
        "migrate",
        "move a domain to another host",
        (
            DOMAIN,
            data("desturi", "the destination's URI, as seen from here, or with --p2p from the source"),
            flag("live", "while it runs"),
            flag("offline", "only its definition: it does not run"),
            flag("p2p", "the source connects to the destination"),
            flag("direct", "the source's hypervisor leads, which QEMU cannot"),
            flag("tunnelled", "through the connection of the daemons"),
            flag("persistent", "keep it defined there"),
            flag("undefinesource", "and defined here no more"),
            flag("suspend", "leave it paused there"),
            flag("copy-storage-all", "copy its disks, whole"),
            flag("copy-storage-inc", "copy what its disks have above images that both hosts have"),
            flag("copy-storage-synchronous-writes", "what the guest writes meanwhile waits for the destination"),
            flag("change-protection", "keep others from changing it meanwhile, which is always so here"),
            flag("unsafe", "even where the destination may see other disks"),
            flag("verbose", "show how far it is"),
            flag("compressed", "send pages that come again compressed"),
            flag("auto-converge", "slow the guest down if it changes more than is sent"),
            flag("rdma-pin-all", "with RDMA, which is not there"),
            flag("abort-on-error", "end it when a disk of the guest fails"),
            flag("postcopy", "let migrate-postcopy have the guest run there before all is sent"),
            flag("postcopy-after-precopy", "have it run there once all was sent once"),
            flag("postcopy-resume", "go on with one that failed, which is not there"),
            flag("zerocopy", "without copying pages, which is not there"),
            value("migrateuri", "where the memory goes, if the destination is not to choose"),
            value("graphicsuri", "where clients of the screen go"),
            value("listen-address", "the destination's address to listen on"),
            value("dname", "what it is called there"),
            number("timeout", "seconds after which something is done about it"),
            flag("timeout-suspend", "the guest is suspended then"),
            flag("timeout-postcopy", "the guest runs there then"),
            value("xml", "file with the document for the destination"),
            value("migrate-disks", "the targets of the disks to copy"),
            number("disks-port", "the destination's port for disks"),
            value("disks-uri", "where disks go"),
            value("comp-methods", "xbzrle, mt"),
            number("comp-mt-level", "how well several threads compress"),
            number("comp-mt-threads", "how many threads compress"),
            number("comp-mt-dthreads", "how many threads there undo that"),
            number("comp-xbzrle-cache", "bytes of pages that are remembered"),
            number("auto-converge-initial", "percent that the guest is slowed down by at first"),
            number("auto-converge-increment", "and by more each time"),
            value("persistent-xml", "file with the document that is kept there"),
            flag("tls", "encrypted from QEMU to QEMU, by certificates of both hosts"),
            number("postcopy-bandwidth", "MiB a second once the guest runs there"),
            flag("parallel", "over several connections"),
            number("parallel-connections", "how many"),
            number("bandwidth", "MiB a second"),
            value("tls-destination", "the name that the destination's certificate is to have"),
        ),
        _migrate,
    ),
    Command(
        "migrate-compcache",
        "the size of the cache for compressing",
        (DOMAIN, number("size", "in bytes")._replace(positional=False)),
        _cache,
    ),
    Command("migrate-getmaxdowntime", "how long a domain may stand still", (DOMAIN,), _get_downtime),
    Command("migrate-getspeed", "how much a migration may send", (DOMAIN, _POSTCOPY), _get_speed),
    Command("migrate-postcopy", "let a domain run at its destination now", (DOMAIN,), _post_copy),
    Command(
        "migrate-setmaxdowntime",
        "set how long a domain may stand still",
        (DOMAIN, number("downtime", "in milliseconds")._replace(required=True)),
        _set_downtime,
    ),
    Command(
        "migrate-setspeed",
        "set how much a migration may send",
        (DOMAIN, number("bandwidth", "in MiB a second")._replace(required=True), _POSTCOPY),
        _set_speed,
    ),
)
