"""Letting single calls to the file fail, whatever the format."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hostel.block.options import Value
from support.crash import Version
from support.fault import faults
from support.format_workload import FormatWorkload, Subject
from support.memory import FaultyDriver, memory_node


def perform(workload: FormatWorkload, name: str) -> None:
    """Do one operation, and write what it holds back."""
    getattr(workload, name)()
    workload.node.flush()


def version(workload: FormatWorkload) -> Version:
    """What the guest must read now."""
    return Version(0, 0, bytes(workload.content), {}, {})


def let_creation_fail(subject: Subject, size: int, options: Mapping[str, Value]) -> None:
    """A fault at any call while an image is created is reported."""
    sound = FaultyDriver()
    sound.arm()
    subject.driver.create(memory_node(sound), size, options)
    for fault in faults(list(sound.calls)):
        driver = FaultyDriver()
        driver.arm(fault.at, fault.code, short=fault.short)
        with pytest.raises(OSError, match="injected"):
            subject.driver.create(memory_node(driver), size, options)
