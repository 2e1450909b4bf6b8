"""LUKS's anti-forensic splitter: a key spread over many stripes, of which every bit is needed to get it back.

On-disk format, version 1.2.3, section 2.4: to erase a key, it is enough that any part of its stripes is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hostel.block.crypto.algorithm import HASHES, hasher


def split(key: bytes, stripes: int, hash: str, *, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Spread ``key`` over ``stripes`` times its length."""
    filler = random(len(key) * (stripes - 1))
    return filler + _xor(_mix(filler, len(key), hash), key)


def merge(material: bytes, length: int, stripes: int, hash: str) -> bytes:
    """The inverse of :func:`split`; ``length`` is the key's."""
    end = length * (stripes - 1)
    return _xor(_mix(material[:end], length, hash), material[end : end + length])


def _mix(filler: bytes, length: int, hash: str) -> bytes:
    """Fold stripes of ``length`` bytes into one."""
    make, step = hasher(hash), HASHES[hash]
    mixed = bytes(length)
    for start in range(0, len(filler), length):
        data = _xor(mixed, filler[start : start + length])
        # Each piece of a digest's length is hashed together with its number; the last piece may be shorter.
        mixed = b"".join(
            make(index.to_bytes(4, "big") + data[place : place + step])[: length - place]
            for index, place in enumerate(range(0, length, step))
        )
    return mixed


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")
