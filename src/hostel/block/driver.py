"""What a format, a protocol or a filter writes: :class:`BlockDriver` and the optional powers beside it.

A driver only does the work. Bounds, permissions, locking and the emulation of what a driver lacks belong to
:class:`hostel.block.node.BlockNode`, which is what everyone outside ``block/`` calls.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self, runtime_checkable

from hostel.block.extent import Extent, Status
from hostel.block.options import Options, Value
from hostel.block.trust import Trust
from hostel.errors import ReadOnly, UnsupportedFeature

if TYPE_CHECKING:
    from hostel.block.bitmap import DirtyBitmap
    from hostel.block.node import BlockNode


class Supports(enum.IntFlag):
    """What a driver does itself; the node emulates or refuses the rest."""

    NOTHING = 0
    WRITE = 1
    ZEROES = 2  # write_zeroes(); else the node writes zeroes
    DISCARD = 4  # discard(); else the node does nothing
    BACKING = 8  # overlays
    GROWS = 16  # a write beyond the end extends it, and reads beyond the end are zeroes: protocol drivers
    ENDS = 64  # has a size of its own: reads beyond it are zeroes, and a write finds no space: protocol drivers
    COMPUTES = 32  # reading takes the processor's time, so that several threads are worth having


class Threading(enum.Enum):
    """How many threads may be in a driver at once; the node enforces it."""

    SERIAL = "serial"
    PARALLEL = "parallel"


class Cache(NamedTuple):
    """A cache mode, ``-t`` and ``-T``.

    Attributes:
        direct: bypass the host's page cache.
        no_flush: never ask the host to sync.
        writethrough: sync after each write.
    """

    direct: bool = False
    no_flush: bool = False
    writethrough: bool = False


WRITEBACK: Final = Cache()
CACHE_MODES: Final[dict[str, Cache]] = {
    "none": Cache(direct=True),
    "off": Cache(direct=True),
    "directsync": Cache(direct=True, writethrough=True),
    "writeback": WRITEBACK,
    "unsafe": Cache(no_flush=True),
    "writethrough": Cache(writethrough=True),
}


class OpenMode(NamedTuple):
    """How an image is opened.

    Attributes:
        read_only: no write of any kind, metadata included.
        check: opened to be checked or repaired: a dirty or corrupt image is not refused, and opening repairs nothing.
        no_io: only metadata will be read (``info``); keys and backing data are not needed.
        probed: the format was guessed from the image's bytes, not named.
        force_share: take no locks (``-U``); needs ``read_only``.
        exclusive: no other process may write the image, or what it stands on; formats with metadata never let it.
        trust: what the image's metadata may make us touch.
        cache: the cache mode.
        unmap: the node discards where its options do not say.
        options: the driver's runtime options.
        nodes: open nodes by their names, for children that are references to them.
        parts: open nodes without which the image could not be opened, by their edges; see ``FormatRow``.
    """

    read_only: bool = True
    check: bool = False
    no_io: bool = False
    probed: bool = False
    force_share: bool = False
    exclusive: bool = False
    trust: Trust = Trust.TRUSTED
    cache: Cache = WRITEBACK
    unmap: bool = True
    options: Mapping[str, Value] = {}
    nodes: Mapping[str, BlockNode] = {}
    parts: Mapping[str, BlockNode] = {}


class Reference(NamedTuple):
    """Another image that an image's metadata names.

    Attributes:
        child: the name of the edge, as QEMU calls it: ``backing``, ``data-file``.
        filename: as recorded; relative names are relative to the image that holds them.
        format: as recorded; None where the metadata does not say. ``file`` for bytes without a format.
        essential: a part of the image itself, which nothing can be said of without; always beside the image.
        unique_id: what the other one must call itself (:attr:`BlockDriver.unique_id`); empty where nothing is recorded.
    """

    child: str
    filename: str
    format: str | None
    essential: bool = False
    unique_id: str = ""


class FormatInfo(NamedTuple):
    """What ``info`` prints beyond names and sizes.

    Attributes:
        cluster_size: bytes; None where the format has none.
        dirty: None where it is not known even whether there is such a thing.
        specific: the ``data`` of QEMU's ``format-specific``, with QEMU's keys.
        vm_state_offset: where machine state is kept, in the guest's bytes; 0 where the format keeps none.
    """

    cluster_size: int | None = None
    dirty: bool | None = False
    encrypted: bool = False
    compressed: bool = False
    specific: Mapping[str, Any] | None = None
    vm_state_offset: int = 0


class BlockDriver(abc.ABC):
    """A format, protocol or filter at work on one image.

    Offsets and lengths are bytes and need no alignment. The node has checked them: a driver is never asked for bytes
    beyond its length (one that GROWS excepted), never for zero bytes, and never to write when opened read-only.
    """

    name: ClassVar[str]
    supports: Supports = Supports.NOTHING
    threading: Threading = Threading.SERIAL
    options: ClassVar[Options] = Options()  # at run time: --image-opts
    primary: ClassVar[str] = "file"  # the child that holds this one's bytes
    starts_as_zeroes: ClassVar[bool] = True  # what a new image, or new space of one, reads as
    new_blocks_read_as_zeroes: ClassVar[bool] = False  # without anybody writing them
    unique_id: str = ""  # by which a differencing image knows its parent; some formats have it
    # Who wants to know how far a request has come (blkdebug): see BlockNode.debug_event.
    on_event: Callable[[str], None] | None = None

    def __init__(self) -> None:
        self.children: dict[str, BlockNode] = {}

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """The virtual size in bytes."""

    @abc.abstractmethod
    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``offset``."""

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write ``data`` at ``offset``."""
        raise ReadOnly(f"{self.name} images cannot be written")

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make a range read as zeroes; ``unmap`` allows giving its space back. Called with ``Supports.ZEROES``."""
        raise UnsupportedFeature(f"{self.name} has no zero writes")

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back where that is possible. Called with ``Supports.DISCARD``."""

    def flush(self) -> None:
        """Make all completed writes survive a power cut."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """This layer's extents, in order and without gaps, covering exactly the range."""
        yield Extent(offset, length, Status.DATA | Status.ALLOCATED)

    def references(self) -> Sequence[Reference]:
        """The other images that this one names; the graph decides whether to open them."""
        return ()

    def assembled(self) -> None:
        """What :meth:`references` names is open, as far as it will be; called once, before the image is used.

        Raises:
            BlockError: the image cannot be opened after all.
        """

    def info(self) -> FormatInfo:
        """What ``info`` prints."""
        return FormatInfo()

    def close(self) -> None:
        """Write out what is held back and release it; the children are still open, and are closed by the node."""


