"""Sleeping between looks."""

from __future__ import annotations

import time

import pytest

from hostel.drivers.qemu.pause import Pause


def test_pauses_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pause = Pause(0.05)
    for _ in range(8):
        pause()
    assert slept == [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
