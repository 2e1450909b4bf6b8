"""Format ``qcow``, version 1 of QEMU's copy-on-write images: L1 and L2 tables, compressed clusters, AES.

There are no reference counts: new clusters are taken at the end of the file, and what is overwritten compressed is lost
room. All numbers are big-endian. There is no specification; the layout is that of QEMU's and its ancestors' images.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from hostel.block.driver import FormatInfo, OpenMode, Reference
from hostel.block.formats.cluster_tables import ClusterTables, Layout
from hostel.block.formats.clustered import ZEROES, ClusteredDriver
from hostel.block.formats.run import Kind, Run
from hostel.block.node import BlockNode
from hostel.block.options import Kind as OptionKind
from hostel.block.options import Option, Options, Value
from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, UnknownFormat, UnsupportedFeature
from hostel.units import INT64_MAX, SECTOR, KiB, MiB

if TYPE_CHECKING:
    from hostel.block.crypto.sector import SectorCipher

MAGIC: Final = 0x514649FB
VERSION: Final = 1
COMPRESSED: Final = 1 << 63  # in an L2 entry
_AES: Final = 1
_MIN_CLUSTER_BITS: Final = 9
_MAX_CLUSTER_BITS: Final = 16
_MIN_L2_BITS: Final = 6
_MAX_L2_BITS: Final = 13
_MAX_L1: Final = (2**31 - 1) // 8  # entries, as in QEMU
_MAX_BACKING_NAME: Final = 1023  # bytes
_READ_AHEAD: Final = 2 * MiB  # bytes of compressed clusters read at once
_GAP: Final = 64 * KiB  # bytes that are read along rather than skipped
_PREFIX: Final = "encrypt."


class Header(Record, endian="big"):
    """The header, at the start of the file."""

    magic: u32
    version: u32
    backing_file_offset: u64  # bytes
    backing_file_size: u32  # bytes
    mtime: u32  # of the backing file; nobody looks at it
    size: u64  # bytes
    cluster_bits: u8
    l2_bits: u8  # of an L2 table's entries
    padding: u16
    crypt_method: u32
    l1_table_offset: u64  # bytes

    @property
    def l1_entries(self) -> int:
        """Entries of the L1 table."""
        shift = self.cluster_bits + self.l2_bits
        return (self.size + (1 << shift) - 1) >> shift

    @property
    def name_range(self) -> range:
        """Where the backing file's name is, bytes: anywhere in the file; nowhere where the offset is 0."""
        start = self.backing_file_offset
        return range(start, start + self.backing_file_size) if start else range(0)


