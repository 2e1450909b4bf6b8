"""Judging what a power cut leaves of an image of any format that can be written."""

from __future__ import annotations

import random

from hostel.block.node import BlockNode
from hostel.block.powers import Resizable
from support.crash import Recording, State, judge_content, write_on
from support.format_workload import FormatWorkload, Subject
from support.guest_io import SECTOR
from support.memory import LoggedDriver, MemoryDriver


def record(subject: Subject, rng: random.Random, steps: int) -> Recording:
    """Run a random workload."""
    return Recording.of(FormatWorkload(subject, rng, LoggedDriver, aligned=True), steps)


def judge_image(recording: Recording, state: State) -> None:
    """A state opens, for reading and for writing; what was flushed is there; nothing worse than unused clusters."""
    workload = recording.workload
    assert isinstance(workload, FormatWorkload)
    subject, backing = workload.subject, workload.original_backing
    allowed = recording.allowed(state)
    with subject.attach(MemoryDriver(state.data), read_only=True, backing=backing) as node:
        content = bytes(node.read(0, node.length))
        judge_content(content, allowed)
    result, lines, after = subject.check(state.data)
    told = 1 if subject.mends and subject.marked(state.data) else 0  # that it was not closed
    assert (result.corruptions, result.check_errors) == (told, 0), lines
    assert after == state.data
    driver = MemoryDriver(subject.mended(state.data))
    with subject.attach(driver, backing=backing) as node:
        assert node.read(0, node.length) == content
        judge_use(node, content)
    result, lines, _ = subject.check(driver.data)
    assert (result.corruptions, result.check_errors) == (0, 0), lines
    assert not subject.marked(bytes(driver.data))


def judge_use(node: BlockNode, content: bytes) -> None:
    """The image can go on: write, grow, and read back; space that it grows by is zeroes."""
    expected = write_on(node, content)
    if isinstance(node.driver, Resizable) and node.driver.starts_as_zeroes:
        node.resize(len(content) + 3 * (node.driver.info().cluster_size or SECTOR))
        expected += bytes(node.length - len(content))
    assert node.read(0, node.length) == expected
