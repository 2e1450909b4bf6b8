"""LUKS volumes, version 1: opening one with a passphrase, and making one.

A volume's key is random. Each of eight slots may hold it, spread over stripes and encrypted with a key that is derived
from a passphrase; a digest in the header tells whether what came out is the key (On-Disk Format, section 4).
"""

from __future__ import annotations

import errno
import hmac
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.block import objects
from hostel.block.crypto.algorithm import (
    HASHES,
    IV_GENERATORS,
    MODES,
    check_mode,
    cipher_named,
    essiv_cipher,
    pbkdf2,
)
from hostel.block.crypto.antiforensic import merge, split
from hostel.block.crypto.header import (
    DIGEST_LENGTH,
    ENABLED,
    FIRST_MATERIAL,
    HEADER_LENGTH,
    MAGIC,
    SALT_LENGTH,
    SLOTS,
    STRIPES,
    LuksHeader,
    area_sectors,
    new_header,
    slot_offset,
)
from hostel.block.crypto.sector import Scheme, SectorCipher
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value
from hostel.block.reading import read_or_say
from hostel.errors import BlockError, InvalidImage
from hostel.units import SECTOR

DEFAULT_ITER_TIME: Final = 2000  # milliseconds that a passphrase may take
_MIN_ITERATIONS: Final = 1000
_MAX_ITERATIONS: Final = 2**32 - 1
_MEASURED: Final = 0.05  # seconds, at most, in which the speed of this machine is found out


class HeaderArea(NamedTuple):
    """Where a LUKS header and its key material lie.

    Attributes:
        node: the file.
        offset: of the header in it, bytes.
        length: of header and key material, bytes; None where the file's end is the limit.
    """

    node: BlockNode
    offset: int = 0
    length: int | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Read from the header on.

        Raises:
            InvalidImage: the range lies outside.
            BlockError: it cannot be read.
        """
        limit = self.node.length - self.offset if self.length is None else self.length
        if offset + length > limit:
            raise InvalidImage("Request for data outside of the encryption header", errno=errno.EINVAL)
        return read_or_say(self.node, self.offset + offset, length, "Could not read encryption header")

    def write(self, offset: int, data: bytes) -> None:
        """Write beside what is there, and sync.

        Raises:
            OSError: the host's own errors.
        """
        if self.length is not None and offset + len(data) > self.length:
            raise InvalidImage("Request for data outside of the encryption header", errno=errno.EINVAL)
        self.node.pwrite(self.offset + offset, data)
        self.node.flush()


class LuksOptions(NamedTuple):
    """What a volume is made with.

    Attributes:
        iter_time: milliseconds that deriving a key may take.
        detached: the payload lies in a file of its own.
    """

    scheme: Scheme
    hash: str
    iter_time: int
    password: bytes
    detached: bool = False

    @property
    def area_length(self) -> int:
        """Bytes of header and key material."""
        return FIRST_MATERIAL + SLOTS * area_sectors(self.scheme.key_length) * SECTOR


def read_options(options: Mapping[str, Value], prefix: str = "") -> LuksOptions:
    """Read creation options whose names start with ``prefix``, and look the secret up.

    Raises:
        OptionError: a value is none that there is.
        BlockError: the values do not go together, or there is no such secret.
        UnsupportedFeature: a cipher that we do not have.
    """
    cipher_name = _choice(options, prefix, "cipher-alg", None, "aes-256")
    mode = _choice(options, prefix, "cipher-mode", MODES, "xts")
    generator = _choice(options, prefix, "ivgen-alg", IV_GENERATORS, "plain64")
    hash = _choice(options, prefix, "hash-alg", tuple(HASHES), "sha256")
    named = f"{prefix}ivgen-hash-alg" in options
    ivgen_hash = _choice(options, prefix, "ivgen-hash-alg", tuple(HASHES), "sha256")
    cipher = cipher_named(cipher_name)
    password = secret_of(options, prefix)
    if generator == "essiv":
        named = True
        essiv_cipher(cipher, ivgen_hash)
    check_mode(cipher, mode)
    scheme = Scheme(cipher, mode, generator, ivgen_hash if named else None)
    detached = options.get(f"{prefix}detached-header") is True
    return LuksOptions(scheme, hash, iter_time_of(options, prefix), password, detached)


def iter_time_of(options: Mapping[str, Value], prefix: str) -> int:
    """The time that deriving a key may take, in milliseconds.

    Raises:
        OptionError: none at all.
    """
    found = int(options.get(f"{prefix}iter-time", DEFAULT_ITER_TIME))
    if not found:
        raise OptionError("Parameter 'iter-time' expects a number of milliseconds above 0")
    return found


def secret_of(options: Mapping[str, Value], prefix: str) -> bytes:
    """The passphrase that the option ``key-secret`` names.

    Raises:
        BlockError: the option is missing, or there is no such secret.
    """
    name = options.get(f"{prefix}key-secret")
    if name is None:
        raise BlockError(
            f"Parameter '{prefix}key-secret' is required for cipher",
            errno=errno.EINVAL,
            hint=f"Give the passphrase with --object secret,id=NAME,file=PATH, and name it: {prefix}key-secret=NAME.",
        )
    return objects.password(str(name))


def _choice(options: Mapping[str, Value], prefix: str, name: str, allowed: tuple[str, ...] | None, default: str) -> str:
    text = str(options.get(f"{prefix}{name}", default))
    if allowed is not None and text not in allowed:
        raise OptionError(f"Parameter '{name}' does not accept value '{text}'")
    return text


class LuksVolume:
    """A volume whose header has been read.

    Attributes:
        area: where header and key material lie.
        header: the header.
    """

    def __init__(self, area: HeaderArea, header: LuksHeader) -> None:
        self.area = area
        self.header = header
        self._is_known = True

    @classmethod
    def open(cls, area: HeaderArea, *, detached: bool = False) -> LuksVolume:
        """Read the header.

        Args:
            area: where it lies.
            detached: the payload lies in another file.

        Raises:
            InvalidImage: it is malformed.
            UnsupportedFeature: it is of another version.
        """
        is_short = area.length is None and area.node.length - area.offset < len(MAGIC)
        if is_short or area.read(0, len(MAGIC)) != MAGIC:  # however long it is
            raise InvalidImage("Volume is not in LUKS format")
        return cls(area, LuksHeader.parse(area.read(0, HEADER_LENGTH), detached=detached))

    def unlock(self, password: bytes) -> bytes:
        """The volume's key, from the first slot that the passphrase opens.

        Raises:
            BlockError: it opens none (EPERM).
            UnsupportedFeature: a cipher that we do not have.
        """
        for index in range(SLOTS):
            key = self.key_in(index, password)
            if key is not None:
                return key
        raise BlockError("Invalid password, cannot unlock any keyslot", errno=errno.EPERM)

    def key_in(self, index: int, password: bytes) -> bytes | None:
        """The volume's key, where the slot holds it and the passphrase opens it; else None."""
        header, slot = self.header, self.header.slots[index]
        if slot.active != ENABLED:
            return None
        length = header.fixed.key_length
        derived = pbkdf2(header.hash, password, slot.salt, slot.iterations, length)
        material = bytearray(self.area.read(slot.key_offset * SECTOR, header.material_length))
        SectorCipher(header.scheme, derived).decrypt(0, memoryview(material))
        key = merge(bytes(material), length, STRIPES, header.hash)
        return key if hmac.compare_digest(self._digest(key), header.fixed.digest) else None

    def _digest(self, key: bytes) -> bytes:
        fixed = self.header.fixed
        return pbkdf2(self.header.hash, key, fixed.digest_salt, fixed.digest_iterations, DIGEST_LENGTH)

    def cipher(self, key: bytes) -> SectorCipher:
        """What encrypts the payload."""
        return SectorCipher(self.header.scheme, key)

    def write(self, offset: int, data: bytes) -> None:
        """Write into the header or the key material, and sync.

        Once that has failed nobody knows which slots the disk has: what is then taken for one of two keys may be the
        last one. So nothing more is written.

        Raises:
            BlockError: an earlier write has failed (EIO).
            OSError: the host's own errors.
        """
        if not self._is_known:
            raise BlockError(
                "The key slots are not written any more: an earlier write to them has failed",
                errno=errno.EIO,
                hint="Open the image anew, look at its slots with qemu-img info, and try again.",
            )
        self._is_known = False
        self.area.write(offset, data)
        self._is_known = True

    def write_key(self, index: int, password: bytes, key: bytes, iter_time: int) -> None:
        """Put the volume's key into a slot that holds none, and only then call it active.

        Cut off in between, the slot is still inactive. Each write is synced.

        Raises:
            BlockError: the time asks for more iterations than a header can tell.
            OSError: the host's own errors.
        """
        header = self.header
        salt = os.urandom(SALT_LENGTH)
        iterations = count_iterations(header.hash, header.fixed.key_length, iter_time)
        derived = pbkdf2(header.hash, password, salt, iterations, header.fixed.key_length)
        material = split(key, STRIPES, header.hash).ljust(header.material_length, b"\0")
        encrypted = SectorCipher(header.scheme, derived).encrypt(0, material)
        slot = header.slots[index]
        self.write(slot.key_offset * SECTOR, bytes(encrypted))
        prepared = slot.replace(iterations=iterations, salt=salt)
        # The record may lie across two sectors of the disk; its first four bytes do not.
        self.write(slot_offset(index), prepared.pack())
        self.write(slot_offset(index), ENABLED.to_bytes(4, "big"))
        header.slots[index] = prepared.replace(active=ENABLED)


