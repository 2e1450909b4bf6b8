"""A guest that puts itself to sleep: what lets it run again, and what does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainState
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from support.linux import Linux
from support.linux_guest import LinuxGuest

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
SLEEP = "echo mem > /sys/power/state; echo it is awake; sleep 600"
MAY_SLEEP = "<features><acpi/></features><pm><suspend-to-mem enabled='yes'/></pm>"


def until_it_sleeps(driver: QemuDriver, said: Callable[[], str]) -> None:
    domain, deadline = driver.domain_lookup_by_name("linux"), time.monotonic() + 90
    while driver.domain_get_state(domain).state is not DomainState.PMSUSPENDED:
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


@pytest.mark.parametrize("call", [QemuDriver.domain_pm_wakeup, QemuDriver.domain_reset])
def test_a_guest_that_sleeps_is_woken_and_neither_paused_nor_resumed(
    driver: QemuDriver, tmp_path: Path, linux: Linux, call: Callable[[QemuDriver, DomainRef], None]
) -> None:
    guest = LinuxGuest(driver, linux, tmp_path)
    domain = driver.domain_create(guest.define(SLEEP, body=MAY_SLEEP))
    try:
        until_it_sleeps(driver, guest.said)
        for refused in (driver.domain_suspend, driver.domain_resume):
            with pytest.raises(VirtError, match="domain is pmsuspended") as caught:
                refused(domain)
            assert caught.value.code is ErrorCode.OPERATION_INVALID
        assert "it is awake" not in guest.said()
        call(driver, domain)
        guest.wait_for("it is awake", 30)
        assert driver.domain_get_state(domain).state is DomainState.RUNNING
    finally:
        driver.domain_destroy(domain)
