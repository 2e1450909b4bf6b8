"""Format ``luks``: a disk encrypted sector by sector behind a LUKS header, version 1 (:mod:`hostel.block.crypto`).

The header may lie in a file of its own, the child ``header``: it is read and written there, and the payload begins in
``file`` where the header says.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Self

from hostel.block.crypto.header import MAGIC
from hostel.block.crypto.keyslot import amend_keys, amend_options
from hostel.block.crypto.luks import HeaderArea, LuksOptions, LuksVolume, create, read_options, secret_of
from hostel.block.crypto.sector import SectorCipher
from hostel.block.driver import FormatDriver, FormatInfo, OpenMode, Supports, Threading
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, Options, Value
from hostel.block.powers import Measured, Preallocation
from hostel.block.write_lock import WriteLock
from hostel.errors import BlockError, InvalidImage
from hostel.units import INT64_MAX, SECTOR, MiB

_PIECE: Final = MiB  # bytes encrypted before they are written
_KEY_SECRET: Final = Option("key-secret", Kind.STRING, "ID of the secret that provides the keyslot passphrase")
_VERSIONS: Final = (1, 2)  # that are known to be LUKS; the second is refused by name


class LuksDriver(FormatDriver):
    """Encrypts what is written, decrypts what is read."""

    name = "luks"
    supports = Supports.WRITE | Supports.COMPUTES
    threading = Threading.PARALLEL
    starts_as_zeroes = False
    options: Final = Options(_KEY_SECRET)  # type: ignore[misc]
    create_options: Final = Options(
        Option("size", Kind.SIZE, "Virtual disk size"),
        _KEY_SECRET,
        Option("cipher-alg", Kind.STRING, "Name of encryption cipher algorithm"),
        Option("cipher-mode", Kind.STRING, "Name of encryption cipher mode"),
        Option("ivgen-alg", Kind.STRING, "Name of IV generator algorithm"),
        Option("ivgen-hash-alg", Kind.STRING, "Name of IV generator hash algorithm"),
        Option("hash-alg", Kind.STRING, "Name of encryption hash algorithm"),
        Option("iter-time", Kind.NUMBER, "Time to spend in PBKDF in milliseconds"),
        Option("detached-header", Kind.BOOL, "Create a detached LUKS header"),
    )
    amend_options: Final = amend_options()

    def __init__(
        self,
        children: Mapping[str, BlockNode],
        volume: LuksVolume,
        cipher: SectorCipher | None,
        secret: str | None,
    ) -> None:
        super().__init__()
        self.children.update(children)
        self._file = children["file"]
        self._volume = volume
        self._cipher = cipher
        self._secret = secret
        self._writes = WriteLock()

    @classmethod
    def open(cls, file: BlockNode, mode: OpenMode) -> Self:
        """Read the header and, unless only metadata is wanted, unlock the volume.

        Raises:
            InvalidImage: the header is malformed.
            UnsupportedFeature: it is of another version, or names a cipher that we do not have.
            BlockError: the passphrase is missing or wrong.
        """
        password = None if mode.no_io else secret_of(mode.options, "")
        header = mode.parts.get("header")
        volume = LuksVolume.open(HeaderArea(file if header is None else header), detached=header is not None)
        if volume.header.payload_offset > file.length:
            raise InvalidImage(
                "The LUKS payload lies beyond the end of the file: the image is truncated", errno=errno.EIO
            )
        cipher = None if password is None else volume.cipher(volume.unlock(password))
        secret = mode.options.get("key-secret")
        children = {"file": file, **mode.parts}
        return cls(children, volume, cipher, None if secret is None else str(secret))

    @classmethod
    def probe(cls, head: bytes, filename: str) -> int:
        """By magic and version."""
        known = head.startswith(MAGIC) and int.from_bytes(head[6:8], "big") in _VERSIONS
        return 100 if known else 0

    @classmethod
    def check_creation(cls, size: int, options: Mapping[str, Value]) -> None:
        """Refuse what cannot be created.

        Raises:
            BlockError: an option makes no sense, the secret is missing, or the size is too large.
            UnsupportedFeature: a cipher that we do not have.
        """
        _file_length(size, read_options(options))
        _preallocation(options)

    @classmethod
    def measure(cls, size: int, options: Mapping[str, Value], data: Iterable[tuple[int, int]] | None) -> Measured:
        """Header and virtual size: what is not allocated is encrypted like the rest. A detached header lies alone.

        Raises:
            BlockError: an option makes no sense, or the secret is missing.
        """
        length = _file_length(size, read_options(options))
        return Measured(length, length)

    @classmethod
    def create(cls, file: BlockNode, size: int, options: Mapping[str, Value]) -> None:
        """Give the file its size, then its header; one that is detached gets room for all keys, and nothing else.

        QEMU's file ends with the first key, which cryptsetup does not take for a header.

        Raises:
            BlockError: an option makes no sense.
            OSError: the host's own errors.
        """
        chosen = read_options(options)
        file.resize(_file_length(size, chosen), _preallocation(options))
        create(HeaderArea(file), chosen)

    @property
    def length(self) -> int:
        """The payload's, in whole sectors."""
        length = self._file.length - self._volume.header.payload_offset
        return max(0, -(-length // SECTOR) * SECTOR)

    def pread(self, offset: int, buf: memoryview) -> None:
        """Read and decrypt."""
        head, tail = offset % SECTOR, -(offset + len(buf)) % SECTOR
        if not head and not tail:
            self._read(offset, buf)
            return
        whole = memoryview(bytearray(head + len(buf) + tail))
        self._read(offset - head, whole)
        buf[:] = whole[head : head + len(buf)]

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Encrypt and write; what shares a sector with it is read, and written again."""
        head, tail = offset % SECTOR, -(offset + len(data)) % SECTOR
        if not head and not tail:
            with self._writes.together():
                self._write(offset, data)
            return
        with self._writes.alone():
            whole = memoryview(bytearray(head + len(data) + tail))
            start, last = offset - head, offset + len(data) + tail - SECTOR
            if head:
                self._read(start, whole[:SECTOR])
            if tail and (last > start or not head):
                self._read(last, whole[-SECTOR:])
            whole[head : head + len(data)] = data
            self._write(start, whole)

    def flush(self) -> None:
        """Sync the child."""
        self._file.flush()

    def info(self) -> FormatInfo:
        """What the header says."""
        below = self._file.driver.info()
        return FormatInfo(
            cluster_size=below.cluster_size,
            dirty=below.dirty,
            encrypted=True,
            specific=self._volume.header.describe(),
        )

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Resize the child; as with QEMU, what is new reads as whatever the cipher makes of the host's zeroes.

        Raises:
            BlockError: the size is too large.
        """
        header = self._volume.header
        if size > INT64_MAX - header.payload_offset:
            raise BlockError("The requested file size is too large", errno=errno.EFBIG)
        self._file.resize(size + header.payload_offset, preallocation)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space for a range."""
        self._file.preallocate(self._volume.header.payload_offset + offset, length)

    def amend(self, options: Mapping[str, Value], *, force: bool, report: Callable[[int, int], None]) -> None:
        """Change key slots; see :func:`hostel.block.crypto.keyslot.amend_keys`."""
        amend_keys(self._volume, options, prefix="", secret=self._secret, force=force)

    def _read(self, offset: int, buf: memoryview) -> None:
        self._file.pread(self._volume.header.payload_offset + offset, buf)
        self._open_cipher().decrypt(offset // SECTOR, buf)

    def _write(self, offset: int, data: memoryview) -> None:
        cipher, place = self._open_cipher(), self._volume.header.payload_offset + offset
        for start in range(0, len(data), _PIECE):
            part = data[start : start + _PIECE]
            self._file.pwrite(place + start, cipher.encrypt((offset + start) // SECTOR, part))

    def _open_cipher(self) -> SectorCipher:
        if self._cipher is None:
            raise BlockError("The image was opened without its passphrase", errno=errno.EINVAL)
        return self._cipher


def _file_length(size: int, options: LuksOptions) -> int:
    """Bytes of the file that is created."""
    length = options.area_length + (0 if options.detached else size)
    if length > INT64_MAX:
        raise BlockError("The requested file size is too large", errno=errno.EFBIG)
    return length


def _preallocation(options: Mapping[str, Value]) -> Preallocation:
    """There is no metadata to preallocate."""
    text = str(options.get("preallocation", "off"))
    try:
        mode = Preallocation(text)
    except ValueError:
        raise BlockError(f"Parameter 'preallocation' does not accept value '{text}'", errno=errno.EINVAL) from None
    return Preallocation.OFF if mode is Preallocation.METADATA else mode