class FormatDriver(BlockDriver):
    """A format: opened on a node that holds its bytes."""

    @classmethod
    @abc.abstractmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open the image that lies in ``file``, which becomes the child ``file``.

        Raises:
            InvalidImage: the bytes are malformed.
            CorruptImage: the metadata contradicts itself.
            UnsupportedFeature: the image uses what we do not know or do not implement.
        """

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """How sure we are that an image starting with ``head`` is ours: 0 (not) to 100."""
        return 0


class FilterDriver(BlockDriver):
    """A filter: opened on one node or more, shows the bytes of its primary child and passes on what it does not change.

    It can do what its primary child can, but not what takes a format's metadata (check, snapshots, compression).
    """

    threading = Threading.PARALLEL
    implicit: ClassVar[bool] = False  # put in by us, not by the user, who is not shown it
    alike: ClassVar[bool] = False  # its children hold the same, and nobody else may write or resize one

    def __init__(self, children: Mapping[str, BlockNode]) -> None:
        super().__init__()
        self.children.update(children)
        # Without a primary child it is no filter of one node, and only lays several together.
        self.child = children[self.primary or next(iter(children))]
        self.supports = self.child.driver.supports & ~Supports.BACKING

    @classmethod
    @abc.abstractmethod
    def open(cls, children: Mapping[str, BlockNode], mode: OpenMode) -> Self:
        """Put the filter on open nodes; ``mode.options`` are its options as text.

        Raises:
            OptionError: an option is unknown, missing or wrong.
        """

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """The options that a name with the filter's scheme stands for, or one without it beside ``driver=``.

        Raises:
            OptionError: it is no such name.
        """
        return {f"{cls.primary}.filename": name}

    @classmethod
    def filename(cls, options: Mapping[str, Value], children: Mapping[str, str]) -> str | None:
        """The name that stands for these options on children of these names; None where there is none."""
        return None

    @property
    def length(self) -> int:
        """The child's."""
        return self.child.length

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read from the child."""
        self.child.pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write to the child."""
        self.child.pwrite(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero in the child."""
        self.child.write_zeroes(offset, length, unmap=unmap)

    def zeroes_fast(self, *, unmap: bool) -> bool:
        """Whether the child does."""
        return self.child.zeroes_fast(unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Discard in the child."""
        self.child.discard(offset, length)

    def flush(self) -> None:
        """Flush the child."""
        self.child.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The child's."""
        return self.child.extents(offset, length)

    def info(self) -> FormatInfo:
        """What the child says."""
        return self.child.driver.info()

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Resize the child."""
        self.child.resize(size, preallocation)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space below the child."""
        self.child.preallocate(offset, length)


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
    """Can be opened anew in its place, for reading only or for writing too."""

    def reopened(self, *, read_only: bool) -> BlockDriver:
        """Write out what is held back; the driver that takes this one's place, with the same children."""


@runtime_checkable
class Preallocating(Protocol):
    """Can reserve space on the host."""

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space for a range; what it reads as does not change."""


@runtime_checkable
class FastZeroing(Protocol):
    """Knows whether zeroing is faster than writing; of a driver that does not say so it is not expected."""

    def zeroes_fast(self, *, unmap: bool) -> bool:
        """Whether ``write_zeroes`` of a large range writes next to nothing."""


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

    def snapshot_create(self, name: str, *, date: tuple[int, int]) -> SnapshotInfo:
        """Keep the present state; ``date`` is seconds and nanoseconds since 1970."""

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
    """Has persistent dirty bitmaps; granularities are bytes. All but :meth:`bitmaps` raise ENOENT for a wrong name."""

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
