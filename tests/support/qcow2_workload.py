"""Random operations on a qcow2 image in memory, and what the guest must see afterwards."""

from __future__ import annotations

import copy
import errno
import random
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from hostel.block.extent import Status
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation, Repair
from hostel.errors import BlockError, UnsupportedFeature
from support import qcow2
from support.guest_io import SECTOR, GuestIO, noise
from support.memory import MemoryDriver

# Clusters of 512 bytes reach the ends of tables and refcount blocks soonest.
CLUSTER_SIZES: Final = (512, 512, 1024, 4096, 4096, 65536)
REFCOUNT_BITS: Final = (1, 2, 4, 8, 16, 16, 32, 64)
_MODEST: Final = 1 << 19  # bytes: enough to cross what there is to cross, and quick to read back after each step
BACKING_NAMES: Final = ("b", "base.raw", "a/longer/path/to/base.raw")
Driver = TypeVar("Driver", bound=MemoryDriver)


def random_options(rng: random.Random, cluster_sizes: tuple[int, ...] = CLUSTER_SIZES) -> dict[str, Value]:
    """Creation options that go together."""
    options: dict[str, Value] = {"cluster_size": rng.choice(cluster_sizes)}
    if rng.random() < 0.2:
        return options | {"compat": "0.10"}
    if rng.random() < 0.15:
        options = {"cluster_size": 16384, "extended_l2": True}
    options["refcount_bits"] = rng.choice(REFCOUNT_BITS)
    options["lazy_refcounts"] = rng.random() < 0.25
    options["compression_type"] = rng.choice(("zlib", "zstd"))
    return options


