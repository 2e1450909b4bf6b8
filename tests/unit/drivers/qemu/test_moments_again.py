"""Snapshots and checkpoints that are defined again: of this domain, of disks that it has, after one that there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointRef
from hostel.drivers.base.snapshot import SnapshotCreateFlag, SnapshotRef
from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

UUID = "11111111-2222-3333-4444-555555555555"
OTHER = UUID.replace("1", "9")
DOMAIN = (
    "<domain type='qemu'><name>guest</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
    "<disk type='file'><driver type='qcow2'/><source file='/a.qcow2'/><target dev='vda' bus='virtio'/></disk>"
    "<disk type='file'><driver type='qcow2'/><source file='/b.qcow2'/><target dev='vdb' bus='virtio'/></disk>"
    "</devices></domain>"
)


def _checkpoint(inside: str = "", *, name: str = "one", uuid: str = UUID) -> str:
    head = f"<name>{name}</name><creationTime>1</creationTime>"
    return f"<domaincheckpoint>{head}{inside}{DOMAIN.format(uuid=uuid)}</domaincheckpoint>"


def _snapshot(inside: str = "", *, name: str = "one", state: str = "shutoff", uuid: str = UUID) -> str:
    head = f"<name>{name}</name><creationTime>1</creationTime><state>{state}</state>"
    return f"<domainsnapshot>{head}{inside}{DOMAIN.format(uuid=uuid)}</domainsnapshot>"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    drivers = open_drivers("qemu:///session", Directories.under(tmp_path))
    yield drivers.hypervisor
    drivers.close()


@pytest.fixture
def domain(driver: Any) -> DomainRef:
    ref: DomainRef = driver.domain_define_xml(DOMAIN.format(uuid=UUID))
    return ref


@pytest.fixture
def checkpoint(driver: Any, domain: DomainRef) -> Callable[[str], CheckpointRef]:
    return lambda xml: driver.domain_checkpoint_create_xml(domain, xml, CheckpointCreateFlag.REDEFINE)


@pytest.fixture
def snapshot(driver: Any, domain: DomainRef) -> Callable[[str], SnapshotRef]:
    return lambda xml: driver.domain_snapshot_create_xml(domain, xml, SnapshotCreateFlag.REDEFINE)


def test_a_checkpoint_says_of_every_disk_whether_its_changes_are_written_down(
    driver: Any, checkpoint: Callable[[str], CheckpointRef]
) -> None:
    every = driver.domain_checkpoint_get_xml_desc(checkpoint(_checkpoint()))
    assert every.count("checkpoint='bitmap' bitmap='one'") == 2
    named = "<disks><disk name='/b.qcow2' checkpoint='bitmap' bitmap='own'/></disks>"
    one = driver.domain_checkpoint_get_xml_desc(checkpoint(_checkpoint(named, name="two")))
    assert "<disk name='vda' checkpoint='no'/>" in one
    assert "<disk name='vdb' checkpoint='bitmap' bitmap='own'/>" in one


@pytest.mark.parametrize(
    "inside, where",
    [
        ("<disks/>", "/disks: there has to be <disk>"),
        ("<disks><disk name='vda' checkpont='no'/></disks>", "/disks/disk/@checkpont is not in the schema"),
        ("<disks><disk name='vda' checkpoint='no' bitmap='x'/></disks>", "/disks/disk/@checkpoint: 'no' is not"),
        ("<frob/>", "/frob is not in the schema"),
        ("<parent/>", "/parent: there has to be <name>"),
    ],
)
def test_a_checkpoint_that_its_schema_does_not_have_is_refused(
    checkpoint: Callable[[str], CheckpointRef], inside: str, where: str
) -> None:
    where = re.escape(f"XML document failed to validate against schema: /domaincheckpoint{where}")
    with pytest.raises(VirtError, match=where) as caught:
        checkpoint(_checkpoint(inside))
    assert caught.value.code is ErrorCode.XML_INVALID_SCHEMA


def test_a_new_checkpoint_is_one_of_a_machine_that_runs(driver: Any, domain: DomainRef) -> None:
    what = "Operation not supported: cannot create checkpoint for inactive domain"
    with refused(ErrorCode.OPERATION_UNSUPPORTED, what):
        driver.domain_checkpoint_create_xml(domain, "<frob/>")


def test_a_checkpoint_of_what_is_not_there_is_refused(checkpoint: Callable[[str], CheckpointRef]) -> None:
    what = f"invalid argument: definition for checkpoint one must use uuid {UUID}"
    with refused(ErrorCode.INVALID_ARG, what):
        checkpoint(_checkpoint(uuid=OTHER))
    with refused(ErrorCode.CONFIG_UNSUPPORTED, "unsupported configuration: no disk named 'vdz'"):
        checkpoint(_checkpoint("<disks><disk name='vdz'/></disks>"))
    with refused(ErrorCode.CONFIG_UNSUPPORTED, "unsupported configuration: disk '/a.qcow2' specified twice"):
        checkpoint(_checkpoint("<disks><disk name='vda'/><disk name='/a.qcow2'/></disks>"))
    with refused(ErrorCode.INVALID_ARG, "invalid argument: parent none for moment one not found"):
        checkpoint(_checkpoint("<parent><name>none</name></parent>"))
    with refused(ErrorCode.INVALID_ARG, "invalid argument: cannot set moment one as its own parent"):
        checkpoint(_checkpoint("<parent><name>one</name></parent>"))
    checkpoint(_checkpoint())
    checkpoint(_checkpoint("<parent><name>one</name></parent>", name="two"))
    with refused(ErrorCode.INVALID_ARG, "invalid argument: parent two would create cycle to one"):
        checkpoint(_checkpoint("<parent><name>two</name></parent>"))


def test_a_snapshot_says_of_every_disk_what_became_of_it(
    driver: Any, snapshot: Callable[[str], SnapshotRef], tmp_path: Path
) -> None:
    shown = driver.domain_snapshot_get_xml_desc(snapshot(_snapshot("<active>1</active>")))
    assert shown.count("snapshot='internal'") == 2
    assert "active" not in shown
    overlay = tmp_path / "o"
    named = f"<disks><disk name='/b.qcow2'><source file='{overlay}'/></disk><disk name='vda' snapshot='no'/></disks>"
    shown = driver.domain_snapshot_get_xml_desc(snapshot(_snapshot(named, name="two")))
    assert "<disk name='vda' snapshot='no'/>" in shown
    assert f"<disk name='vdb' snapshot='external' type='file'>\n      <source file='{overlay}'/>" in shown


def test_a_snapshot_does_not_become_another_kind(snapshot: Callable[[str], SnapshotRef]) -> None:
    snapshot(_snapshot())
    what = "invalid argument: cannot change between online and offline snapshot state in snapshot one"
    with refused(ErrorCode.INVALID_ARG, what):
        snapshot(_snapshot(state="running"))
    what = "invalid argument: cannot change between disk only and full system in snapshot one"
    with refused(ErrorCode.INVALID_ARG, what):
        snapshot(_snapshot(state="disk-snapshot"))
    what = f"invalid argument: definition for snapshot one must use uuid {UUID}"
    with refused(ErrorCode.INVALID_ARG, what):
        snapshot(_snapshot(uuid=OTHER))


def test_no_file_is_made_up_for_an_overlay_on_a_network(snapshot: Callable[[str], SnapshotRef]) -> None:
    source = "<source protocol='nbd'><host name='h'/></source>"
    overlay = f"<disk name='vda' snapshot='external' type='network'>{source}</disk>"
    what = "unsupported configuration: cannot generate external snapshot name for disk 'vda' on a 'network' device"
    with refused(ErrorCode.CONFIG_UNSUPPORTED, what):
        snapshot(_snapshot(f"<disks>{overlay}</disks>"))


def test_an_overlay_on_a_network_has_a_name(snapshot: Callable[[str], SnapshotRef]) -> None:
    overlay = "<disk name='vda' type='network'><source protocol='rbd'/></disk>"
    with refused(ErrorCode.XML_ERROR, "XML error: missing name for disk source"):
        snapshot(_snapshot(f"<disks>{overlay}</disks>"))