def create(area: HeaderArea, options: LuksOptions) -> LuksVolume:
    """Make a volume with a new key in its first slot; the area is there already.

    Raises:
        BlockError: the time asks for more iterations than a header can tell.
        OSError: the host's own errors.
    """
    from uuid import uuid4

    header = new_header(options.scheme, options.hash, uuid=str(uuid4()), detached=options.detached)
    key = os.urandom(options.scheme.key_length)
    iterations = max(_MIN_ITERATIONS, count_iterations(options.hash, DIGEST_LENGTH, options.iter_time) // SLOTS)
    header.fixed = header.fixed.replace(digest_salt=os.urandom(SALT_LENGTH), digest_iterations=iterations)
    volume = LuksVolume(area, header)
    header.fixed = header.fixed.replace(digest=volume._digest(key))
    volume.write(0, header.pack())
    volume.write_key(0, options.password, key, options.iter_time)
    return volume


def count_iterations(hash: str, length: int, iter_time: int) -> int:
    """How many iterations derive ``length`` bytes in ``iter_time`` milliseconds of this machine's time.

    Raises:
        BlockError: more than a header can tell.
    """
    import time

    iterations, salt = 4096, bytes(SALT_LENGTH)
    enough = min(_MEASURED, iter_time / 1000)
    while True:
        start = time.thread_time()
        pbkdf2(hash, salt, salt, iterations, length)
        spent = time.thread_time() - start
        if spent >= enough:
            break
        iterations *= 2
    found = int(iterations / spent * iter_time / 1000)
    if found > _MAX_ITERATIONS:
        raise BlockError(f"PBKDF iterations {found} larger than {_MAX_ITERATIONS}", errno=errno.ERANGE)
    return max(_MIN_ITERATIONS, found)
