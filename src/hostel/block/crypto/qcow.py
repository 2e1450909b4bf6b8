"""The AES scheme of qcow and of qcow2's first encryption method: AES-128 in CBC, the passphrase itself as the key.

The key is the passphrase's first 16 bytes, filled up with zeroes; the initialization vector is the number of the
guest's sector. Whoever has seen a block can tell it again, and guessing the passphrase costs next to nothing: it is
here to read old images (QEMU has called it deprecated since 2.3).
"""

from __future__ import annotations

from hostel.block.crypto.algorithm import CIPHERS
from hostel.block.crypto.sector import Scheme, SectorCipher

_KEY_LENGTH = 16


def qcow_cipher(password: bytes) -> SectorCipher:
    """What encrypts an image's clusters."""
    return SectorCipher(Scheme(CIPHERS["aes-128"], "cbc", "plain64"), password[:_KEY_LENGTH].ljust(_KEY_LENGTH, b"\0"))
