"""Files whose lock says that a process is at work."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.drivers.store import is_locked, lock_within, take_lock


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


def test_who_looks_at_a_lock_is_not_taken_for_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR))
    is_over = threading.Event()
    seen: list[bool] = []

    def look() -> None:
        while not is_over.is_set():
            seen.append(is_locked(path))

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        assert not any(is_locked(path) for _ in range(2000))
        for _ in range(200):
            held = take_lock(path)
            assert held is not None
            os.close(held)
    finally:
        is_over.set()
        for looker in lookers:
            looker.join(60)
    assert seen


@pytest.mark.parametrize("take", [take_lock, lambda path: os.open(path, os.O_RDWR)])
def test_lock_that_somebody_looks_at_is_taken(tmp_path: Path, take: Callable[[Path], int | None]) -> None:
    """Whoever looks may be stopped by the host while it does."""
    path = tmp_path / "lock"
    looking = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as is_locked does
    timer = threading.Timer(0.1, os.close, [looking])
    timer.start()
    held = take(path)
    assert held is not None
    assert lock_within(held, 0)
    timer.join(60)
    os.close(held)


def test_lock_whose_holders_share_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert is_locked(path, shared=True)
    os.close(held)
    assert not is_locked(path, shared=True)
