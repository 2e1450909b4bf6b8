"""What a driver can do beside reading and writing, each a protocol of its own, and the records that these give.

A caller asks ``isinstance(driver, Resizable)``; a format that can be made has :class:`Creatable` on its class.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from hostel.block.options import Options, Value

if TYPE_CHECKING:
    from hostel.block.bitmap import DirtyBitmap
    from hostel.block.driver import BlockDriver, OpenMode
    from hostel.block.gate import Gate
    from hostel.block.node import BlockNode

ModeChange = Callable[["OpenMode"], "OpenMode"]


class Preallocation(enum.Enum):
    """Preallocation modes."""

    OFF = "off"
    METADATA = "metadata"
    FALLOC = "falloc"
    FULL = "full"


class Repair(enum.IntFlag):
    """What ``check`` may repair."""

    NOTHING = 0
    LEAKS = 1
    ERRORS = 2
    ALL = 3


class CheckResult:
    """What a check found and did (QEMU's ``ImageCheck``); counts of clusters or of errors.

    Attributes:
        image_end_offset: bytes up to the end of the last used cluster.
    """

    __slots__ = (
        "allocated_clusters",
        "check_errors",
        "compressed_clusters",
        "corruptions",
        "corruptions_fixed",
        "fragmented_clusters",
        "image_end_offset",
        "leaks",
        "leaks_fixed",
        "total_clusters",
    )

    def __init__(self) -> None:
        self.check_errors = 0
        self.image_end_offset = 0
        self.corruptions = 0
        self.leaks = 0
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.total_clusters = 0
        self.allocated_clusters = 0
        self.fragmented_clusters = 0
        self.compressed_clusters = 0


class SnapshotInfo(NamedTuple):
    """An internal snapshot.

    Attributes:
        vm_state_size: bytes.
        date: seconds since 1970.
        date_nsec: nanoseconds beyond ``date``.
        vm_clock_nsec: nanoseconds the guest had run.
        icount: instructions the guest had run; None where not recorded.
        disk_size: the virtual size at that time, bytes.
    """

    id: str
    name: str
    vm_state_size: int
    date: int
    date_nsec: int
    vm_clock_nsec: int
    icount: int | None
    disk_size: int


class Measured(NamedTuple):
    """How large an image's file will be, in bytes.

    Attributes:
        required: for the data that is there now.
        fully_allocated: once the guest has written everywhere.
    """

    required: int
    fully_allocated: int


class BitmapInfo(NamedTuple):
    """A persistent dirty bitmap.

    Attributes:
        granularity: bytes of the image that one bit stands for.
        flags: QEMU's names: ``in-use`` (not stored properly), ``auto`` (records writes).
    """

    name: str
    granularity: int
    flags: tuple[str, ...]


Report = Callable[[str], None]


@runtime_checkable
class Unpacking(Protocol):
    """Keeps data in compressed parts as large as an image likes."""

    def unpacked_length(self, offset: int, length: int) -> int:
        """Bytes of the largest part that must be unpacked as a whole to read a range of the disk."""
        ...


@runtime_checkable
class Creatable(Protocol):
    """A format that can be created: the class itself has this power."""

    create_options: ClassVar[Options]

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Raise what :meth:`create` would raise for these, before a file is touched."""

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an empty image of ``size`` bytes in ``file``, which is empty and writable.

        ``options`` are the converted :attr:`create_options`, without ``size``; a backing file's name and format are
        among them and recorded as given.
        """


@runtime_checkable
class Amendable(Protocol):
    """Can change what it was created with: the class itself has this power."""

    amend_options: ClassVar[Options]

    def amend(self, options: Mapping[str, Value], *, force: bool, report: Callable[[int, int], None]) -> None:
        """Change what ``options`` say, which are converted :attr:`amend_options`, and nothing else.

        ``force`` allows what makes data unreadable (the last key of an encrypted image); ``report`` is told how far it
        is, of how much.
        """


@runtime_checkable
class Measuring(Protocol):
    """Knows beforehand how large an image's file will be: the class itself has this power."""

    @classmethod
    def measure(cls, size: int, options: Mapping[str, Value], data: Iterable[tuple[int, int]] | None) -> Measured:
        """Measure an image of ``size`` bytes.

        ``options`` are as for creation; ``data`` is the offset and length of each range that is to be written, in
        order, and None for an empty image.
        """


@runtime_checkable
class Resizable(Protocol):
    """Can change its virtual size."""

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Grow or shrink to ``size`` bytes; new space reads as zeroes even where a longer backing file has data."""


@runtime_checkable
class Reopenable(Protocol):
    """Can be opened anew in its place, in another mode."""

    def reopened(self, change: ModeChange) -> BlockDriver:
        """Write out what is held back; the driver that takes this one's place.

        It is opened on what :attr:`BlockDriver.children` holds by then, in what ``change`` makes of the present mode.
        Where that fails this driver goes on.
        """


@runtime_checkable
class Preallocating(Protocol):
    """Can reserve space on the host."""

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space for a range; what it reads as does not change."""


@runtime_checkable
class FastZeroing(Protocol):
    """Knows whether zeroing is faster than writing; of a driver that does not say so it is not expected."""

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether ``write_zeroes`` of a range writes next to nothing."""


@runtime_checkable
class Checkable(Protocol):
    """Can check its own consistency."""

    def check(self, repair: Repair, report: Report) -> CheckResult:
        """Check, and repair what ``repair`` allows; each finding is a line to ``report``."""


@runtime_checkable
class Snapshotting(Protocol):
    """Has internal snapshots; each is named by its id or, failing that, by its name."""

    def snapshots(self) -> list[SnapshotInfo]:
        """All of them, in the order of the table."""

    def snapshot_create(self, name: str, *, date: tuple[int, int], icount: int | None = 0) -> SnapshotInfo:
        """Keep the present state; ``date`` is seconds and nanoseconds since 1970, ``icount`` see SnapshotInfo."""

    def snapshot_apply(self, id_or_name: str) -> None:
        """Go back to a snapshot's state."""

    def snapshot_delete(self, id_or_name: str) -> None:
        """Drop a snapshot."""

    def snapshot_load(self, id: str | None, name: str | None) -> None:
        """Show a snapshot's content, and its size, until the image is closed; only where it was opened read-only.

        ``id`` and ``name`` must both fit where both are given.
        """


@runtime_checkable
class VmStateStore(Protocol):
    """Keeps machine state beside the disk; offsets are bytes of that state."""

    def load_vm_state(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what was never saved reads as zeroes."""

    def save_vm_state(self, offset: int, data: memoryview) -> None:
        """Write ``data``."""


@runtime_checkable
class BitmapStore(Protocol):
    """Has persistent dirty bitmaps; granularities are bytes. All but :meth:`bitmaps` raise ENOENT for a wrong name.

    The driver's class is one too, as it must be asked before there is an image: all of these are found on it.
    """

    @property
    def busy_bitmaps(self) -> dict[str, bool]:
        """Those that jobs or exports use, and nobody else may change; it outlasts a reopening.

        By each name, whether it will be written in the end: the image cannot be made read-only before.
        """

    @property
    def keeps_bitmaps(self) -> bool:
        """Whether this image can have any: not every version of a format knows of them."""

    def bitmaps(self) -> list[BitmapInfo]:
        """All of them, in the image's order."""

    def bitmap(self, name: str) -> DirtyBitmap:
        """The bits of one; EINVAL where it is inconsistent."""

    def bitmap_add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> None:
        """Make an empty one."""

    def bitmap_remove(self, name: str) -> None:
        """Drop one."""

    def bitmap_clear(self, name: str) -> None:
        """Set all bits of one to 0."""

    def bitmap_enable(self, name: str, enabled: bool) -> None:
        """Let one record writes or not."""

    def bitmap_merge(self, name: str, source: DirtyBitmap) -> None:
        """Mark in one what is dirty in another."""

    def bitmap_replace(self, name: str, source: DirtyBitmap) -> None:
        """Let one be dirty where another is, and nowhere else; where that fails it is as it was."""

    def unrecorded(self) -> AbstractContextManager[None]:
        """Record no writes meanwhile, of one who changes nothing of what is read and holds all others off."""


@runtime_checkable
class BackingStore(Protocol):
    """Records which image it is an overlay of."""

    def change_backing(self, filename: str | None, format: str | None) -> None:
        """Record another backing file, or none; the data is not touched."""


@runtime_checkable
class Deferring(Protocol):
    """Can look up where data lies apart from reading it, so that several threads may read and decompress at once."""

    def deferred_read(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Look up a range of compressed clusters, with the node's lock held.

        What is returned fills a buffer with the range's bytes; it needs no lock, as long as nothing is written.
        """


@runtime_checkable
class ParentBound(Protocol):
    """Remembers what its backing image was like, and shows nothing of one that has changed since."""

    def ignoring_parent(self) -> AbstractContextManager[str | None]:
        """Let it be asked what this layer has, meanwhile, whatever the backing image is like.

        Who enters is given the reason why nothing of that is shown; None where it is as it was.
        """


@runtime_checkable
class Emptying(Protocol):
    """Can forget all it holds above its backing node."""

    def make_empty(self) -> None:
        """Drop all data of this layer, so that the backing node shows through everywhere, and give its space back."""


@runtime_checkable
class Compressing(Protocol):
    """Can store clusters compressed."""

    @property
    def cluster_size(self) -> int:
        """Bytes of the unit of compression."""

    def compressor(self) -> Callable[[bytes | bytearray | memoryview], bytes | None]:
        """A function for one thread that compresses one whole cluster; None where it would not get smaller."""

    def pwrite_compressed(self, offset: int, payload: bytes) -> None:
        """Store a cluster's compressed ``payload`` at a cluster-aligned guest ``offset``."""


@runtime_checkable
class Patient(Protocol):
    """What waits for a peer that has gone."""

    def lose_patience(self) -> None:
        """End a wait that is on; who waits is told that the peer did not come back."""


def lose_patience(nodes: Iterable[BlockNode]) -> None:
    """End the waits that are on in nodes for peers that have gone."""
    for node in nodes:
        if isinstance(node.driver, Patient):
            node.driver.lose_patience()


@runtime_checkable
class Named(Protocol):
    """Tells of incidents, and by what name the node is known that it is the driver of.

    Attributes:
        called: that name, at this moment; whoever names nodes says it.
    """

    called: Callable[[], str]


@runtime_checkable
class Bypassed(Protocol):
    """A file that is also read and written past its node; see :class:`hostel.block.gate.Bypass`."""

    @property
    def past(self) -> Gate:
        """The gate of those who do so."""


@runtime_checkable
class Divisible(Protocol):
    """Knows nothing beyond a file's bytes: two processes can use that without knowing of each other."""

    def divide(self) -> None:
        """Go on in a forked child, whose parent has it open too."""
