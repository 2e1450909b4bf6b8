"""Hosts that a file describes: each connection has its own, and what is wrong with the file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base.snapshot import SnapshotDriver
from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError

POOL = "<pool type='dir'><name>p</name><target><path>/p</path></target>{}</pool>"
VOLUME = "<volume><name>a</name><capacity>{}</capacity></volume>"


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path / "home")


def write(folder: Path, text: str) -> str:
    path = folder / "a host.xml"
    path.write_text(text)
    return f"test://{folder}/a%20host.xml"


def test_each_connection_has_a_host_of_its_own(tmp_path: Path, directories: Directories) -> None:
    uri = write(tmp_path, f"<node>{POOL.format('')}</node>")
    one, two = open_drivers(uri, directories), open_drivers(uri, directories)
    one.storage.storage_pool_destroy(one.storage.storage_pool_lookup_by_name("p"))
    assert two.storage.storage_pool_is_active(two.storage.storage_pool_lookup_by_name("p"))
    assert [ref.name for ref in two.hypervisor.connect_list_all_domains()] == []
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("<node><pool file='nosuch'/></node>", ErrorCode.SYSTEM_ERROR, "nosuch': No such file or directory"),
        (f"<node>{POOL.format(VOLUME.format('x'))}</node>", ErrorCode.XML_ERROR, "malformed capacity element"),
        (f"<node>{POOL.format(VOLUME.format(1) * 2)}</node>", ErrorCode.OPERATION_FAILED, "'a' is there twice"),
        (f"<node>{POOL.format(VOLUME.format(2**40))}</node>", ErrorCode.INTERNAL_ERROR, "Not enough free space"),
        ("<node><cpu><mhz>-1</mhz></cpu></node>", ErrorCode.XML_ERROR, "invalid node cpu mhz value"),
        (f"<node><cpu><model>{'x' * 32}</model></cpu></node>", ErrorCode.INTERNAL_ERROR, "too big for destination"),
        ("<!DOCTYPE node><node/>", ErrorCode.XML_ERROR, "a document type is not allowed here"),
        ("<node>", ErrorCode.XML_DETAIL, "(a host.xml):1: "),
        ("\xff", ErrorCode.XML_DETAIL, "(a host.xml):1: "),
    ],
)
def test_a_wrong_file_is_refused_by_name(
    text: str, code: ErrorCode, message: str, tmp_path: Path, directories: Directories
) -> None:
    with pytest.raises(VirtError) as caught:
        open_drivers(write(tmp_path, text), directories)
    assert (caught.value.code, message in str(caught.value)) == (code, True), str(caught.value)


def test_a_snapshot_may_have_a_file_of_its_own(tmp_path: Path, directories: Directories) -> None:
    (tmp_path / "snapshot.xml").write_text(
        "<domainsnapshot><name>s</name><creationTime>1</creationTime><state>running</state></domainsnapshot>"
    )
    uri = write(
        tmp_path,
        "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>d</name>"
        "<memory>1</memory><os><type>hvm</type></os><test:domainsnapshot file='snapshot.xml'/></domain></node>",
    )
    drivers = open_drivers(uri, directories)
    driver = drivers.hypervisor
    assert isinstance(driver, SnapshotDriver)
    domain = driver.domain_lookup_by_name("d")
    assert [snapshot.name for snapshot in driver.domain_list_all_snapshots(domain)] == ["s"]
    drivers.close()
