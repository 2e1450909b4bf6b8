"""What is said of machines that do what is not supported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef
from hostel.drivers.base.messages import MessageFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.objects import Connection
from support.session import domain_xml, session
from support.virsh import Ours

pytestmark = pytest.mark.qemu
ARGUMENTS = (
    "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
    "<qemu:arg value='-fw_cfg'/><qemu:arg value='name=opt/a,string=b'/></qemu:commandline></domain>"
)
ROOT = ["tainted: running with undesirable elevated privileges"] if os.geteuid() == 0 else []
CUSTOM = "tainted: custom configuration parameters specified"
MONITOR = "tainted: custom monitor control commands issued"
OLD = "deprecated configuration: machine type 'pc-i440fx-1.4'"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with session(tmp_path) as opened:
        yield opened


def test_what_is_beyond_support_is_said_and_logged_once(driver: QemuDriver, tmp_path: Path) -> None:
    xml = domain_xml(tmp_path).replace("</domain>", ARGUMENTS)
    ref = driver.domain_define_xml(xml)
    assert driver.domain_get_messages(ref) == []
    ref = driver.domain_create(ref)
    assert driver.domain_get_messages(ref) == [CUSTOM, *ROOT]
    for _ in range(2):
        driver.domain_qemu_monitor_command(ref, '{"execute": "query-name"}')
    assert driver.domain_get_messages(ref, MessageFlag.TAINTING) == [CUSTOM, MONITOR, *ROOT]
    assert driver.domain_get_messages(ref, MessageFlag.DEPRECATION) == []
    text = Ours(tmp_path).run("dominfo guest")[1]
    assert f"Messages:       {CUSTOM}\n                {MONITOR}\n" in text
    (log,) = tmp_path.rglob("log/guest.log")
    lines = [line.partition(": ")[2] for line in log.read_text().splitlines() if "is tainted" in line]
    assert lines.count(f"Domain id={ref.id} is tainted: custom-argv") == 1
    assert lines.count(f"Domain id={ref.id} is tainted: custom-monitor") == 1


def test_what_will_be_given_up_is_named(driver: QemuDriver, tmp_path: Path) -> None:
    if "pc-i440fx-1.4" not in driver.connect_get_capabilities():
        pytest.skip("this QEMU has given it up")
    xml = domain_xml(tmp_path, machine="pc-i440fx-1.4")
    ref: DomainRef = driver.domain_create_xml(xml)
    assert driver.domain_get_messages(ref, MessageFlag.DEPRECATION) == [OLD]
    assert "tainted: use of deprecated configuration settings" in driver.domain_get_messages(ref)
