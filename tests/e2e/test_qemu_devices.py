"""QEMU takes every device that the driver gives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import DomainState
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.model.domain.domain import Domain
from support import machines

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]


@pytest.mark.parametrize("name", machines.MACHINES)
def test_qemu_takes_every_device(name: str, tmp_path: Path) -> None:
    driver = QemuDriver(Directories.under(tmp_path / "home"))
    ref = driver.domain_create(driver.domain_define_xml(machines.machine(name, tmp_path)))
    try:
        assert driver.domain_get_state(ref).state == DomainState.RUNNING
        live = Domain.parse(driver.domain_get_xml_desc(ref))
        devices = live.devices
        assert all(device.alias for device in devices.all())
        terminals = [devices.serials[0], *devices.consoles, devices.channels[1]]
        assert all(end.source is not None and (end.source.path or "").startswith("/dev/pts/") for end in terminals)
        assert devices.consoles[0].tty == devices.serials[0].sources[0].path
        agent = devices.channels[0].source
        assert agent is not None and agent.path is not None and Path(agent.path).is_socket()
        assert devices.graphics[0].port is not None and devices.graphics[0].passwd is None
    finally:
        driver.domain_destroy(ref)
