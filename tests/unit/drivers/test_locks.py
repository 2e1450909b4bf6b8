"""Files whose lock says that a process is at work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.store import is_locked, take_lock


def test_lock_is_one_holders_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    held = take_lock(path)
    assert held is not None
    assert is_locked(path)
    assert take_lock(path) is None
    os.close(held)
    assert not is_locked(path)


def test_lock_in_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_lock(tmp_path / "nowhere" / "lock")
