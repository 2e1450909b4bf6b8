"""Devices that come and go in memory."""

from __future__ import annotations

import pytest

from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.test.host import Host
from hostel.drivers.test.hypervisor import TestDriver
from hostel.errors import VirtError

DISK = "<disk type='file' device='disk'><source file='/second'/><target dev='vdb' bus='virtio'/></disk>"
CDROM = "<disk type='file' device='cdrom'><source file='/{}'/><target dev='sda' bus='sata'/></disk>"


@pytest.fixture
def driver() -> TestDriver:
    return TestDriver(Host(), lambda: None)


@pytest.fixture
def domain(driver: TestDriver) -> DomainRef:
    return driver.domain_lookup_by_name("test")


def documents(driver: TestDriver, domain: DomainRef) -> tuple[str, str]:
    """What runs, and the definition."""
    return driver.domain_get_xml_desc(domain), driver.domain_get_xml_desc(domain, DomainXmlFlag.INACTIVE)


def test_a_disk_comes_and_goes_where_it_is_asked_for(driver: TestDriver, domain: DomainRef) -> None:
    driver.domain_attach_device_flags(domain, DISK, Affect.LIVE)
    live, config = documents(driver, domain)
    assert "/second" in live and "/second" not in config
    driver.domain_detach_device_flags(domain, DISK, Affect.LIVE)
    driver.domain_attach_device_flags(domain, DISK, Affect.LIVE | Affect.CONFIG)
    live, config = documents(driver, domain)
    assert "/second" in live and "/second" in config
    with pytest.raises(VirtError, match="target vdb already exists"):
        driver.domain_attach_device_flags(domain, DISK, Affect.CONFIG)
    driver.domain_detach_device_flags(domain, DISK, Affect.CONFIG)
    live, config = documents(driver, domain)
    assert "/second" in live and "/second" not in config


def test_what_one_document_refuses_changes_neither(driver: TestDriver, domain: DomainRef) -> None:
    driver.domain_attach_device_flags(domain, DISK, Affect.CONFIG)
    before = documents(driver, domain)
    with pytest.raises(VirtError, match="target vdb already exists"):
        driver.domain_attach_device_flags(domain, DISK, Affect.LIVE | Affect.CONFIG)
    assert documents(driver, domain) == before


def test_a_medium_is_changed(driver: TestDriver, domain: DomainRef) -> None:
    driver.domain_attach_device_flags(domain, CDROM.format("one"))
    driver.domain_update_device_flags(domain, CDROM.format("two"))
    live, _ = documents(driver, domain)
    assert "/two" in live and "/one" not in live


def test_what_a_device_lacks_is_named(driver: TestDriver, domain: DomainRef) -> None:
    with pytest.raises(VirtError, match="Missing required attribute 'type' in element 'input'"):
        driver.domain_attach_device_flags(domain, "<input/>", Affect.LIVE)
