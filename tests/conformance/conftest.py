"""Fixtures of the tests that run the real tools beside ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import small_disk as small_disks
from support.twins import Twins


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twins:
    """Twin folders for the real ``qemu-img`` and ours; local time is UTC for both."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return Twins(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with small_disks.small_disk(tmp_path / "full", 2 << 20) as mounted:
        yield mounted.folder
