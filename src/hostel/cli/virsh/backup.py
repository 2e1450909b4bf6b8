"""Backups of domains that run."""

from __future__ import annotations

from hostel.cli.options import Args, Command, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import DOMAIN, Session, read_document
from hostel.drivers.base.backup import BackupBeginFlag, BackupDriver
from hostel.drivers.base.offered import offered


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
)
