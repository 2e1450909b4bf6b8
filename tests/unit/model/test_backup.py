"""A backup says of every disk of the domain what becomes of it."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.backup import align, read_backup
from hostel.model.domain.devices.disk import Disk

DISKS = [
    Disk.parse(f"<disk {attributes}>{source}<target dev='{name}'/></disk>")
    for name, attributes, source in (
        ("vda", "type='file'", "<source file='/a.qcow2'/>"),
        ("vdb", "type='block'", "<source dev='/dev/b'/>"),
        ("vdc", "type='file' device='cdrom'", ""),
    )
]


def aligned(body: str, disks: list[Disk] = DISKS) -> str:
    backup = read_backup(f"<domainbackup {body}</domainbackup>")
    align(backup, disks, "7")
    return " ".join(backup.format().split())


def test_only_the_disks_that_are_named_are_saved() -> None:
    text = aligned("><disks><disk name='vda'/></disks>")
    assert "<disk name='vda' backup='yes' type='file' backupmode='full'> <target file='/a.qcow2.7'/>" in text
    assert "<disk name='vdb' backup='no'/> <disk name='vdc' backup='no'/>" in text


def test_without_names_all_that_can_be_is_saved() -> None:
    text = aligned(">", [DISKS[0], DISKS[2]])
    assert "<disk name='vda' backup='yes'" in text
    assert "<disk name='vdc' backup='no'/>" in text


def test_what_is_pulled_has_a_scratch_file() -> None:
    text = aligned("mode='pull'><incremental>c</incremental><disks><disk name='vda'/></disks>")
    assert "<scratch file='/a.qcow2.7'/>" in text
    assert "backupmode='incremental' incremental='c'" in text


def test_a_place_that_is_given_stays() -> None:
    text = aligned("><disks><disk name='vdb' type='block'><target dev='/dev/t'/></disk></disks>")
    assert "<target dev='/dev/t'/>" in text


@pytest.mark.parametrize(
    ("body", "reason"),
    [("><disks><disk name='sda'/></disks>", "no disk named 'sda'"),
     ("><disks><disk name='vda'/><disk name='vda'/></disks>", "disk 'vda' specified twice"),
     ("><disks><disk name='vda' backupmode='incremental'/></disks>", "requires setting 'incremental' field"),
     ("><disks><disk name='vdb'/></disks>", "refusing to generate file name for disk 'vdb'"),
     ("><disks><disk name='vdc'/></disks>", "disk 'vdc' has no media")],
)  # fmt: skip
def test_what_cannot_be_saved_is_refused(body: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as raised:
        aligned(body)
    assert raised.value.code is ErrorCode.CONFIG_UNSUPPORTED


def test_a_domain_without_disks_has_no_backup() -> None:
    with pytest.raises(ModelError, match="at least one disk"):
        aligned(">", [])


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [("><server name='h'/>", "/domainbackup/server", "requires pull mode"),
     ("mode='pull'><server transport='rdma' name='h'/>", "/domainbackup/server/@transport", "rdma is not supported"),
     ("mode='pull'><server/>", "/domainbackup/server/@name", "missing name"),
     ("mode='pull'><server transport='unix'/>", "/domainbackup/server/@socket", "missing socket"),
     ("mode='pull'><server transport='unix' socket='a'/>", "/domainbackup/server/@socket", "must be absolute"),
     ("mode='neither'>", "/domainbackup/@mode", "neither"),
     ("><disks><disk name='vda' type='network'/></disks>", "/domainbackup/disks/disk[1]/@type", "unsupported")],
)  # fmt: skip
def test_a_wrong_backup_is_refused_where_it_is_wrong(body: str, path: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as raised:
        read_backup(f"<domainbackup {body}</domainbackup>")
    assert raised.value.path == path


def test_what_only_a_driver_knows_is_kept_for_a_driver() -> None:
    xml = (
        "<domainbackup><disks><disk name='vda' type='file' state='running' index='3'/></disks>"
        "<privateData><objects><secret type='encryption' alias='a'/></objects></privateData></domainbackup>"
    )
    assert "privateData" not in read_backup(xml).format() and "state=" not in read_backup(xml).format()
    internal = read_backup(xml, internal=True).format()
    assert all(text in internal for text in ("privateData", "state='running'", "index='3'"))
