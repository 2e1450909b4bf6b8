"""Domain management: what a domain is about, and ending it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from hostel.cli.options import Args, Command, flag
from hostel.cli.virsh.block import pretty
from hostel.cli.virsh.session import DOMAIN, CommandError, Session
from hostel.drivers.base.backup import AbortFlag, BackupDriver, JobStatsDriver, JobType
from hostel.drivers.base.offered import offered
from hostel.errors import ErrorCode, UsageError, VirtError

_KINDS: Final = ("None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled")
_OPERATIONS: Final = (
    "Unknown", "Start", "Save", "Restore", "Incoming migration", "Outgoing migration", "Snapshot", "Snapshot revert",
    "Dump", "Backup", "Snapshot delete",
)  # fmt: skip
_COUNTED: Final = (("Data", "data"), ("Memory", "memory"), ("File", "disk"))
_PAGES: Final = (
    ("Dirty rate:", "memory_dirty_rate", " pages/s"),
    ("Page size:", "memory_page_size", " bytes"),
    ("Iteration:", "memory_iteration", ""),
    ("Postcopy requests:", "memory_postcopy_requests", ""),
)
# Name, parameter, and what is printed behind; those without are sizes.
_LAST: Final = (
    ("Setup time:", "setup_time", "<12", " ms"),
    ("Compression cache:", "compression_cache", "", ""),
    ("Compressed data:", "compression_bytes", "", ""),
    ("Compressed pages:", "compression_pages", "<13", ""),
    ("Compression cache misses:", "compression_cache_misses", "<13", ""),
    ("Compression overflows:", "compression_overflow", "<13", ""),
    ("Auto converge throttle:", "auto_converge_throttle", "<13", ""),
    ("Temporary disk space use:", "disk_temp_used", "", ""),
    ("Temporary disk space total:", "disk_temp_total", "", ""),
)


def _abort(session: Session, args: Args) -> None:
    domain = session.domain(args)
    flags = args.flags(AbortFlag.NONE, {"postcopy": AbortFlag.POSTCOPY})
    api = "virDomainAbortJobFlags" if flags else "virDomainAbortJob"
    offered(session.hypervisor, BackupDriver, api).domain_abort_job(domain, flags)


def _info(session: Session, args: Args) -> None:
    if args.has("keep-completed") and not args.has("completed"):
        raise UsageError("Option --completed is required by option --keep-completed")
    domain = session.domain(args)
    flags = int(args.has("completed")) | 2 * args.has("keep-completed")
    is_detailed = bool(flags) or args.has("rawstats")
    try:
        driver = offered(
            session.hypervisor, JobStatsDriver, "virDomainGetJobStats" if is_detailed else "virDomainGetJobInfo"
        )
        kind, found = driver.domain_get_job_stats(domain, flags)
    except VirtError as error:
        if error.code is ErrorCode.NO_SUPPORT and is_detailed:
            raise CommandError("Optional flags or --rawstats are not supported by the daemon", error) from error
        raise
    if args.has("rawstats"):
        session.output.line(f"Job type: {int(kind)}\n")
        for name, number in found.items():
            session.output.line(f"{name}: {number}")
        return
    session.output.line(f"{'Job type:':<17} {_KINDS[kind]:<12}")
    if kind is JobType.NONE:
        return
    operation = found.get("operation", 0)
    name = _OPERATIONS[operation] if operation < len(_OPERATIONS) else "Unknown"
    session.output.line(f"{'Operation:':<17} {name:<12}")
    is_told = kind in (JobType.BOUNDED, JobType.UNBOUNDED) or (kind is JobType.COMPLETED and args.has("completed"))
    if args.has("anystats") or is_told:
        for line in _lines(kind, found):
            session.output.line(line)


def _lines(kind: JobType, found: Mapping[str, int]) -> Iterator[str]:
    """The numbers, in virsh's order."""
    yield f"{'Time elapsed:':<17} {found.get('time_elapsed', 0):<12} ms"
    if kind is JobType.BOUNDED:
        yield f"{'Time remaining:':<17} {found.get('time_remaining', 0):<12} ms"
    for label, key in _COUNTED:
        if any(found.get(f"{key}_{word}") for word in ("total", "remaining", "processed")):
            yield from _counted(label, key, found)
    for label, key in (("Constant pages:", "memory_constant"), ("Normal pages:", "memory_normal")):
        if key in found:
            yield f"{label:<17} {found[key]:<12}"
    if "memory_normal_bytes" in found:
        yield _size("Normal data:", found["memory_normal_bytes"])
    if "downtime" in found:
        label = "Total downtime:" if kind is JobType.COMPLETED else "Expected downtime:"
        yield f"{label:<17} {found['downtime']:<12} ms"
    for label, key, width, unit in _LAST:
        if key in found:
            yield f"{label:<17} {found[key]:{width}}{unit}" if width else _size(label, found[key])


def _counted(label: str, key: str, found: Mapping[str, int]) -> Iterator[str]:
    for word in ("processed", "remaining", "total"):
        yield _size(f"{label} {word}:", found.get(f"{key}_{word}", 0))
    if found.get(f"{key}_bps"):
        yield _size(f"{label} bandwidth:", found[f"{key}_bps"], "/s")
    if key == "memory":
        for name, parameter, unit in _PAGES:
            if parameter in found:
                yield f"{name:<17} {found[parameter]:<12}{unit}"


def _size(label: str, size: int, rate: str = "") -> str:
    amount, unit = pretty(size)
    return f"{label:<17} {amount:.3f} {unit}{rate}"


COMMANDS = (
    Command(
        "domjobabort",
        "end what the domain is about",
        (DOMAIN, flag("postcopy", "a migration whose guest runs at both ends: it may go on later")),
        _abort,
    ),
    Command(
        "domjobinfo",
        "how far what the domain is about is",
        (
            DOMAIN,
            flag("completed", "of the last migration, which is told once"),
            flag("keep-completed", "and keep it"),
            flag("anystats", "of any job"),
            flag("rawstats", "as it is told"),
        ),
        _info,
    ),
)
