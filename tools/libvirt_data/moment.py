"""Snapshots, checkpoints and backups of domains."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.model.backup import align, read_backup
from hostel.model.checkpoint import CheckpointDisk, read_checkpoint
from hostel.model.domain.devices.disk import Disk
from hostel.model.moment import DomainReference, MomentParent
from hostel.model.snapshot import read_snapshot
from libvirt_data.case import Case, Suite, Tree


def snapshots(tree: Tree) -> Iterator[Case]:
    """Documents of snapshots: new ones, and such as are defined again."""
    ways = {"DO_TEST_INOUT": ("in", "out"), "DO_TEST_OUT": ("out", "out"), "DO_TEST_IN": ("in", "in")}
    for call in tree.calls("qemudomainsnapshotxml2xmltest", *ways):
        name, uuid, *rest = call.words
        read, written = (tree.path(f"qemudomainsnapshotxml2xml{way}/{name}.xml") for way in ways[call.macro])
        flags = rest[-1] if rest else ""
        extra = {
            "uuid": uuid or None,
            "now": int(rest[0]) if call.macro == "DO_TEST_INOUT" else None,
            "redefine": call.macro == "DO_TEST_OUT",
            "internal": "TEST_INTERNAL" in flags,
            "running": "TEST_RUNNING" in flags,
        }
        yield Case("domainsnapshotxml2xml", f"{name}-{'-'.join(ways[call.macro])}", read, written, extra=extra)


def snapshot(case: Case) -> str:
    """A snapshot as it is written."""
    extra = case.extra
    snapshot = read_snapshot(case.text(), now=extra["now"], redefine=extra["redefine"])
    if extra["running"]:
        snapshot.state = "running"
    if snapshot.domain is None and extra["uuid"]:
        snapshot.domain = DomainReference(uuid=extra["uuid"])
    if not extra["internal"]:
        snapshot.active = None
    return snapshot.format()


def checkpoints(tree: Tree) -> Iterator[Case]:
    """Documents of checkpoints."""
    for call in tree.calls("qemudomaincheckpointxml2xmltest", "DO_TEST_INOUT", "DO_TEST_OUT", "DO_TEST_INVALID"):
        name = call.words[0]
        way = "out" if call.macro == "DO_TEST_OUT" else "in"
        must_fail = call.macro == "DO_TEST_INVALID"
        written = None if must_fail else tree.path(f"qemudomaincheckpointxml2xmlout/{name}.xml")
        is_new = call.macro == "DO_TEST_INOUT"
        extra = {
            "now": int(call.words[1]) if is_new else None,
            "flags": call.words[2] if is_new else "",
            "redefine": call.macro == "DO_TEST_OUT",
        }
        read = tree.path(f"qemudomaincheckpointxml2xml{way}/{name}.xml")
        yield Case("domaincheckpointxml2xml", name, read, written, must_fail, extra)


def checkpoint(case: Case) -> str:
    """A checkpoint as it is written, with what libvirt's test puts into it."""
    checkpoint = read_checkpoint(case.text(), now=case.extra["now"], redefine=case.extra["redefine"])
    flags = case.extra["flags"].split(" | ")
    disks = checkpoint.disks.disks
    if "TEST_PARENT" in flags:
        checkpoint.parent = MomentParent(name="1525111885")
    if "TEST_VDA_BITMAP" in flags:
        if not disks:
            disks.append(CheckpointDisk(name="vda", checkpoint="bitmap"))
        disks[0].bitmap = checkpoint.name
    if "TEST_SIZE" in flags:
        disks[0].size = 1048576
    return checkpoint.format()


def backups(tree: Tree) -> Iterator[Case]:
    """Documents of backups."""
    for call in tree.calls("genericxml2xmltest", "DO_TEST_BACKUP_FULL", "DO_TEST_BACKUP"):
        name = call.words[0]
        read, written = (tree.path(f"domainbackupxml2xml{way}/{name}.xml") for way in ("in", "out"))
        yield Case("domainbackupxml2xml", name, read, written, extra={"internal": call.words[1:] == ("true",)})


def backup(case: Case) -> str:
    """A backup as it is written, beside a domain that libvirt's test makes up: one disk more than the backup names."""
    backup = read_backup(case.text(), internal=case.extra["internal"])
    names = [*(disk.name for disk in backup.disks.disks), "vdextradisk"]
    disks = [
        Disk.parse(f"<disk type='file'><source file='/fake/{name}.qcow2'/><target dev='{name}'/></disk>")
        for name in names
    ]
    align(backup, disks, "SUFFIX")
    return backup.format()


SUITES = (
    Suite("domainsnapshotxml2xml", snapshots, snapshot),
    Suite("domaincheckpointxml2xml", checkpoints, checkpoint),
    Suite("domainbackupxml2xml", backups, backup),
)
