"""Encrypted guest data ("crypt_method" and "Full disk encryption header pointer" in the qcow2 specification).

Metadata and compressed clusters are never encrypted. Method 1 takes the guest's sector for the initialization vector,
so that data may move on the host; method 2, a LUKS volume with its header among the clusters, takes the host's.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block.formats.qcow2.header import Preamble
from hostel.block.formats.qcow2.layout import Extension, ExtensionType
from hostel.block.formats.run import Kind, Run
from hostel.block.options import Kind as OptionKind
from hostel.block.options import Option, Options, Value
from hostel.errors import BlockError, InvalidImage
from hostel.units import SECTOR

if TYPE_CHECKING:
    from hostel.block.crypto.luks import LuksOptions, LuksVolume
    from hostel.block.crypto.sector import SectorCipher
    from hostel.block.driver import OpenMode
    from hostel.block.formats.qcow2.image import Qcow2Image
    from hostel.block.node import BlockNode

PREFIX: Final = "encrypt."
AES: Final = 1
LUKS: Final = 2
_NAMES: Final = {AES: "aes", LUKS: "luks"}
_POINTER_LENGTH: Final = 16  # bytes of the header extension: host offset and length of the LUKS header
# QEMU writes these before the pointer.
_BEFORE: Final = (ExtensionType.BACKING_FORMAT, ExtensionType.DATA_FILE)

RUNTIME_OPTIONS: Final = Options(
    Option("encrypt.format", OptionKind.STRING, "Encryption format that the image must have, choices: 'aes', 'luks'"),
    Option("encrypt.key-secret", OptionKind.STRING, "ID of secret providing qcow2 AES key or LUKS passphrase"),
)


class Encryption:
    """How an image's clusters are encrypted, and what encrypts them.

    Attributes:
        method: the header's number.
        volume: the LUKS header; None with method 1.
        secret: the id of the passphrase that the image was opened with.
    """

    def __init__(self, method: int, volume: LuksVolume | None, cipher: SectorCipher | None, secret: str | None) -> None:
        self.method = method
        self.volume = volume
        self.secret = secret
        self._cipher = cipher

    def describe(self) -> dict[str, Any]:
        """QEMU's ``ImageInfoSpecificQCow2Encryption``."""
        details = self.volume.header.describe() if self.volume is not None else {}
        return {"format": _NAMES[self.method], **details}

    def read(self, node: BlockNode, guest: int, host: int, buf: memoryview) -> None:
        """Fill ``buf`` from host offset ``host`` of ``node``, where guest offset ``guest`` lies; any alignment."""
        head, tail = guest % SECTOR, -(guest + len(buf)) % SECTOR
        whole = memoryview(bytearray(head + len(buf) + tail)) if head or tail else buf
        node.pread(host - head, whole)
        self._open_cipher().decrypt(self._sector(guest - head, host - head), whole)
        if whole is not buf:
            buf[:] = whole[head : head + len(buf)]

    def read_runs(self, node: BlockNode, start: int, runs: Iterable[Run], buf: memoryview) -> None:
        """Fill ``buf`` from guest offset ``start`` with runs that all have a place on the host.

        Raises:
            BlockError: one has none.
        """
        for run in runs:
            if run.kind is not Kind.DATA:
                raise BlockError("Only encrypted clusters can be looked up before they are read", errno=errno.EINVAL)
            self.read(node, run.offset, run.host, buf[run.offset - start : run.offset - start + run.length])

    def write(self, node: BlockNode, guest: int, host: int, data: memoryview | bytes | bytearray) -> None:
        """Encrypt and write; what shares a sector with it is read, and written again."""
        head, tail = guest % SECTOR, -(guest + len(data)) % SECTOR
        if head or tail:
            whole = memoryview(bytearray(head + len(data) + tail))
            last = len(whole) - SECTOR
            if head:
                self.read(node, guest - head, host - head, whole[:SECTOR])
            if tail and (last or not head):
                self.read(node, guest - head + last, host - head + last, whole[last:])
            whole[head : head + len(data)] = data
            data = whole
        node.pwrite(host - head, self.encrypt(guest - head, host - head, data))

    def encrypt(self, guest: int, host: int, data: memoryview | bytes | bytearray) -> memoryview:
        """Encrypt whole sectors that will lie at host offset ``host``."""
        return self._open_cipher().encrypt(self._sector(guest, host), data)

    def _sector(self, guest: int, host: int) -> int:
        return (guest if self.method == AES else host) // SECTOR

    def _open_cipher(self) -> SectorCipher:
        if self._cipher is None:
            raise BlockError("The image was opened without its passphrase", errno=errno.EINVAL)
        return self._cipher


