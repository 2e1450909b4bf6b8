"""Writing to what an image has nothing for yet, by several threads at once.

Only finding a place, and recording it, needs the node's lock: the data, which takes longest, is written without. As in
any write, the data is there before anything refers to it; cut off in between, the place is leaked.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hostel.block.node import BlockNode


@runtime_checkable
class Filling(Protocol):
    """Can tell apart the steps of a write; all but :meth:`fill` are called with the node's lock held."""

    def reserve(self, offset: int, length: int) -> int | None:
        """Take a place for a guest range of whole clusters that the image has nothing for; None for any other."""

    def fill(self, place: int, data: memoryview) -> None:
        """Write the data to a place that was taken."""

    def adopt(self, offset: int, length: int, place: int) -> bool:
        """Let the guest range be what is at the place; False, and that is given back, where the range has data now."""

    def abandon(self, place: int, length: int) -> None:
        """Give a place back."""


def fill(node: BlockNode, offset: int, data: memoryview) -> bool:
    """Write a range that the node's image has nothing for; False, and nothing is written, where it is another.

    Raises:
        OSError: the write failed; the place was given back.
    """
    driver = node.driver
    if (
        not isinstance(driver, Filling)
        or node.read_only
        or node.detect_zeroes != "off"
        or node.cache.writethrough
        or offset + len(data) > node.length
    ):
        return False
    # Who drains the node waits for all of the steps; where somebody is about to, the usual way is the better one.
    gate = node.stepwise()
    if not gate.enter_at_once():
        return False
    try:
        # Both again: until then somebody may have changed it, or cut it off.
        return node.driver is driver and offset + len(data) <= node.length and _fill(node, driver, offset, data)
    finally:
        gate.step_out()


def _fill(node: BlockNode, driver: Filling, offset: int, data: memoryview) -> bool:
    with node.lock():
        place = driver.reserve(offset, len(data))
    if place is None:
        return False
    try:
        driver.fill(place, data)
    except BaseException:
        with node.lock():
            driver.abandon(place, len(data))
        raise
    with node.lock():
        return driver.adopt(offset, len(data), place)
