"""Sector ciphers: published vectors, and the two ways against each other."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5
from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
from cryptography.hazmat.primitives.ciphers import modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from hostel.block.crypto.algorithm import CIPHERS, MODES, check_mode, cipher_named, cipher_of, essiv_cipher
from hostel.block.crypto.batch import Batch
from hostel.block.crypto.qcow import qcow_cipher
from hostel.block.crypto.sector import Scheme, SectorCipher
from hostel.errors import BlockError, UnsupportedFeature
from hostel.units import SECTOR

GENERATORS = (("plain", None), ("plain64", None), ("plain64", "sha1"), ("essiv", "sha256"), ("essiv", "md5"))
SCHEMES = [
    Scheme(CIPHERS[name], mode, generator, hash)
    for name in ("aes-128", "aes-192", "aes-256", "cast5-128")
    for mode in MODES
    for generator, hash in GENERATORS
    if not (name == "cast5-128" and (mode == "xts" or hash == "sha256"))
]


def title(scheme: Scheme) -> str:
    """A scheme as a test's name."""
    return f"{scheme.cipher.name}-{scheme.mode}-{scheme.ivgen}-{scheme.ivgen_hash}"


def batched(scheme: Scheme, key: bytes) -> SectorCipher:
    """A cipher that does all sectors at once, however few."""
    cipher = SectorCipher(scheme, key)
    cipher._batch = Batch(cipher)
    return cipher


def alone(scheme: Scheme, key: bytes, monkeypatch: pytest.MonkeyPatch) -> SectorCipher:
    """A cipher that does one sector after the other."""
    cipher = SectorCipher(scheme, key)
    monkeypatch.setattr(cipher, "_many", lambda length: None)
    return cipher


@pytest.mark.parametrize("scheme", SCHEMES, ids=title)
@pytest.mark.parametrize("first", [0, 2**32 - 3, 2**40])
def test_many_sectors_at_once_are_what_openssl_makes_of_each(
    scheme: Scheme, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, data = os.urandom(scheme.key_length), os.urandom(600 * SECTOR)
    cipher = batched(scheme, key)
    encrypted = bytes(cipher.encrypt(first, data))
    if SectorCipher(scheme, key)._alone:
        single = alone(scheme, key, monkeypatch)
        assert bytes(single.encrypt(first, data)) == encrypted
        back = bytearray(encrypted)
        single.decrypt(first, memoryview(back))
        assert back == data
    back = bytearray(encrypted)
    cipher.decrypt(first, memoryview(back))
    assert back == data
    assert encrypted != data


@pytest.mark.parametrize("scheme", SCHEMES, ids=title)
def test_a_sector_depends_on_its_number_and_on_nothing_beside_it(scheme: Scheme) -> None:
    cipher = batched(scheme, bytes(range(scheme.key_length)))
    encrypted = bytes(cipher.encrypt(5, bytes(4 * SECTOR)))
    assert encrypted[2 * SECTOR : 3 * SECTOR] == bytes(cipher.encrypt(7, bytes(SECTOR)))
    assert (encrypted[:SECTOR] == encrypted[SECTOR : 2 * SECTOR]) is (scheme.mode == "ecb")


def test_xts_is_that_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    # IEEE 1619-2007, annex B, vector 4: XTS-AES-128, data unit 0
    key = bytes.fromhex("2718281828459045235360287471352631415926535897932384626433832795")
    expected = bytes.fromhex(
        "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
        "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
    )
    scheme = Scheme(CIPHERS["aes-128"], "xts", "plain64")
    plain = bytes(range(256)) * 2
    assert bytes(batched(scheme, key).encrypt(0, plain))[:64] == expected
    assert bytes(alone(scheme, key, monkeypatch).encrypt(0, plain))[:64] == expected


def test_essiv_is_that_of_dm_crypt() -> None:
    # The vector is the sector's number, encrypted with the key's digest.
    key, sector = bytes(range(16)), 4711
    salt = Primitive(AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()
    vector = salt.update(sector.to_bytes(16, "little"))
    expected = Primitive(AES(key), modes.CBC(vector)).encryptor().update(bytes(SECTOR))
    cipher = batched(Scheme(CIPHERS["aes-128"], "cbc", "essiv", "sha256"), key)
    assert bytes(cipher.encrypt(sector, bytes(SECTOR))) == expected


def test_plain_forgets_the_upper_half_of_a_sectors_number() -> None:
    cipher = batched(Scheme(CIPHERS["aes-128"], "cbc", "plain"), bytes(16))
    assert bytes(cipher.encrypt(3, bytes(SECTOR))) == bytes(cipher.encrypt(2**32 + 3, bytes(SECTOR)))


def test_counters_count_across_the_whole_block() -> None:
    # An ESSIV vector may end with bytes that overflow while the sector is counted through.
    key = bytes(16)
    cipher = batched(Scheme(CIPHERS["cast5-128"], "ctr", "essiv", "md5"), key)
    single = Primitive(CAST5(key), modes.ECB()).encryptor()
    for sector in range(600):
        (vector,) = cipher.vectors(sector, 1)
        if vector[-1] < 0xF0:
            continue
        last = (int.from_bytes(vector, "big") + 63) % 2**64
        stream = bytes(cipher.encrypt(sector, bytes(SECTOR)))
        assert stream[-8:] == single.update(last.to_bytes(8, "big"))
        return
    pytest.fail("no vector of these overflows")


def test_equal_halves_of_an_xts_key_are_no_reason_to_stop() -> None:
    cipher = SectorCipher(Scheme(CIPHERS["aes-128"], "xts", "plain64"), bytes(32))
    buf = bytearray(cipher.encrypt(0, bytes(SECTOR)))
    cipher.decrypt(0, memoryview(buf))
    assert buf == bytes(SECTOR)


def test_key_of_the_old_scheme_is_the_start_of_the_passphrase() -> None:
    long, cut = qcow_cipher(b"0123456789abcdefghi"), qcow_cipher(b"0123456789abcdef")
    assert bytes(long.encrypt(1, bytes(SECTOR))) == bytes(cut.encrypt(1, bytes(SECTOR)))
    short, filled = qcow_cipher(b"pw"), Primitive(AES(b"pw".ljust(16, b"\0")), modes.CBC(b"\1" + bytes(15)))
    assert bytes(short.encrypt(1, bytes(SECTOR))) == filled.encryptor().update(bytes(SECTOR))


@pytest.mark.parametrize("name", ["serpent-256", "twofish-128"])
def test_ciphers_without_code_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedFeature, match=f"The cipher '{name}' is not supported") as refusal:
        cipher_named(name)
    assert "aes-256" in str(refusal.value.hint)


def test_ciphers_that_qemu_refuses_are_refused() -> None:
    with pytest.raises(BlockError, match="Algorithm '3des' not supported"):
        cipher_named("3des")
    with pytest.raises(BlockError, match="Parameter 'cipher-alg' does not accept value 'rot13'"):
        cipher_named("rot13")
    with pytest.raises(BlockError, match="Algorithm 'aes' with key size 20 bytes not supported"):
        cipher_of("aes", "xts", 40)
    with pytest.raises(BlockError, match="Unsupported cipher mode xts"):
        check_mode(CIPHERS["cast5-128"], "xts")
    with pytest.raises(BlockError, match="No AES cipher with key size 20 available"):
        essiv_cipher(CIPHERS["aes-256"], "sha1")
    with pytest.raises(BlockError, match="Cipher cast5-128 not supported with essiv"):
        essiv_cipher(CIPHERS["cast5-128"], "sha256")
