"""The ciphers, modes, IV generators and hashes that QEMU names, and what becomes of the names we cannot serve.

Names are those of QEMU's options (``QCryptoCipherAlgorithm`` and its like), lengths are bytes.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from hostel.errors import BlockError, UnsupportedFeature

MODES: Final = ("ecb", "cbc", "xts", "ctr")
IV_GENERATORS: Final = ("plain", "plain64", "essiv")
# Digest lengths; the order is QEMU's.
HASHES: Final = {"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64, "ripemd160": 20}
# QEMU's enumeration knows these too, but has no LUKS name for them.
_NOT_FOR_DISKS: Final = ("des", "3des")


class Cipher(NamedTuple):
    """A block cipher.

    Attributes:
        family: how a LUKS header calls it.
        key_length: of one key; XTS takes two.
        block_length: of what it works on at once.
    """

    name: str
    family: str
    key_length: int
    block_length: int = 16

    def volume_key_length(self, mode: str) -> int:
        """Bytes of key that encrypt a volume."""
        return self.key_length * (2 if mode == "xts" else 1)


CIPHERS: Final = {
    cipher.name: cipher
    for cipher in (
        Cipher("aes-128", "aes", 16),
        Cipher("aes-192", "aes", 24),
        Cipher("aes-256", "aes", 32),
        Cipher("cast5-128", "cast5", 16, 8),
        *(Cipher(f"serpent-{bits}", "serpent", bits // 8) for bits in (128, 192, 256)),
        *(Cipher(f"twofish-{bits}", "twofish", bits // 8) for bits in (128, 192, 256)),
    )
}
_QUICK: Final = 10_000_000  # iterations that take seconds at most: more than `count_iterations` ever times
_OURS: Final = ("aes", "cast5")


def cipher_named(name: str) -> Cipher:
    """A cipher by the name of QEMU's option.

    Raises:
        BlockError: there is none of this name.
        UnsupportedFeature: we have no code for it.
    """
    if name in _NOT_FOR_DISKS:
        raise BlockError(f"Algorithm '{name}' not supported", errno=errno.EINVAL)
    if name not in CIPHERS:
        raise BlockError(f"Parameter 'cipher-alg' does not accept value '{name}'", errno=errno.EINVAL)
    return implemented(CIPHERS[name])


def cipher_of(family: str, mode: str, key_length: int) -> Cipher:
    """A cipher by its name in a LUKS header and the length of the volume's key.

    Raises:
        BlockError: no cipher has such a name and keys of this length.
    """
    length = key_length // 2 if mode == "xts" else key_length
    for cipher in CIPHERS.values():
        if cipher.family == family and cipher.key_length == length:
            return cipher
    raise BlockError(f"Algorithm '{family}' with key size {length} bytes not supported", errno=errno.EINVAL)


def implemented(cipher: Cipher) -> Cipher:
    """The cipher itself, where we have code for it.

    Raises:
        UnsupportedFeature: we have none.
    """
    if cipher.family in _OURS:
        return cipher
    raise UnsupportedFeature(
        f"The cipher '{cipher.name}' is not supported",
        hint="With QEMU's qemu-img convert, copy the image into one that is encrypted with aes-256.",
    )


def check_mode(cipher: Cipher, mode: str) -> None:
    """Refuse a mode that the cipher cannot be used in.

    Raises:
        BlockError: XTS wants blocks of 16 bytes.
    """
    if mode == "xts" and cipher.block_length != 16:
        raise BlockError(f"Unsupported cipher mode {mode}", errno=errno.ENOTSUP)


def essiv_cipher(cipher: Cipher, hash: str) -> Cipher:
    """The cipher that makes ESSIV's initialization vectors: as dm-crypt has it, its keys are as long as the digest.

    Raises:
        BlockError: there is no such cipher.
    """
    length = HASHES[hash]
    if length == cipher.key_length:
        return cipher
    if cipher.family == "cast5":
        raise BlockError(f"Cipher {cipher.name} not supported with essiv", errno=errno.EINVAL)
    for other in CIPHERS.values():
        if other.family == cipher.family and other.key_length == length:
            return other
    family = "AES" if cipher.family == "aes" else cipher.family.capitalize()
    raise BlockError(f"No {family} cipher with key size {length} available", errno=errno.EINVAL)


def hasher(hash: str) -> Callable[[bytes], bytes]:
    """The function that makes a digest.

    Raises:
        UnsupportedFeature: this machine's OpenSSL lacks the hash.
    """
    make = getattr(hashlib, hash, None) or functools.partial(hashlib.new, hash)
    try:
        make(b"", usedforsecurity=False)
    except ValueError:
        raise _no_hash(hash) from None
    return lambda data: bytes(make(data, usedforsecurity=False).digest())


def pbkdf2(hash: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
    """Derive a key of ``length`` bytes from a password (RFC 8018, PBKDF2 with HMAC).

    However many iterations a header asks for, a signal is heard: Ctrl-C ends the wait at once.

    Raises:
        UnsupportedFeature: this machine's OpenSSL lacks the hash, or cannot count that far.
    """
    try:
        call = functools.partial(hashlib.pbkdf2_hmac, hash, password, salt, iterations, length)
        return call() if iterations <= _QUICK else _interruptible(call)
    except OverflowError:
        raise UnsupportedFeature(f"{iterations} iterations of PBKDF2 are not supported") from None
    except ValueError:
        raise _no_hash(hash) from None


def _interruptible(call: Callable[[], bytes]) -> bytes:
    """Call in a thread of its own: one call into a library is never interrupted, but waiting for it is."""
    found: list[bytes | Exception] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    # Nobody can end it: who gives up leaves it behind, and it ends with the process at the latest.
    thread = threading.Thread(target=run, name="pbkdf2", daemon=True)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _no_hash(hash: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"Hash algorithm '{hash}' is not available on this machine",
        hint="OpenSSL was built, or configured, without it.",
    )
