"""Random operations on an image in memory, of a format that can be written, and what the guest must see afterwards."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from hostel.block import registry
from hostel.block.driver import OpenMode, Supports
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import BackingStore, Checkable, CheckResult, Compressing, Emptying, Repair, Resizable
from support import qcow2
from support.guest_io import SECTOR, GuestIO, noise
from support.memory import MemoryDriver, memory_node

BACKING_NAMES: Final = ("b", "base.raw", "a/longer/path/to/base.raw")
_MODEST: Final = 1 << 19  # bytes of a disk: quick to read back after each step


class Subject(NamedTuple):
    """A format under test.

    Attributes:
        name: the format.
        options: makes creation options for small images.
        cluster_size: bytes, of an image with these options.
        backing: whether images of these options may have a backing file.
        marked: whether the image says that it was not closed properly.
        mends: a marked image must be repaired before it is opened for writing.
        adapt: makes another kind of image of a new one.
        stricter_qemu: words of QEMU's refusals of images that can be opened all the same.
        compared: what of a new image is the same each time.
        opened_with: the options that images are opened with.
    """

    name: str
    options: Callable[[random.Random], dict[str, Value]]
    cluster_size: Callable[[Mapping[str, Value]], int]
    backing: bool = False
    marked: Callable[[bytes], bool] = lambda data: False
    mends: bool = False
    adapt: Callable[[bytes], bytes] = lambda data: data
    stricter_qemu: tuple[str, ...] = ()
    compared: Callable[[bytes], bytes] = lambda data: data
    opened_with: Mapping[str, Value] = MappingProxyType({})

    @property
    def driver(self) -> Any:
        """The driver's class."""
        return registry.format_driver(self.name)

    def create(self, size: int, options: Mapping[str, Value] | None = None) -> bytes:
        """A fresh image's bytes."""
        driver = MemoryDriver()
        self.driver.create(memory_node(driver), size, options or {})
        return self.adapt(bytes(driver.data))

    def attach(
        self, driver: MemoryDriver, *, read_only: bool = False, check: bool = False, backing: bytes | None = None
    ) -> BlockNode:
        """Open an image that lies in ``driver``, over a raw backing image where its header names one."""
        mode = OpenMode(read_only=read_only, check=check, options=self.opened_with)
        opened = self.driver.open(memory_node(driver, read_only=read_only), mode)
        node = BlockNode(opened, "memory", read_only=read_only)
        if backing is not None and opened.references():
            node.driver.children["backing"] = qcow2.disk(backing)
        return node

    def mended(self, data: bytes | bytearray) -> bytes:
        """The image as it can be opened for writing."""
        if not self.mends or not self.marked(bytes(data)):
            return bytes(data)
        result, lines, after = self.check(data, Repair.ALL)
        assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0), lines
        return after

    def check(self, data: bytes | bytearray, repair: Repair = Repair.NOTHING) -> tuple[CheckResult, list[str], bytes]:
        """Check or repair an image: the result, the lines reported, and the bytes afterwards.

        A format without checks finds nothing.
        """
        lines: list[str] = []
        driver = MemoryDriver(data)
        if not hasattr(self.driver, "check"):
            return CheckResult(), lines, bytes(data)
        with self.attach(driver, read_only=not repair, check=True) as node:
            assert isinstance(node.driver, Checkable)
            result = node.driver.check(repair, lines.append)
        return result, lines, bytes(driver.data)


