"""Dumps of the test driver's domains, which have no memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import DomainState, ShutoffReason
from hostel.drivers.base.dumping import DumpFlag, DumpFormat
from hostel.drivers.base.peeking import PeekFlag
from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.drivers.test.hypervisor import TestDriver
from hostel.errors import ErrorCode, VirtError


def test_a_dump_is_written_and_the_domain_goes_on_or_crashes(tmp_path: Path) -> None:
    drivers = open_drivers("test:///default", Directories.under(tmp_path))
    driver = drivers.hypervisor
    assert isinstance(driver, TestDriver)
    ref = driver.domain_lookup_by_name("test")
    driver.domain_core_dump_with_format(ref, str(tmp_path / "dump"), DumpFormat.RAW)
    assert (tmp_path / "dump").read_bytes() == b"TestGuestMagic\0"
    assert (tmp_path / "dump").stat().st_mode & 0o777 == 0o600
    for to, format, flags, code in (
        (tmp_path, DumpFormat.RAW, DumpFlag.NONE, ErrorCode.SYSTEM_ERROR),
        (tmp_path / "dump", DumpFormat.KDUMP_LZO, DumpFlag.NONE, ErrorCode.OPERATION_UNSUPPORTED),
        (tmp_path / "dump", DumpFormat.RAW, DumpFlag.LIVE, ErrorCode.INVALID_ARG),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_core_dump_with_format(ref, str(to), format, flags)
        assert caught.value.code is code
    assert driver.domain_memory_peek(ref, 254, 4, PeekFlag.PHYSICAL) == b"\xfe\xff\x00\x01"
    with pytest.raises(VirtError, match="VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL"):
        driver.domain_memory_peek(ref, 0, 4, PeekFlag.NONE)
    with pytest.raises(VirtError, match="at most 4194304 bytes"):
        driver.domain_memory_peek(ref, 0, 1 << 30, PeekFlag.VIRTUAL)
    driver.domain_core_dump_with_format(ref, str(tmp_path / "dump"), DumpFormat.RAW, DumpFlag.CRASH)
    assert driver.domain_get_state(ref)[:2] == (DomainState.SHUTOFF, ShutoffReason.CRASHED)
    drivers.close()
