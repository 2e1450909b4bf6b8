"""Encryption by sectors: each 512 bytes by themselves, with an initialization vector made of the sector's number.

Few sectors are done one by one with OpenSSL's modes, which needs nothing but the ``cryptography`` package. Where there
are many, :mod:`hostel.block.crypto.batch` does hundreds at once.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block.crypto.algorithm import Cipher, essiv_cipher, hasher, implemented
from hostel.errors import BlockError, UnsupportedFeature
from hostel.units import SECTOR, MiB

if TYPE_CHECKING:
    from hostel.block.crypto.batch import Batch

# Bytes after which the faster way has paid for its import.
_FEW: Final = 2 * MiB
_LOW_64: Final = 2**64 - 1


class Scheme(NamedTuple):
    """How sectors are encrypted.

    Attributes:
        cipher: the block cipher.
        mode: one of :data:`hostel.block.crypto.algorithm.MODES`.
        ivgen: the generator of initialization vectors.
        ivgen_hash: ESSIV's hash; None where none is named.
    """

    cipher: Cipher
    mode: str
    ivgen: str
    ivgen_hash: str | None = None

    @property
    def key_length(self) -> int:
        """Bytes of a volume's key."""
        return self.cipher.volume_key_length(self.mode)


class SectorCipher:
    """A scheme with its key. Safe to be used by several threads at once."""

    def __init__(self, scheme: Scheme, key: bytes) -> None:
        implemented(scheme.cipher)
        self.scheme = scheme
        # XTS's second key encrypts the vectors; elsewhere there is none.
        length = scheme.cipher.key_length
        self.data_key, self.tweak_key = key[:length], key[length:]
        self.essiv: tuple[Cipher, bytes] | None = None
        if scheme.ivgen == "essiv":
            assert scheme.ivgen_hash is not None
            self.essiv = essiv_cipher(scheme.cipher, scheme.ivgen_hash), hasher(scheme.ivgen_hash)(key)
        self._alone = _has_mode(scheme) and self.data_key != self.tweak_key  # which OpenSSL would refuse
        self._done = 0
        self._batch: Batch | None = None

    def decrypt(self, sector: int, buf: memoryview) -> None:
        """Decrypt whole sectors in place; ``sector`` is the number of the first."""
        batch = self._many(len(buf))
        if batch is not None:
            batch.decrypt(sector, buf)
            return
        for index, vector in enumerate(self.vectors(sector, len(buf) // SECTOR)):
            part = buf[index * SECTOR : (index + 1) * SECTOR]
            part[:] = self._one(vector).decryptor().update(part)

    def encrypt(self, sector: int, data: bytes | bytearray | memoryview) -> memoryview:
        """Encrypt whole sectors into a new buffer; ``sector`` is the number of the first."""
        batch = self._many(len(data))
        if batch is not None:
            return batch.encrypt(sector, data)
        encrypted = bytearray()
        for index, vector in enumerate(self.vectors(sector, len(data) // SECTOR)):
            encrypted += self._one(vector).encryptor().update(data[index * SECTOR : (index + 1) * SECTOR])
        return memoryview(encrypted)

    def vectors(self, sector: int, count: int) -> Iterable[bytes]:
        """The initialization vectors of ``count`` sectors: the number, little-endian, as the generator has it."""
        length = self.scheme.cipher.block_length
        mask = 0xFFFFFFFF if self.scheme.ivgen == "plain" else _LOW_64
        numbers = ((each & mask).to_bytes(8, "little") for each in range(sector, sector + count))
        if self.essiv is None:
            return (number.ljust(length, b"\0") for number in numbers)
        cipher, key = self.essiv
        encryptor = block_cipher(cipher, key).encryptor()
        return (encryptor.update(number.ljust(cipher.block_length, b"\0")) for number in numbers)

    def _many(self, length: int) -> Batch | None:
        """What does many sectors at once, where that is worth while or the only way; None where it is not."""
        if self._batch is None:
            self._done += length
            if self._alone and self._done < _FEW and "numpy" not in sys.modules:
                return None
            try:
                from hostel.block.crypto.batch import Batch
            except ImportError:
                if self._alone:
                    return None
                what = f"{self.scheme.cipher.name} in mode {self.scheme.mode}"
                raise UnsupportedFeature(f"{what} needs the Python package numpy") from None
            self._batch = Batch(self)
        return self._batch

    def _one(self, vector: bytes) -> Any:
        """OpenSSL's cipher for one sector."""
        from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
        from cryptography.hazmat.primitives.ciphers import modes

        mode: Any
        if self.scheme.mode == "ecb":
            mode = modes.ECB()
        elif self.scheme.mode == "cbc":
            mode = modes.CBC(vector)
        elif self.scheme.mode == "ctr":
            mode = modes.CTR(vector)
        else:
            mode = modes.XTS(vector)
            return Primitive(algorithm(self.scheme.cipher, self.data_key + self.tweak_key), mode)
        return Primitive(algorithm(self.scheme.cipher, self.data_key), mode)


def algorithm(cipher: Cipher, key: bytes) -> Any:
    """The cipher with its key, as the ``cryptography`` package has it.

    Raises:
        UnsupportedFeature: the package is not installed.
    """
    try:
        from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
    except ImportError:
        raise UnsupportedFeature(
            "Encrypted images need the Python package cryptography", hint="pip install cryptography"
        ) from None
    return CAST5(key) if cipher.family == "cast5" else AES(key)


def block_cipher(cipher: Cipher, key: bytes) -> Any:
    """The bare block cipher: each block by itself."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
    from cryptography.hazmat.primitives.ciphers import modes

    made = Primitive(algorithm(cipher, key), modes.ECB())
    try:
        made.encryptor()
    except UnsupportedAlgorithm:
        raise BlockError(
            f"The cipher '{cipher.name}' is not available on this machine",
            errno=errno.ENOTSUP,
            hint="OpenSSL's legacy provider has it.",
        ) from None
    return made


def decrypt_chain(cipher: Cipher, key: bytes, vector: bytes, data: bytes) -> bytes:
    """Decrypt whole blocks in CBC, without sectors."""
    from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
    from cryptography.hazmat.primitives.ciphers import modes

    made: bytes = Primitive(algorithm(cipher, key), modes.CBC(vector)).decryptor().update(data)
    return made


def _has_mode(scheme: Scheme) -> bool:
    """Whether OpenSSL has the mode for the cipher: it lacks CTR for CAST5, and XTS for AES with keys of 192 bits."""
    if scheme.cipher.family == "cast5":
        return scheme.mode != "ctr"
    return scheme.mode != "xts" or scheme.cipher.key_length != 24
