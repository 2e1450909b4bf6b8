"""Backups of domains that run."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, flag, later, value
from hostel.cli.virsh import document
from hostel.cli.virsh.block import pretty
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, read_document
from hostel.drivers.base.backup import BackupBeginFlag, BackupDriver, JobStatsDriver, JobType
from hostel.drivers.base.offered import offered

_KINDS: Final = {JobType.NONE: "None", JobType.UNBOUNDED: "Unbounded"}
_OPERATIONS: Final = {9: "Backup"}


def _backups(session: Session, api: str) -> BackupDriver:
    return offered(session.hypervisor, BackupDriver, api)


def _begin(session: Session, args: Args) -> None:
    domain = session.domain(args)
    file, checkpoint = args.get("backupxml"), args.get("checkpointxml")
    xml = read_document(file) if file is not None else "<domainbackup/>"
    more = read_document(checkpoint) if checkpoint is not None else None
    flags = BackupBeginFlag.REUSE_EXTERNAL if args.has("reuse-external") else BackupBeginFlag.NONE
    _backups(session, "virDomainBackupBegin").domain_backup_begin(domain, xml, more, flags)
    session.output.line("Backup started")


def _dumpxml(session: Session, args: Args) -> None:
    domain = session.domain(args)
    driver = _backups(session, "virDomainBackupGetXMLDesc")
    document.show(session, driver.domain_backup_get_xml_desc(domain), args)


def _abort(session: Session, args: Args) -> None:
    domain = session.domain(args)
    _backups(session, "virDomainAbortJob").domain_abort_job(domain)


def _info(session: Session, args: Args) -> None:
    if args.has("keep-completed") and not args.has("completed"):
        raise CommandError("Option --completed is required by option --keep-completed")
    domain = session.domain(args)
    driver = offered(session.hypervisor, JobStatsDriver, "virDomainGetJobInfo")
    flags = int(args.has("completed")) | 2 * args.has("keep-completed")
    kind, found = driver.domain_get_job_stats(domain, flags)
    if args.has("rawstats"):
        session.output.line(f"Job type: {int(kind)}\n")
        for name, number in found.items():
            session.output.line(f"{name}: {number}")
        return
    session.output.line(f"{'Job type:':<17} {_KINDS[kind]:<12}")
    if kind is JobType.NONE:
        return
    session.output.line(f"{'Operation:':<17} {_OPERATIONS.get(found['operation'], 'Unknown'):<12}")
    session.output.line(f"{'Time elapsed:':<17} {found['time_elapsed']:<12} ms")
    for word in ("processed", "remaining", "total"):
        if f"disk_{word}" in found:
            amount, unit = pretty(found[f"disk_{word}"])
            name = f"File {word}:"
            session.output.line(f"{name:<17} {amount:.3f} {unit}")


COMMANDS = (
    Command(
        "backup-begin",
        "begin a backup of all disks as they are now",
        (
            DOMAIN,
            value("backupxml", "the document; whole disks beside their files unless told"),
            value("checkpointxml", "a checkpoint to create at the same moment"),
            flag("reuse-external", "write to files that are there"),
        ),
        _begin,
    ),
    Command("backup-dumpxml", "the document of the backup under way", (DOMAIN, *document.PARTS), _dumpxml),
    Command(
        "domjobabort",
        "end what the domain is about",
        (DOMAIN, later(flag("postcopy", ""))),
        _abort,
    ),
    Command(
        "domjobinfo",
        "how far what the domain is about is",
        (
            DOMAIN,
            flag("completed", "of the last one that is over, of which nothing is kept"),
            flag("keep-completed", "and keep it"),
            flag("anystats", "of any job"),
            flag("rawstats", "as it is told"),
        ),
        _info,
    ),
)