class QcowDriver(ClusteredDriver):
    """QEMU copy-on-write images, version 1."""

    name = "qcow"
    options: Final = Options(  # type: ignore[misc]
        Option("encrypt.format", OptionKind.STRING, "Encryption format that the image must have, choices: 'aes'"),
        Option("encrypt.key-secret", OptionKind.STRING, "ID of the secret that provides the AES encryption key"),
    )
    create_options: Final = Options(
        Option("size", OptionKind.SIZE, "Virtual disk size"),
        Option("backing_file", OptionKind.STRING, "File name of a base image"),
        Option("backing_fmt", OptionKind.STRING, "Format of the backing image"),
        Option(
            "encryption",
            OptionKind.BOOL,
            "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
        ),
        Option("encrypt.format", OptionKind.STRING, "Encrypt the image, format choices: 'aes'"),
        Option("encrypt.key-secret", OptionKind.STRING, "ID of the secret that provides the AES encryption key"),
    )

    def __init__(self, file: BlockNode, mode: OpenMode, header: Header, cipher: SectorCipher | None) -> None:
        super().__init__(file, mode, 1 << header.cluster_bits)
        self.header = header
        self.backing_name = _read_backing_name(file, header)
        self._name = header.name_range
        self._cipher = cipher
        self._end = file.length  # where the next payload goes
        self._last: tuple[int, bytes] | None = None  # an L2 entry and what it decompresses to
        self._broken: str | None = None  # why it is written no more
        self.tables = ClusterTables(
            file,
            Layout(self.cluster_size, header.l1_table_offset, 1 << header.l2_bits, "big"),
            header.l1_entries,
            classify=_classify,
            validate=self._validate,
            validate_table=self._validate_table,
            allocate_table=self._allocate_table,
        )

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Open an image.

        Raises:
            InvalidImage: the header is malformed.
            UnsupportedFeature: it is of another version.
            BlockError: the passphrase is missing, or the image is not encrypted as was asked for.
        """
        header = read_header(file)
        wanted = mode.options.get(f"{_PREFIX}format")
        if header.crypt_method and wanted not in (None, "aes"):
            raise BlockError(
                f"Header reported 'aes' encryption format but options specify '{wanted}'", errno=errno.EINVAL
            )
        if not header.crypt_method and wanted is not None:
            raise BlockError(
                f"No encryption in image header, but options specified format '{wanted}'", errno=errno.EINVAL
            )
        cipher = None
        if header.crypt_method and not mode.no_io:
            cipher = _cipher(mode.options)
        return cls(file, mode, header, cipher)

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic and version."""
        known = len(head) >= Header.SIZE and head[:8] == MAGIC.to_bytes(4, "big") + VERSION.to_bytes(4, "big")
        return 100 if known else 0

    # ---- creating

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created.

        Raises:
            BlockError: the size is none that an image can have, or the encryption is none that there is.
            UnknownFormat: the backing file's format is unknown.
        """
        _plan(size, options)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Lay out an image: header, the backing file's name, and an L1 table of zeroes.

        Raises:
            BlockError: see :meth:`check_creation`.
            OSError: the host's own errors.
        """
        header, name = _plan(size, options)
        length = -(-header.l1_entries * 8 // SECTOR) * SECTOR
        file.write_zeroes(header.l1_table_offset, length, unmap=True)
        file.pwrite(0, header.pack() + name)
        file.flush()

    # ---- what nodes ask

    @property
    def length(self) -> int:
        """The virtual size in bytes, of whole sectors."""
        return int(self.header.size) // SECTOR * SECTOR

    @property
    def plain(self) -> bool:
        """Whether the image is not encrypted."""
        return not self.header.crypt_method

    def flush(self) -> None:
        """Write what is held back, in order, and sync."""
        self.tables.write()

    def references(self) -> Sequence[Reference]:
        """The backing file, where one is recorded; never its format."""
        return () if self.backing_name is None else (Reference("backing", self.backing_name, None),)

    def info(self) -> FormatInfo:
        """Cluster size and encryption."""
        return FormatInfo(cluster_size=self.cluster_size, encrypted=not self.plain)

    def close(self) -> None:
        """Write what is held back.

        Raises:
            OSError: the host's own errors; what was not written is lost.
        """
        if self.tables.is_dirty:
            self.tables.write()

    def make_empty(self) -> None:
        """Forget all clusters, so that the backing file shows through, and give their space back."""
        self.begin_write()
        self.tables.write()
        length = self.header.l1_entries * 8
        self._broken = "it could not be emptied; open it again"  # of what the disk has, nobody knows which part
        self.file.debug_event("empty_image_prepare")
        self.file.write_zeroes(self.header.l1_table_offset, length)
        self.file.flush()
        self._broken = None
        self.tables.forget()
        self._end = max(self.header.l1_table_offset + length, self.header.name_range.stop)
        with suppress(UnsupportedFeature):  # a device has the size it has
            self.file.resize(self._end)

    # ---- compressed clusters

    def compressor(self) -> Callable[[bytes | bytearray | memoryview], bytes | None]:
        """A function for one thread that compresses one whole cluster; None where it would not get smaller."""
        from hostel.block.formats.qcow2.compressed import packer
        from hostel.block.formats.qcow2.layout import Compression

        return packer(Compression.ZLIB, self.cluster_size)

    def pwrite_compressed(self, offset: int, payload: bytes) -> None:
        """Store a cluster's compressed payload, right behind what is there.

        Raises:
            BlockError: ``offset`` is inside a cluster, or the payload is no shorter than one.
            UnsupportedFeature: the image is encrypted.
        """
        if offset % self.cluster_size or not 0 < len(payload) < self.cluster_size:
            raise BlockError("A compressed write is one whole cluster", errno=errno.EINVAL)
        if not self.plain:
            raise UnsupportedFeature("Compressed clusters of an encrypted image would not be encrypted")
        self.begin_write()
        self.tables.room(offset, self.cluster_size)
        host = self._take(self._end, len(payload))
        try:
            shift = 63 - self.header.cluster_bits
            if host >> shift:
                raise NoSpace("The file is too long for compressed clusters", errno=errno.EFBIG)
            self.file.debug_event("write_compressed")
            self.file.pwrite(host, payload)
            self.tables.change(offset, array("Q", [COMPRESSED | len(payload) << shift | host]))
        except BaseException:
            self.give_back(host, len(payload))
            raise

    def deferred_read(self, offset: int, length: int) -> Callable[[memoryview], None]:
        """Look up compressed clusters that are read without the lock.

        Raises:
            BlockError: the range is not all compressed.
        """
        found = list(self.runs(offset, length))
        if any(run.kind is not Kind.COMPRESSED for run in found):
            raise BlockError("Only compressed clusters can be looked up before they are read", errno=errno.EINVAL)
        return lambda buf: self.read_compressed(found, offset, buf)

    def read_compressed(self, runs: list[Run], offset: int, buf: memoryview) -> None:
        """Decompress runs into their places; what lies together in the file is read at once.

        Raises:
            CorruptImage: a stream is broken, or lies outside the file.
        """
        shift = 63 - self.header.cluster_bits
        place, size = (1 << shift) - 1, self.cluster_size - 1
        # Several writers may have written them, and not in the guest's order.
        todo = sorted([(run.host & place, run.host >> shift & size, run) for run in runs])
        first = 0
        while first < len(todo):
            start, length, _ = todo[first]
            end, last = start + length, first + 1
            while last < len(todo) and todo[last][0] <= end + _GAP and todo[last][0] < start + _READ_AHEAD:
                end = max(end, todo[last][0] + todo[last][1])
                last += 1
            if not self._is_free_of_metadata(start, end - start):
                for host, length, _ in todo[first:last]:
                    if not self._is_free_of_metadata(host, length):
                        raise CorruptImage(f"A compressed cluster at offset {host:#x} lies outside the file")
            self._decompress(todo[first:last], start, end, offset, buf)
            first = last

    def _decompress(self, todo: list[tuple[int, int, Run]], start: int, end: int, offset: int, buf: memoryview) -> None:
        from hostel.codec.compress import inflate

        self.file.debug_event("read_compressed")
        payload = memoryview(self.file.read(start, end - start))
        size = self.cluster_size
        for host, length, run in todo:
            cached = self._last
            if cached is not None and cached[0] == run.host:
                cluster = cached[1]
            else:
                try:
                    cluster = inflate(payload[host - start : host - start + length], size)
                except CorruptImage as error:
                    raise CorruptImage(f"{error} (guest offset {run.offset}, host offset {host})") from None
            place = run.offset - offset
            if run.length == size:
                buf[place : place + size] = cluster
            else:
                within = run.offset % size
                buf[place : place + run.length] = cluster[within : within + run.length]
                self._last = (run.host, cluster)

    # ---- encryption

    def get(self, offset: int, host: int, buf: memoryview) -> None:
        """Read, and decrypt where the image is encrypted."""
        if self.plain:
            self.file.pread(host, buf)
            return
        head, tail = offset % SECTOR, -(offset + len(buf)) % SECTOR
        whole = memoryview(bytearray(head + len(buf) + tail)) if head or tail else buf
        self.file.pread(host - head, whole)
        self._open_cipher().decrypt((offset - head) // SECTOR, whole)
        if whole is not buf:
            buf[:] = whole[head : head + len(buf)]

    def put(self, offset: int, host: int, data: memoryview | bytes) -> None:
        """Write, encrypted where the image is; what shares a sector with it is read, and written again."""
        if self.plain:
            self.file.pwrite(host, data)
            return
        head, tail = offset % SECTOR, -(offset + len(data)) % SECTOR
        if head or tail:
            whole = memoryview(bytearray(head + len(data) + tail))
            self.get(offset - head, host - head, whole)
            whole[head : head + len(data)] = data
            data = whole
        self.file.pwrite(host - head, self._open_cipher().encrypt((offset - head) // SECTOR, data))

    def put_zeroes(self, offset: int, host: int, length: int, *, unmap: bool) -> None:
        """Write zeroes in place, encrypted where the image is."""
        if self.plain:
            self.file.write_zeroes(host, length, unmap=unmap)
            return
        for start in range(0, length, len(ZEROES)):
            self.put(offset + start, host + start, ZEROES[: min(len(ZEROES), length - start)])

    def _open_cipher(self) -> SectorCipher:
        if self._cipher is None:
            raise BlockError("The image was opened without its passphrase", errno=errno.EINVAL)
        return self._cipher

    # ---- clusters

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """The runs of a guest range."""
        return self.tables.runs(offset, length)

    def begin_write(self) -> None:
        """Before a change.

        Raises:
            CorruptImage: the image is not written any more.
        """
        if self._broken is not None:
            raise CorruptImage(f"The image is not written any more: {self._broken}")
        self._last = None  # what lies at its place may be something else soon

    def room(self, offset: int, length: int) -> int:
        """As far as the L2 table reaches."""
        return self.tables.room(offset, length)

    def allocate(self, length: int) -> int:
        """Take clusters at the end of the file."""
        self.file.debug_event("cluster_alloc")
        return self._take(self._aligned_end(), length)

    def _aligned_end(self) -> int:
        return -(-self._end // self.cluster_size) * self.cluster_size

    def _take(self, start: int, length: int) -> int:
        hint = "Copy what is left of it with qemu-img convert --salvage."
        self.tables.require_whole(self._end, self._fits, hint)
        if start > INT64_MAX - length:
            raise NoSpace("The file cannot grow any more", errno=errno.E2BIG)
        self._end = start + length
        return start

    def _fits(self, entries: array[int]) -> bool:
        top = max(entries)
        if top < COMPRESSED:
            return top + self.cluster_size <= self._aligned_end()
        shift = 63 - self.header.cluster_bits
        place, size = (1 << shift) - 1, self.cluster_size - 1
        packed = max((entry & place) + (entry >> shift & size) for entry in entries if entry & COMPRESSED)
        plain = max((entry for entry in entries if entry < COMPRESSED), default=0)
        return packed <= self._end and plain + self.cluster_size <= self._aligned_end()

    def give_back(self, host: int, length: int) -> None:
        """Go back to where the end was."""
        if host + length == self._end:
            self._end = host

    def map_data(self, offset: int, length: int, host: int) -> None:
        """Record places."""
        self.tables.change(offset, array("Q", range(host, host + length, self.cluster_size)))

    def _allocate_table(self) -> int:
        length = 8 << self.header.l2_bits
        offset = self._take(self._aligned_end(), length)
        try:
            self.file.pwrite(offset, bytes(length))  # no hole: a full disk shall refuse it now, not its entries later
        except BaseException:
            self.give_back(offset, length)
            raise
        return offset

    def _is_free_of_metadata(self, offset: int, length: int) -> bool:
        """Whether a range lies in the file, and not over the header, the backing file's name or the L1 table.

        Not over a name that is empty either: what the guest writes there would be one.
        """
        start = self.header.l1_table_offset
        after = start + self.header.l1_entries * 8
        name = self._name
        apart = (offset >= after or offset + length <= start) and (offset >= name.stop or offset + length <= name.start)
        return offset >= Header.SIZE and apart and offset + length <= self._aligned_end()

    def _validate(self, entry: int, offset: int) -> None:
        if entry % SECTOR or not self._is_free_of_metadata(entry, self.cluster_size):
            raise CorruptImage(f"Cluster offset {entry:#x} of guest offset {offset:#x} is invalid")

    def _validate_table(self, entry: int, index: int) -> None:
        length = 8 << self.header.l2_bits
        apart = self._is_free_of_metadata(entry, length)
        if entry % SECTOR or not apart or entry + length > self._end:
            raise CorruptImage(f"L2 table offset {entry:#x} is invalid (L1 index: {index:#x})")


def _classify(entry: int) -> Kind:
    if entry & COMPRESSED:
        return Kind.COMPRESSED
    return Kind.DATA if entry else Kind.UNALLOCATED


def read_header(file: BlockNode) -> Header:
    """Read and check the header, in QEMU's order and words.

    Raises:
        InvalidImage: it is malformed, or the L1 table does not lie in the file.
        UnsupportedFeature: it is of another version.
    """
    if file.length < Header.SIZE:
        raise InvalidImage("Image not in qcow format")
    header = Header.unpack(file.read(0, Header.SIZE))
    if header.magic != MAGIC:
        raise InvalidImage("Image not in qcow format")
    if header.version != VERSION:
        hint = "Try the 'qcow2' driver instead." if header.version in (2, 3) else None
        raise UnsupportedFeature(f"qcow (v{VERSION}) does not support qcow version {header.version}", hint=hint)
    if header.size <= 1:
        raise InvalidImage("Image size is too small (must be at least 2 bytes)")
    if not _MIN_CLUSTER_BITS <= header.cluster_bits <= _MAX_CLUSTER_BITS:
        raise InvalidImage("Cluster size must be between 512 and 64k")
    if not _MIN_L2_BITS <= header.l2_bits <= _MAX_L2_BITS:
        raise InvalidImage("L2 table size must be between 512 and 64k")
    if header.crypt_method not in (0, _AES):
        raise InvalidImage("invalid encryption method in qcow header")
    if header.size > INT64_MAX or header.l1_entries > _MAX_L1:
        raise InvalidImage("Image too large")
    if header.l1_table_offset % 8 or header.l1_table_offset < Header.SIZE:
        raise InvalidImage("L1 table offset is invalid")
    if header.l1_table_offset + header.l1_entries * 8 > file.length:
        raise InvalidImage("The L1 table lies beyond the end of the file: the image is truncated")
    return header


def _read_backing_name(file: BlockNode, header: Header) -> str | None:
    offset, length = header.backing_file_offset, header.backing_file_size
    if not offset:
        return None
    if length > _MAX_BACKING_NAME:
        raise InvalidImage("Backing file name too long")
    if offset + length > file.length:
        raise InvalidImage("The backing file name lies beyond the end of the file")
    return bytes(file.read(offset, length)).split(b"\0")[0].decode(errors="surrogateescape") or None


def _cipher(options: Mapping[str, Value]) -> SectorCipher | None:
    from hostel.block.crypto.luks import secret_of
    from hostel.block.crypto.qcow import qcow_cipher

    return qcow_cipher(secret_of(options, _PREFIX))


def _plan(size: int, options: Mapping[str, Value]) -> tuple[Header, bytes]:
    """The header of a new image, and the name that follows it."""
    size = -(-size // SECTOR) * SECTOR
    backing_format = options.get("backing_fmt")
    if backing_format is not None:
        from hostel.block.registry import is_driver

        if not is_driver(str(backing_format)):
            raise UnknownFormat(f"unrecognized backing format '{backing_format}'")
    encrypted = _read_encryption(options)
    if not size:
        raise BlockError("Image size is too small, cannot be zero length", errno=errno.EINVAL)
    backing = options.get("backing_file")
    name = b"" if not backing else str(backing).encode(errors="surrogateescape")
    if len(name) > _MAX_BACKING_NAME:
        raise InvalidImage("Backing file name too long")
    # Over a backing file small clusters, so that little is copied that does not change.
    cluster_bits, l2_bits = (9, 12) if name else (12, 9)
    header = Header(
        magic=MAGIC,
        version=VERSION,
        backing_file_offset=Header.SIZE if name else 0,
        backing_file_size=len(name),
        mtime=0,
        size=size,
        cluster_bits=cluster_bits,
        l2_bits=l2_bits,
        padding=0,
        crypt_method=_AES if encrypted else 0,
        l1_table_offset=-(-(Header.SIZE + len(name)) // 8) * 8,
    )
    if header.l1_entries > _MAX_L1:
        raise BlockError("Image too large", errno=errno.EFBIG)
    return header, name


def _read_encryption(options: Mapping[str, Value]) -> bool:
    """Whether creation options ask for encryption.

    Raises:
        BlockError: an option makes no sense, or there is no such secret.
    """
    format = options.get(f"{_PREFIX}format")
    if format is not None and "encryption" in options:
        raise BlockError(
            "'encrypt.format' and its alias 'encryption' can't be used at the same time", errno=errno.EINVAL
        )
    if options.get("encryption"):
        format = "aes"
    if format is None:
        if f"{_PREFIX}key-secret" in options:
            raise BlockError(f"Parameter '{_PREFIX}format' is missing", errno=errno.EINVAL)
        return False
    if format == "luks":
        raise BlockError("Unsupported encryption format", errno=errno.EINVAL)
    if format not in ("aes", "qcow"):
        raise BlockError(f"Parameter 'format' does not accept value '{format}'", errno=errno.EINVAL)
    from hostel.block.crypto.luks import secret_of

    secret_of(options, _PREFIX)
    return True
