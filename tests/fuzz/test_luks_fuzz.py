"""Broken LUKS headers: refused or opened, with one clean error at most, and never changed by looking."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.crypto.header import HEADER_LENGTH, LuksHeader
from hostel.block.driver import OpenMode
from hostel.block.formats.luks import LuksDriver
from hostel.errors import BlockError
from hostel.img.inspect import inspect
from support import luks
from support.bounded import bounded
from support.memory import MemoryDriver, memory_node
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
INTERESTING = (
    b"\0",
    b"\1",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\1",
)


@pytest.fixture(scope="module")
def sound() -> Iterator[bytes]:
    """A volume that the first passphrase opens."""
    with luks.secrets():
        driver = MemoryDriver()
        luks.new_volume(driver, 4096, cipher_alg="aes-128", cipher_mode="cbc", ivgen_alg="essiv")
        yield bytes(driver.data)


def broken(sound: bytes, rng: random.Random) -> bytes:
    """The volume with a few bytes of its header changed, or cut off."""
    data = bytearray(sound)
    for _ in range(rng.randint(1, 3)):
        value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 8))
        place = rng.randrange(HEADER_LENGTH)
        data[place : place + len(value)] = value
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)


def attempt(data: bytes) -> str:
    """Look at a volume, and read it where no iteration count would keep us."""
    try:
        driver = LuksDriver.open(memory_node(MemoryDriver(data), read_only=True), OpenMode(no_io=True))
        header = LuksHeader.parse(data[:HEADER_LENGTH])
        most = max([slot.iterations for slot in header.slots] + [header.fixed.digest_iterations])
        assert driver.info().specific is not None
        if most > 100_000:
            return "opened without a passphrase"
        with luks.opened(MemoryDriver(data), read_only=True) as node:
            node.read(0, min(512, node.length))
    except BlockError as error:
        assert str(error)
        return "refused"
    return "opened"


def test_broken_headers_end_cleanly(sound: bytes, tried: Counter[str]) -> None:
    def run() -> dict[str, int]:
        outcomes: Counter[str] = Counter()
        rng = random.Random(2)
        for _ in range(400 * SOAK):
            outcomes[attempt(broken(sound, rng))] += 1
        return dict(outcomes)

    outcomes = bounded(run, seconds=300)
    assert outcomes["refused"] > 50
    assert outcomes["opened"] > 20
    for outcome, count in outcomes.items():
        tried[f"broken LUKS headers {outcome}"] += count


def test_inspect_says_what_a_volume_needs(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(sound)
    found = inspect(str(path), expected="luks")
    assert [each.code for each in found.findings] == ["encrypted"]
    assert found.encrypted
    assert found.findings[0].message == (
        "The data is encrypted (LUKS, aes-128-cbc-essiv), so nothing can be said of it; "
        "a passphrase of key slot 0 opens it"
    )
    assert path.read_bytes() == sound


def test_inspect_tells_costly_and_lost_keys(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    costly = bytearray(sound)
    costly[212:216] = b"\xff\xff\xff\xff"
    path.write_bytes(costly)
    assert [each.code for each in inspect(str(path), expected="luks").findings] == ["costly-key", "encrypted"]
    lost = bytearray(sound)
    lost[208:212] = b"\0\0\xde\xad"
    path.write_bytes(lost)
    assert [each.code for each in inspect(str(path), expected="luks").findings] == ["no-key"]


def test_inspect_refuses_version_2(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(sound[:7] + b"\2" + sound[8:])
    assert [each.code for each in inspect(str(path), expected="luks").findings] == ["unsupported-feature"]
