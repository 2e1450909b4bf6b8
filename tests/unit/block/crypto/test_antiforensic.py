"""The splitter: what it makes, and that every stripe is needed."""

from __future__ import annotations

import hashlib

import pytest

from hostel.block.crypto.algorithm import HASHES
from hostel.block.crypto.antiforensic import merge, split


@pytest.mark.parametrize("hash", HASHES)
@pytest.mark.parametrize("length", [16, 24, 32, 33, 64])
def test_what_was_split_can_be_merged(hash: str, length: int) -> None:
    key = bytes(range(length))
    material = split(key, 50, hash)
    assert len(material) == 50 * length
    assert merge(material, length, 50, hash) == key


@pytest.mark.parametrize("place", [0, 17, 32 * 48, 32 * 50 - 1])
def test_one_bit_of_any_stripe_changes_the_key(place: int) -> None:
    material = bytearray(split(bytes(32), 50, "sha256"))
    material[place] ^= 1
    assert merge(bytes(material), 32, 50, "sha256") != bytes(32)


def test_two_stripes_are_the_filler_and_the_key_over_its_digest() -> None:
    key, filler = bytes(range(24)), bytes(range(100, 124))
    diffused = hashlib.sha1(bytes(4) + filler[:20]).digest() + hashlib.sha1(b"\0\0\0\1" + filler[20:]).digest()[:4]
    expected = filler + bytes(one ^ other for one, other in zip(key, diffused, strict=True))
    assert split(key, 2, "sha1", random=lambda length: filler[:length]) == expected
