"""Files whose sync fails once and succeeds the next time, as a server's may: the image goes on as it was."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from hostel.block.formats.qcow2.amend import amend_image
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from support import qcow2
from support.memory import MemoryDriver

CLUSTER = 512
SIZE = 200 * CLUSTER


class Hiccup(MemoryDriver):
    """Memory of which one sync fails.

    Attributes:
        left: how many succeed before; negative for all.
    """

    left = -1

    def flush(self) -> None:
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.EIO, "a sync that fails once")


def _create(driver: Qcow2Driver) -> None:
    driver.snapshot_create("after", date=(0, 0))


def _apply(driver: Qcow2Driver) -> None:
    driver.snapshot_apply("before")


def _delete(driver: Qcow2Driver) -> None:
    driver.snapshot_delete("before")


def _widen(driver: Qcow2Driver) -> None:
    amend_image(driver._guest, {"refcount_bits": 64}, force=False, report=lambda done, total: None)


def _grow(driver: Qcow2Driver) -> None:
    driver.resize(64 * SIZE)


def _shrink(driver: Qcow2Driver) -> None:
    driver.resize(SIZE // 2)


def disk() -> Hiccup:
    driver = Hiccup(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"old." * (SIZE // 8))
        assert isinstance(node.driver, Qcow2Driver)
        node.driver.snapshot_create("before", date=(0, 0))
        node.pwrite(0, b"new." * (SIZE // 16))
    return driver


def reads(node: BlockNode, old: bytes) -> bool:
    """Whether an image has one of its two contents, as far as it reaches."""
    length = min(node.length, SIZE)
    return bytes(node.read(0, length)) in (old[:length], (b"old." * (SIZE // 8)).ljust(SIZE, b"\0")[:length])


@pytest.mark.parametrize("change", [_create, _apply, _delete, _widen, _grow, _shrink])
def test_the_image_is_written_on_after_a_sync_that_failed(change: Callable[[Qcow2Driver], None]) -> None:
    for at in range(100):
        driver = disk()
        with qcow2.attach(driver) as node:
            assert isinstance(node.driver, Qcow2Driver)
            old = bytes(node.read(0, SIZE))
            driver.left = at
            try:
                change(node.driver)
            except OSError:
                driver.left = -1
                assert reads(node, old)
                if node.driver._image.broken is not None:
                    continue  # the header may be either: it says so, and is written no more
                last = b"last" * (min(node.length, SIZE) // 4)
                node.pwrite(0, last)
            else:
                driver.left = -1
                return
        result, lines, data = qcow2.check(driver.data)
        assert qcow2.faults(result) == (0, 0), (at, lines)
        with qcow2.attach(MemoryDriver(data), read_only=True) as node:
            assert node.read(0, len(last)) == last
    raise AssertionError("there is no end to the syncs")