class Workload(GuestIO):
    """A qcow2 image under random operations."""

    def __init__(
        self,
        rng: random.Random,
        make_driver: Callable[[bytes], MemoryDriver] = MemoryDriver,
        *,
        options: Mapping[str, Value] | None = None,
        size: int | None = None,
        aligned: bool = False,
        preallocate: bool = True,
    ) -> None:
        self.rng = rng
        self.options: dict[str, Value] = dict(options if options is not None else random_options(rng))
        self.cluster_size = int(self.options["cluster_size"])
        self.version = 2 if self.options.get("compat") == "0.10" else 3
        self.aligned = aligned
        self.snapshots: dict[str, bytes] = {}
        self.bitmaps: dict[str, bytes] = {}
        self.backing: bytes | None = None
        if size is None:
            size = self.random_size()
        extended = bool(self.options.get("extended_l2"))
        if rng.random() < 0.4 and "preallocation" not in self.options:
            self.backing = noise(rng, rng.choice((size // 2, size, size + 5 * self.cluster_size)) // SECTOR * SECTOR)
            self.options["backing_file"] = "base.raw"
            self.options["backing_fmt"] = "raw"
        if (
            preallocate
            and "preallocation" not in self.options
            and (extended or self.backing is None)
            and rng.random() < 0.3
        ):
            self.options["preallocation"] = rng.choice(("metadata", "falloc", "full"))
        self.original_backing = self.backing
        self.content = self.below(size)
        self.flushed = bytes(self.content)
        self.driver = make_driver(qcow2.create(size, self.options))
        self.node = self.open()

    def open(self) -> BlockNode:
        """Open the image for writing."""
        return qcow2.attach(self.driver, backing=self.backing)

    def fork(self, driver: MemoryDriver, rng: random.Random) -> Workload:
        """The same image, closed, lying in another driver: opened there."""
        fork = copy.copy(self)
        fork.rng, fork.driver = rng, driver
        fork.content, fork.snapshots = bytearray(self.content), dict(self.snapshots)
        fork.bitmaps, fork.options = dict(self.bitmaps), dict(self.options)
        fork.node = fork.open()
        return fork

    @property
    def image(self) -> Qcow2Driver:
        """The format driver."""
        driver = self.node.driver
        assert isinstance(driver, Qcow2Driver)
        return driver

    def random_size(self) -> int:
        """A virtual size of some clusters, and sometimes part of one; now and then none."""
        clusters = min(self.rng.choice((0, 1, 7, 60, 130, 300)), _MODEST // self.cluster_size)
        return clusters * self.cluster_size + self.rng.choice((0, 0, SECTOR)) % self.cluster_size

    def below(self, size: int) -> bytearray:
        """What shows through ``size`` bytes of nothing."""
        content = bytearray(size)
        shown = (self.backing or b"")[:size]
        content[: len(shown)] = shown
        return content

    # ---- operations

    def operations(self) -> dict[str, int]:
        """What can be done now, with its weight."""
        weights = {"write": 10, "zero": 3, "unmap": 3, "discard": 3, "compress": 4, "flush": 3, "reopen": 1}
        if "encrypt.format" in self.options:
            del weights["compress"]
        if not self.content:
            weights = {"flush": 1, "reopen": 1}
        resizable = self.version >= 3 or not self.snapshots
        if resizable:
            weights |= {"grow": 1, "shrink": 1}
        if self.options.get("refcount_bits", 16) != 1:
            weights |= {"create_snapshot": 1}
        if self.snapshots:
            weights |= {"delete_snapshot": 1}
        same = any(len(each) == len(self.content) for each in self.snapshots.values())
        if self.snapshots and (resizable or same) and not self.bitmaps:
            weights |= {"apply_snapshot": 1}
        if self.backing is not None:
            weights |= {"rebase": 1}
        if self.version > 2 and self.content:
            weights |= {"add_bitmap": 1}
        if self.bitmaps:
            weights |= {"clear_bitmap": 1, "remove_bitmap": 1, "disable_bitmap": 1, "merge_bitmap": 1}
        return weights | {"amend": 1}

    def forgets_what_it_discards(self) -> bool:
        """Version 2 over a backing image keeps what it has."""
        return self.version >= 3 or self.backing is None

    def grow(self) -> None:
        """Grow; what is new reads as zeroes, whatever the backing image has there."""
        many = min(70, _MODEST // self.cluster_size)
        added = self.rng.choice((SECTOR, self.cluster_size, 7 * self.cluster_size + SECTOR, many * self.cluster_size))
        mode = Preallocation.OFF
        if self.backing is None and self.rng.random() < 0.4:
            mode = self.rng.choice(list(Preallocation))
        self.node.resize(len(self.content) + added, mode)
        self.content += bytes(added)
        self.bitmaps = {name: before + bytes(added) for name, before in self.bitmaps.items()}
        if mode is Preallocation.OFF:
            self.flushed = bytes(self.content)

    def shrink(self) -> None:
        """Shrink."""
        size = self.rng.randrange(bool(self.bitmaps), len(self.content) // SECTOR + 1) * SECTOR
        self.node.resize(size)
        del self.content[size:]
        self.bitmaps = {name: before[:size] for name, before in self.bitmaps.items()}
        self.flushed = bytes(self.content)

    def create_snapshot(self) -> None:
        """Create a snapshot."""
        if len(self.snapshots) < 6 and self._counts(lambda: self._create_snapshot()):
            self.flushed = bytes(self.content)

    def _create_snapshot(self) -> None:
        made = self.image.snapshot_create(f"name {self.rng.getrandbits(32)}", date=(1, 2))
        self.snapshots[made.id] = bytes(self.content)

    def _counts(self, change: Callable[[], None]) -> bool:
        """Make a change, unless narrow refcounts make the driver refuse it; then nothing has happened."""
        try:
            change()
        except BlockError as error:
            if error.errno != errno.EINVAL or int(self.options.get("refcount_bits", 16)) > 4:
                raise
            return False
        return True

    def apply_snapshot(self) -> None:
        """Go back to a snapshot."""
        resizable = self.version >= 3
        names = [id for id, each in self.snapshots.items() if resizable or len(each) == len(self.content)]
        id = self.rng.choice(names)
        if self._counts(lambda: self.image.snapshot_apply(id)):
            self.content = bytearray(self.snapshots[id])
            self.flushed = bytes(self.content)

    def delete_snapshot(self) -> None:
        """Delete a snapshot."""
        id = self.rng.choice(list(self.snapshots))
        self.image.snapshot_delete(id)
        del self.snapshots[id]
        self.flushed = bytes(self.content)

    def rebase(self) -> None:
        """Record another name of the same backing image; or none, once nothing shows through."""
        shows = any(not extent.status & Status.ALLOCATED for extent in self.node.extents())
        if not shows and not self.snapshots and self.rng.random() < 0.5:
            self.image.change_backing(None, None)
            self.node.driver.children.pop("backing").close()
            self.backing = None
        else:
            self.image.change_backing(self.rng.choice(BACKING_NAMES), self.rng.choice(("raw", None)))
        self.flushed = bytes(self.content)

    def add_bitmap(self) -> None:
        """Make a bitmap that records writes."""
        if len(self.bitmaps) < 3:
            name = f"bitmap {self.rng.getrandbits(32)}"
            self.image.bitmap_add(name, self.rng.choice((512, 4096, 65536)))
            self.bitmaps[name] = bytes(self.content)

    def clear_bitmap(self) -> None:
        """Forget what a bitmap has recorded."""
        name = self.rng.choice(list(self.bitmaps))
        self.image.bitmap_clear(name)
        self.bitmaps[name] = bytes(self.content)

    def remove_bitmap(self) -> None:
        """Drop a bitmap."""
        name = self.rng.choice(list(self.bitmaps))
        self.image.bitmap_remove(name)
        del self.bitmaps[name]

    def disable_bitmap(self) -> None:
        """Let a bitmap rest while nothing is written."""
        name = self.rng.choice(list(self.bitmaps))
        self.image.bitmap_enable(name, False)
        if self.rng.random() < 0.5:
            self.reopen()
        self.image.bitmap_enable(name, True)

    def merge_bitmap(self) -> None:
        """Mark in one bitmap what is dirty in another: it still tells all that it told."""
        name, source = self.rng.choice(list(self.bitmaps)), self.rng.choice(list(self.bitmaps))
        self.image.bitmap_merge(name, self.image.bitmap(source))

    def amend(self) -> None:
        """Change what the image was created with, unless its features or narrow refcounts forbid it."""
        changes: tuple[dict[str, Value], ...] = (
            {"compat": "1.1"},
            {"compat": "0.10", "refcount_bits": 16, "lazy_refcounts": False},
            {"compat": "1.1", "lazy_refcounts": not self.options.get("lazy_refcounts")},
            {"compat": "1.1", "refcount_bits": self.rng.choice(REFCOUNT_BITS)},
        )
        self.amend_to(self.rng.choice(changes))

    def amend_to(self, options: dict[str, Value]) -> None:
        """Give the image these creation options, unless its features or narrow refcounts forbid it."""
        bits = int(self.options.get("refcount_bits", 16))
        try:
            self.image.amend(options, force=False, report=lambda done, total: None)
        except BlockError as error:
            narrows = bits != options.get("refcount_bits", bits)
            impossible = isinstance(error, UnsupportedFeature) or (narrows and error.errno == errno.EINVAL)
            if not impossible:
                raise
            return
        self.options |= options
        self.version = 2 if self.options.get("compat") == "0.10" else 3
        if self.version == 2:
            self.bitmaps.clear()
        self.flushed = bytes(self.content)

    # ---- judging

    def verify(self) -> None:
        """The guest reads what it must."""
        assert self.node.length == len(self.content)
        assert self.node.read(0, len(self.content)) == self.content

    def check(self) -> None:
        """Our own check finds nothing."""
        lines: list[str] = []
        result = self.image.check(Repair.NOTHING, lines.append)
        assert (lines, result.corruptions, result.leaks, result.check_errors) == ([], 0, 0, 0)
        found = {each.id: each.disk_size for each in self.image.snapshots()}
        assert found == {id: len(content) for id, content in self.snapshots.items()}
        assert {each.name for each in self.image.bitmaps()} == self.bitmaps.keys()
        for name, before in self.bitmaps.items():
            assert covers(self.image, name, before, self.content)


def covers(image: Qcow2Driver, name: str, before: bytes, after: bytes | bytearray) -> bool:
    """Whether a bitmap is dirty wherever ``after`` differs from ``before``, or has something that was not there."""
    dirty = image.bitmap(name)
    return all(
        dirty.is_dirty(start)
        for start in range(0, len(after), SECTOR)
        if before[start : start + SECTOR].ljust(SECTOR, b"\0") != after[start : start + SECTOR]
    )


def snapshot_content(data: bytes | bytearray, id: str, backing: bytes | None = None) -> bytes:
    """What a snapshot reads as: the image opened with the snapshot's L1 table and size instead of its own."""
    from hostel.block.formats.qcow2.layout import Header
    from hostel.block.formats.qcow2.snapshot_table import load

    with qcow2.attach(MemoryDriver(data), read_only=True) as node:
        assert isinstance(node.driver, Qcow2Driver)
        image = node.driver._image
        snapshot = next(each for each in load(image) if each.id == id.encode())
        header = image.header.replace(
            size=snapshot.disk_size, l1_size=snapshot.l1_size, l1_table_offset=snapshot.l1_table_offset
        )
    patched = bytearray(data)
    patched[: Header.OFFSET["incompatible_features"]] = header.pack()[: Header.OFFSET["incompatible_features"]]
    with qcow2.attach(MemoryDriver(patched), read_only=True, backing=backing) as node:
        return bytes(node.read(0, node.length))
