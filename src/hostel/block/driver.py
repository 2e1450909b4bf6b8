"""What a format, a protocol or a filter writes: :class:`BlockDriver`; the optional powers are in ``powers.py``.

A driver only does the work. Bounds, permissions, locking and the emulation of what a driver lacks belong to
:class:`hostel.block.node.BlockNode`, which is what everyone outside ``block/`` calls.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

from hostel.block.extent import Extent, Status
from hostel.block.options import Options, Value
from hostel.block.powers import Preallocation
from hostel.block.trust import Trust
from hostel.errors import ReadOnly, UnsupportedFeature

if TYPE_CHECKING:
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


# Each is opened and locked by itself, and the kernel looks at all locks of a file for each: 20,000 take minutes.
MAX_PARTS_OF_ONE_FILE: Final = 1024


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
    request_alignment: int = 1  # bytes; clients are told of it, and requests of any other are taken too
    unique_id: str = ""  # by which a differencing image knows its parent; some formats have it
    interrupted: str = ""  # why nobody may use it any more: it was left in the middle of a change
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

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether the child does."""
        return self.child.zeroes_fast(offset, length, unmap=unmap)

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
        """What the child says of its clusters; what else its metadata says is the child's own."""
        found = self.child.driver.info()
        return found if self.implicit else found._replace(encrypted=False, specific=None)

    def resize(self, size: int, preallocation: Preallocation) -> None:
        """Resize the child."""
        self.child.resize(size, preallocation)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space below the child."""
        self.child.preallocate(offset, length)