class FormatWorkload(GuestIO):
    """An image of a subject's format under random operations."""

    def __init__(
        self,
        subject: Subject,
        rng: random.Random,
        make_driver: Callable[[bytes], MemoryDriver] = MemoryDriver,
        *,
        options: Mapping[str, Value] | None = None,
        size: int | None = None,
        aligned: bool = False,
    ) -> None:
        self.subject = subject
        self.rng = rng
        self.options = dict(options if options is not None else subject.options(rng))
        self.backing: bytes | None = None
        cluster = subject.cluster_size(self.options)
        if size is None:
            size = min(rng.choice((1, 7, 60, 130, 300)), _MODEST // cluster) * cluster + rng.choice((0, SECTOR))
        if subject.backing and rng.random() < 0.4:
            self.backing = noise(rng, rng.choice((size // 2, size, size + 5 * cluster)) // SECTOR * SECTOR)
            self.options |= {"backing_file": "base.raw", "backing_fmt": "raw"}
        self.original_backing = self.backing
        self.aligned = aligned
        self.snapshots: dict[str, bytes] = {}
        self.bitmaps: dict[str, bytes] = {}
        self.driver = make_driver(subject.create(size, self.options))
        self.node = self.open()
        self.cluster_size = self.node.driver.info().cluster_size or cluster
        self.content = bytearray(self.node.length)
        shown = (self.backing or b"")[: self.node.length]
        self.content[: len(shown)] = shown
        self.flushed = bytes(self.content)

    def open(self) -> BlockNode:
        """Open the image for writing."""
        return self.subject.attach(self.driver, backing=self.backing)

    def fork(self, driver: MemoryDriver, rng: random.Random) -> FormatWorkload:
        """The same image, closed, lying in another driver: opened there."""
        fork = copy.copy(self)
        fork.rng, fork.driver = rng, driver
        fork.content, fork.options = bytearray(self.content), dict(self.options)
        fork.node = fork.open()
        return fork

    # ---- operations

    def operations(self) -> dict[str, int]:
        """What can be done, with its weight."""
        driver = self.node.driver
        weights = {"write": 10, "zero": 3, "unmap": 3, "flush": 3, "reopen": 1}
        if isinstance(driver, Compressing):
            weights["compress"] = 4
        if driver.supports & Supports.DISCARD:
            weights["discard"] = 3
        if isinstance(driver, Resizable) and driver.starts_as_zeroes:
            weights["grow"] = 1
        if self.backing is not None and isinstance(driver, BackingStore):
            weights["rebase"] = 1
        if self.backing is not None and isinstance(driver, Emptying):
            weights["empty"] = 1
        return weights

    def grow(self) -> None:
        """Grow; what is new reads as zeroes, whatever the backing image has there."""
        added = self.rng.choice((SECTOR, self.cluster_size, 7 * self.cluster_size + SECTOR, 70 * self.cluster_size))
        self.node.resize(len(self.content) + added)
        self.content += bytes(self.node.length - len(self.content))
        self.flushed = bytes(self.content)

    def rebase(self) -> None:
        """Record another name of the same backing image; or none, once nothing shows through."""
        driver = self.node.driver
        assert isinstance(driver, BackingStore)
        shows = any(not extent.status & Status.ALLOCATED for extent in self.node.extents())
        if not shows and self.rng.random() < 0.5:
            driver.change_backing(None, None)
            driver.children.pop("backing").close()
            self.backing = None
        else:
            driver.change_backing(self.rng.choice(BACKING_NAMES), "raw")
        self.flushed = bytes(self.content)

    def empty(self) -> None:
        """Forget what lies above the backing image."""
        driver = self.node.driver
        assert isinstance(driver, Emptying)
        driver.make_empty()
        assert self.backing is not None
        shown = self.backing[: len(self.content)]
        self.content[:] = shown.ljust(len(self.content), b"\0")

    # ---- judging

    def verify(self) -> None:
        """The guest reads what it must, and extents that are said to lie in the file are there."""
        assert self.node.length == len(self.content)
        assert self.node.read(0, len(self.content)) == self.content
        for extent in self.node.extents():
            part = self.content[extent.offset : extent.end]
            if extent.status & Status.ZERO:
                assert not any(part)
            if extent.host_offset is not None:
                assert self.driver.data[extent.host_offset : extent.host_offset + extent.length] == part
