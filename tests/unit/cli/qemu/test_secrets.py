"""Secrets of ``--object``: as they are, in base64, and encrypted with another one."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from hostel.block import objects
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.objects import create_object

KEY, VECTOR = bytes(range(32)), bytes(range(16))
MASTER = f"secret,id=master,format=base64,data={base64.b64encode(KEY).decode()}"
IV = base64.b64encode(VECTOR).decode()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was made is gone afterwards."""
    yield
    objects.clear()


def encrypted(plain: bytes, padding: int | None = None) -> str:
    """A secret encrypted with the master key, in base64."""
    count = 16 - len(plain) % 16 if padding is None else padding
    padded = (plain + bytes([count]) * (16 - len(plain) % 16)) if count <= 16 else plain + bytes([count])
    data = Cipher(AES(KEY), modes.CBC(VECTOR)).encryptor().update(padded)
    return base64.b64encode(data).decode()


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    objects.clear()


@pytest.mark.parametrize("plain", [b"passphrase", b"", b"exactly sixteen!", b"longer than one block of the cipher"])
def test_encrypted_secret_is_what_was_encrypted(plain: bytes) -> None:
    create_object(MASTER)
    create_object(f"secret,id=s,keyid=master,iv={IV},format=base64,data={encrypted(plain)}")
    assert objects.secret("s").data == plain
    assert objects.password("s") == plain


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (f"secret,id=s,keyid=nobody,iv={IV},format=base64,data={encrypted(b'x')}", "No secret with id 'nobody'"),
        (f"secret,id=s,keyid=master,format=base64,data={encrypted(b'x')}", "IV is required to decrypt secret"),
        (
            f"secret,id=s,keyid=master,iv=AAAA,format=base64,data={encrypted(b'x')}",
            "IV should be 16 bytes in length not 3",
        ),
        (
            f"secret,id=s,keyid=master,iv=?,format=base64,data={encrypted(b'x')}",
            "Base64 data contains invalid characters",
        ),
        (f"secret,id=s,keyid=master,iv={IV},format=base64,data=AAAA", "Length 3 must be a multiple of block size 16"),
        (
            f"secret,id=s,keyid=master,iv={IV},format=base64,data={encrypted(b'fifteen bytes..', 17)}",
            r"Incorrect number of padding bytes \(17\) found on decrypted data",
        ),
        (f"secret,id=s,keyid=short,iv={IV},format=base64,data={encrypted(b'x')}", "Key should be 32 bytes in length"),
    ],
)
def test_secret_that_cannot_be_decrypted_is_refused(text: str, refusal: str) -> None:
    create_object(MASTER)
    create_object("secret,id=short,data=abc")
    with pytest.raises(Failure, match=refusal):
        create_object(text)
