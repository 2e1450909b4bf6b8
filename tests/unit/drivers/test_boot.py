"""Noticing that the host was started anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers import boot
from hostel.drivers.boot import Start, claim_start
from hostel.drivers.store import Directories


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path)


def test_only_the_first_opening_is_the_first(directories: Directories) -> None:
    assert claim_start(directories) is Start.FIRST
    assert claim_start(directories) is Start.ANOTHER


def test_the_first_opening_under_another_boot_comes_after_a_reboot(
    directories: Directories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_start(directories)
    identity = tmp_path / "boot_id"
    identity.write_text("another\n")
    monkeypatch.setattr(boot, "_BOOT_ID", identity)
    assert claim_start(directories) is Start.AFTER_REBOOT
    assert claim_start(directories) is Start.ANOTHER


def test_where_nothing_can_be_written_nobody_starts_anything(directories: Directories) -> None:
    directories.state.parent.mkdir(parents=True, exist_ok=True)
    directories.state.write_text("a file in the way")
    assert claim_start(directories) is Start.ANOTHER
