"""Fixtures of the tests that run the real tools beside ours."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.twins import Twins


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twins:
    """Twin folders for the real ``qemu-img`` and ours; local time is UTC for both."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return Twins(tmp_path)
