"""LUKS headers: each field that may be wrong, and its refusal in QEMU's words."""

from __future__ import annotations

import pytest

from hostel.block.crypto.algorithm import CIPHERS
from hostel.block.crypto.header import (
    DISABLED,
    ENABLED,
    HEADER_LENGTH,
    FixedHeader,
    KeySlot,
    LuksHeader,
    new_header,
    slot_offset,
)
from hostel.block.crypto.sector import Scheme
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature

SCHEME = Scheme(CIPHERS["aes-256"], "xts", "plain64")


def sound() -> bytearray:
    """A header without keys."""
    return bytearray(new_header(SCHEME, "sha256", uuid="12345678-1234-1234-1234-123456789abc").pack())


def with_field(name: str, value: bytes | int) -> bytes:
    """A header with another value in a field; of a slot as ``3.stripes``."""
    data = sound()
    record: type[FixedHeader] | type[KeySlot] = FixedHeader
    place = 0
    if "." in name:
        index, name = name.split(".")
        record, place = KeySlot, slot_offset(int(index))
    place += record.OFFSET[name]
    raw = value if isinstance(value, bytes) else value.to_bytes(2 if name == "version" else 4, "big")
    data[place : place + len(raw)] = raw
    return bytes(data)


def test_layout_is_that_of_the_specification() -> None:
    assert HEADER_LENGTH == 592
    assert {name: FixedHeader.OFFSET[name] for name in ("cipher_name", "payload_offset", "digest", "uuid")} == {
        "cipher_name": 8,
        "payload_offset": 104,
        "digest": 112,
        "uuid": 168,
    }
    assert (slot_offset(0), KeySlot.SIZE) == (208, 48)


def test_header_that_was_packed_says_the_same() -> None:
    header = LuksHeader.parse(bytes(sound()))
    assert header.scheme == SCHEME
    assert (header.hash, header.payload_offset, header.active_slots()) == ("sha256", 2068480, [])
    assert header.describe()["uuid"] == "12345678-1234-1234-1234-123456789abc"
    assert [slot.key_offset for slot in header.slots] == [8 + index * 504 for index in range(8)]


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("magic", b"LUKS\xba\xbf", "Volume is not in LUKS format"),
        ("version", 0, "LUKS version 0 is not supported"),
        ("version", 3, "LUKS version 3 is not supported"),
        ("cipher_name", b"a" * 32, "LUKS header cipher name is not NUL terminated"),
        ("cipher_mode", b"x" * 32, "LUKS header cipher mode is not NUL terminated"),
        ("hash_spec", b"s" * 32, "LUKS header hash spec is not NUL terminated"),
        ("payload_offset", 7, "LUKS payload is overlapping with the header"),
        ("payload_offset", 0, "LUKS payload is overlapping with the header"),
        ("payload_offset", 4039, "Keyslot 7 is overlapping with the encrypted payload"),
        ("digest_iterations", 0, "LUKS key iteration count is zero"),
        ("0.stripes", 0, r"Keyslot 0 is corrupted \(stripes 0 != 4000\)"),
        ("3.stripes", 0xFFFFFFFF, r"Keyslot 3 is corrupted \(stripes -1 != 4000\)"),
        ("7.active", 1, r"Keyslot 7 state \(active/disable\) is corrupted"),
        ("2.active", ENABLED, "Keyslot 2 iteration count is zero"),
        ("0.key_offset", 7, "Keyslot 0 is overlapping with the LUKS header"),
        ("0.key_offset", 0, "Keyslot 0 is overlapping with the LUKS header"),
        ("1.key_offset", 0xFFFFFFFF, "Keyslot 1 is overlapping with the encrypted payload"),
        ("0.key_offset", 511, "Keyslots 0 and 1 are overlapping in the header"),
        ("6.key_offset", 8, "Keyslots 0 and 6 are overlapping in the header"),
        ("key_length", 0, "Algorithm 'aes' with key size 0 bytes not supported"),
        ("key_length", 20, "Algorithm 'aes' with key size 10 bytes not supported"),
        ("key_length", 0xFFFFFFFF, "is overlapping with the encrypted payload"),
        ("cipher_name", b"rot13\0", "Algorithm 'rot13' with key size 32 bytes not supported"),
        ("cipher_mode", b"xts\0", "Unexpected cipher mode string format 'xts'"),
        ("cipher_mode", b"cfb-plain\0", "Cipher mode 'cfb' not supported"),
        ("cipher_mode", b"xts-lmk\0", "IV generator 'lmk' not supported"),
        ("cipher_mode", b"xts-essiv\0", "Missing IV generator hash specification"),
        ("cipher_mode", b"xts-essiv:crc\0", "Hash algorithm 'crc' not supported"),
        ("cipher_mode", b"xts-essiv:sha512\0", "No AES cipher with key size 64 available"),
        ("hash_spec", b"whirlpool\0", "Hash algorithm 'whirlpool' not supported"),
    ],
)
def test_wrong_field_is_refused(name: str, value: bytes | int, refusal: str) -> None:
    with pytest.raises(BlockError, match=refusal):
        LuksHeader.parse(with_field(name, value))


def test_version_2_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedFeature, match="LUKS version 2 is not supported") as refusal:
        LuksHeader.parse(with_field("version", 2))
    assert "--type luks1" in str(refusal.value.hint)


def test_sums_that_overflow_in_32_bits_do_not_here() -> None:
    # In C 0xfffffff8 + 504 is 496, which is before the payload.
    with pytest.raises(InvalidImage, match="Keyslot 1 is overlapping with the encrypted payload"):
        LuksHeader.parse(with_field("1.key_offset", 0xFFFFFFF8))


def test_plain_generators_ignore_a_hash_and_keep_it() -> None:
    header = LuksHeader.parse(with_field("cipher_mode", b"xts-plain64:sha1\0"))
    assert header.scheme.ivgen_hash == "sha1"
    assert "ivgen-hash-alg" not in header.describe()


def test_inactive_slots_show_neither_iterations_nor_stripes() -> None:
    header = LuksHeader.parse(bytes(sound()))
    header.slots[2] = header.slots[2].replace(active=ENABLED, iterations=1000)
    slots = header.describe()["slots"]
    assert slots[2] == {"active": True, "iters": 1000, "key-offset": 520192, "stripes": 4000}
    assert slots[3] == {"active": False, "key-offset": 778240}
    assert header.slots[3].active == DISABLED