def open_encryption(image: Qcow2Image, mode: OpenMode) -> Encryption | None:
    """What the header says of encryption; unlocked unless only metadata is wanted. None where there is none.

    Raises:
        InvalidImage: the header contradicts itself.
        BlockError: the passphrase is missing or wrong, or the encryption is another one than was asked for.
    """
    method = image.header.crypt_method
    _check_format(method, mode.options)
    pointer = image.preamble.extension(ExtensionType.CRYPTO_HEADER)
    if pointer is not None:
        _check_pointer(method, len(pointer), image)
    if not method:
        return None
    from hostel.block.crypto.luks import HeaderArea, LuksVolume, secret_of
    from hostel.block.crypto.qcow import qcow_cipher

    password = None if mode.no_io else secret_of(mode.options, PREFIX)
    name = mode.options.get(f"{PREFIX}key-secret")
    secret = None if name is None else str(name)
    if method == AES:
        return Encryption(AES, None, None if password is None else qcow_cipher(password), secret)
    if pointer is None:
        raise InvalidImage(f"Missing CRYPTO header for crypt method {method}")
    offset, length = image.preamble.encryption_header
    volume = LuksVolume.open(HeaderArea(image.file, offset, length))
    cipher = None if password is None else volume.cipher(volume.unlock(password))
    return Encryption(LUKS, volume, cipher, secret)


def _check_format(method: int, options: Mapping[str, Value]) -> None:
    wanted = options.get(f"{PREFIX}format")
    if wanted is None or wanted == _NAMES.get(method):
        return
    if not method:
        raise BlockError(f"No encryption in image header, but options specified format '{wanted}'", errno=errno.EINVAL)
    raise BlockError(
        f"Header reported '{_NAMES[method]}' encryption format but options specify '{wanted}'", errno=errno.EINVAL
    )


def _check_pointer(method: int, length: int, image: Qcow2Image) -> None:
    if method != LUKS:
        raise InvalidImage("CRYPTO header extension only expected with LUKS encryption method")
    if length != _POINTER_LENGTH:
        raise InvalidImage(f"CRYPTO header extension size {length}, but expected size {_POINTER_LENGTH}")
    offset, _ = image.preamble.encryption_header
    if offset % (size := image.geometry.cluster_size):
        raise InvalidImage(f"Encryption header offset '{offset}' is not a multiple of cluster size '{size}'")


# ---- creation


class Plan:
    """The encryption of an image that is to be created.

    Attributes:
        method: the header's number.
        luks: what the LUKS volume is made with; None with method 1.
    """

    def __init__(self, method: int, luks: LuksOptions | None, secret: str) -> None:
        self.method = method
        self.luks = luks
        self._secret = secret

    @property
    def header_length(self) -> int:
        """Bytes of the LUKS header with its key material; 0 where there is none."""
        return 0 if self.luks is None else self.luks.area_length

    def set_up(self, image: Qcow2Image) -> Encryption:
        """Make a new image, which has no data yet, an encrypted one.

        Raises:
            OSError: the host's own errors.
        """
        from hostel.block.crypto import luks
        from hostel.block.crypto.qcow import qcow_cipher
        from hostel.block.objects import password

        image.begin_write()
        if self.luks is None:
            image.write_preamble(self._marked(image))
            return Encryption(AES, None, qcow_cipher(password(self._secret)), self._secret)
        length = image.geometry.align(self.header_length)
        offset = image.space.allocate(length)
        image.file.write_zeroes(offset, length)
        volume = luks.create(luks.HeaderArea(image.file, offset, self.header_length), self.luks)
        image.flush_metadata()
        image.write_preamble(_with_pointer(self._marked(image), offset, self.header_length))
        cipher = volume.cipher(volume.unlock(self.luks.password))
        return Encryption(LUKS, volume, cipher, self._secret)

    def _marked(self, image: Qcow2Image) -> Preamble:
        """The present header, which allocating may have changed, saying how the data is encrypted."""
        return image.preamble._replace(header=image.header.replace(crypt_method=self.method))


def read_plan(options: Mapping[str, Value]) -> Plan | None:
    """The encryption that creation options ask for; None for none.

    Raises:
        BlockError: an option makes no sense, or there is no such secret.
        UnsupportedFeature: a cipher that we do not have.
    """
    format = options.get(f"{PREFIX}format")
    if format is not None and "encryption" in options:
        raise BlockError(
            "'encrypt.format' and its alias 'encryption' can't be used at the same time", errno=errno.EINVAL
        )
    if options.get("encryption"):
        format = "aes"
    if format is None:
        given = next((name for name in options if name.startswith(PREFIX)), None)
        if given is not None:
            raise BlockError(f"Parameter '{PREFIX}format' is missing", errno=errno.EINVAL)
        return None
    from hostel.block.crypto.luks import read_options, secret_of

    if format == "luks":
        return Plan(LUKS, read_options(options, PREFIX), str(options[f"{PREFIX}key-secret"]))
    if format != "aes":
        raise BlockError(f"Parameter 'format' does not accept value '{format}'", errno=errno.EINVAL)
    for name in options:
        if name.startswith(PREFIX) and name not in (f"{PREFIX}format", f"{PREFIX}key-secret"):
            raise BlockError(f"Parameter '{name}' is unexpected", errno=errno.EINVAL)
    secret_of(options, PREFIX)
    return Plan(AES, None, str(options[f"{PREFIX}key-secret"]))


def _with_pointer(preamble: Preamble, offset: int, length: int) -> Preamble:
    pointer = Extension(int(ExtensionType.CRYPTO_HEADER), offset.to_bytes(8, "big") + length.to_bytes(8, "big"))
    index = sum(each.type in _BEFORE for each in preamble.extensions)
    extensions = (*preamble.extensions[:index], pointer, *preamble.extensions[index:])
    return preamble._replace(extensions=extensions)
