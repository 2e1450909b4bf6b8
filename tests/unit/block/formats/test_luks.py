"""The format ``luks``: what the disk has is what was written, and the file does not show it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph, objects, probe
from hostel.block.driver import OpenMode
from hostel.block.formats.luks import LuksDriver
from hostel.block.powers import Preallocation
from hostel.cli.main import INTERRUPTED
from hostel.errors import BlockError, InvalidImage, UnsupportedFeature
from support import luks
from support.memory import MemoryDriver, memory_node
from support.process import PATIENCE

FORMAT = "luks"
PAYLOAD = 2068480  # of a volume with a key of 64 bytes
SIZE = 64 * 1024
SLOT_ITERATIONS = 212  # of the first key slot: where they are in the header

pytestmark = pytest.mark.usefixtures("secrets")


@pytest.fixture
def secrets() -> Iterator[None]:
    """The passphrases."""
    with luks.secrets():
        yield


@pytest.fixture
def disk() -> MemoryDriver:
    """A volume that the first passphrase opens."""
    driver = MemoryDriver()
    luks.new_volume(driver, SIZE)
    return driver


def test_writes_of_any_size_and_place_are_read_again(disk: MemoryDriver) -> None:
    rng = random.Random(7)
    with luks.opened(disk) as node:
        node.pwrite(0, bytes(SIZE))
        shadow = bytearray(SIZE)
        for _ in range(200):
            offset = rng.randrange(SIZE)
            data = rng.randbytes(min(rng.choice([1, 100, 511, 512, 513, 5000]), SIZE - offset))
            node.pwrite(offset, data)
            shadow[offset : offset + len(data)] = data
            start = rng.randrange(SIZE)
            length = rng.randrange(SIZE - start + 1)
            assert node.read(start, length) == shadow[start : start + length]
    with luks.opened(disk, read_only=True) as node:
        assert node.read(0, SIZE) == shadow


def test_the_file_shows_nothing_of_the_data(disk: MemoryDriver) -> None:
    with luks.opened(disk) as node:
        node.pwrite(0, b"plain text " * 1000)
        node.write_zeroes(32768, 4096)
        assert node.read(32768, 4096) == bytes(4096)
    assert b"plain text" not in disk.data
    assert bytes(512) not in disk.data[PAYLOAD + 32768 : PAYLOAD + 36864]


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({}, PAYLOAD),
        ({"cipher_alg": "aes-128"}, 1052672),
        ({"cipher_alg": "aes-192"}, 1544192),
        ({"cipher_alg": "aes-192", "cipher_mode": "cbc", "ivgen_alg": "essiv"}, 790528),
        ({"cipher_alg": "cast5-128", "cipher_mode": "ctr"}, 528384),
        ({"cipher_alg": "aes-256", "cipher_mode": "ecb", "hash_alg": "ripemd160"}, 1052672),
    ],
)
def test_volume_of_each_scheme_can_be_opened(options: dict[str, str], payload: int) -> None:
    driver = MemoryDriver()
    luks.new_volume(driver, SIZE, **options)
    assert len(driver.data) == payload + SIZE
    with luks.opened(driver) as node:
        node.pwrite(1000, b"here")
        specific = node.driver.info().specific
        assert specific is not None
        assert specific["payload-offset"] == payload
    with luks.opened(driver, read_only=True) as node:
        assert node.read(1000, 4) == b"here"
        assert node.length == SIZE


def test_wrong_missing_and_broken_passphrases_are_told_apart(disk: MemoryDriver) -> None:
    with pytest.raises(BlockError, match="Invalid password, cannot unlock any keyslot"):
        luks.opened(disk, "second")
    with pytest.raises(BlockError, match="No secret with id 'nobody'"):
        luks.opened(disk, "nobody")
    with pytest.raises(BlockError, match="Parameter 'key-secret' is required for cipher") as refusal:
        LuksDriver.open(memory_node(disk), OpenMode())
    assert "--object secret" in str(refusal.value.hint)
    objects.add("bytes", objects.Secret(b"\xff\xfe"))
    with pytest.raises(BlockError, match="Data from secret bytes is not valid UTF-8"):
        luks.opened(disk, "bytes")
    objects.add("longer", objects.Secret(luks.SECRETS["first"] + b"\0more"))
    luks.opened(disk, "longer").close()


def test_metadata_needs_no_passphrase_and_shows_no_data(disk: MemoryDriver) -> None:
    driver = LuksDriver.open(memory_node(disk), OpenMode(no_io=True))
    assert driver.info().encrypted
    with pytest.raises(BlockError, match="opened without its passphrase"):
        driver.pread(0, memoryview(bytearray(512)))


def test_file_that_ends_in_its_header_is_refused(disk: MemoryDriver) -> None:
    with pytest.raises(InvalidImage, match="beyond the end of the file"):
        luks.opened(MemoryDriver(disk.data[: PAYLOAD - 512]))
    with pytest.raises(InvalidImage, match="outside of the encryption header"):
        luks.opened(MemoryDriver(disk.data[:591]))
    luks.opened(MemoryDriver(disk.data[:PAYLOAD])).close()


@pytest.mark.parametrize("content", [b"", b"LUKS", bytes(100), bytes(591)])
def test_short_file_that_is_no_volume_is_told_so(content: bytes) -> None:
    with pytest.raises(InvalidImage, match="Volume is not in LUKS format"):
        luks.opened(MemoryDriver(bytearray(content)))


def test_volume_grows_and_shrinks_with_its_header_apart(disk: MemoryDriver) -> None:
    with luks.opened(disk) as node:
        node.pwrite(0, b"kept")
        node.resize(2 * SIZE)
        assert (node.length, len(disk.data)) == (2 * SIZE, PAYLOAD + 2 * SIZE)
        node.resize(512)
        assert (node.length, bytes(node.read(0, 4))) == (512, b"kept")
        with pytest.raises(BlockError, match="The requested file size is too large"):
            node.resize(2**63 - 1 - 512)


def test_size_is_told_beforehand() -> None:
    measured = LuksDriver.measure(1 << 30, luks.FAST, [(0, 512)])
    assert measured == (PAYLOAD + (1 << 30), PAYLOAD + (1 << 30))
    with pytest.raises(BlockError, match="The requested file size is too large"):
        LuksDriver.check_creation(2**63 - 512, luks.FAST)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"cipher-mode": "cfb"}, "Parameter 'cipher-mode' does not accept value 'cfb'"),
        ({"ivgen-alg": "benbi"}, "Parameter 'ivgen-alg' does not accept value 'benbi'"),
        ({"hash-alg": "crc"}, "Parameter 'hash-alg' does not accept value 'crc'"),
        ({"ivgen-hash-alg": "crc"}, "Parameter 'ivgen-hash-alg' does not accept value 'crc'"),
        ({"cipher-alg": "cast5-128"}, "Unsupported cipher mode xts"),
        ({"preallocation": "some"}, "Parameter 'preallocation' does not accept value 'some'"),
        ({"iter-time": 0}, "expects a number of milliseconds above 0"),
        ({"iter-time": 10**13}, "larger than 4294967295"),
        ({"key-secret": "nobody"}, "No secret with id 'nobody'"),
    ],
)
def test_volume_that_cannot_be_is_refused(options: dict[str, str | int], refusal: str) -> None:
    with pytest.raises(BlockError, match=refusal):
        LuksDriver.create(memory_node(MemoryDriver()), SIZE, {**luks.FAST, **options})


def test_space_is_preallocated_below(disk: MemoryDriver) -> None:
    LuksDriver.create(memory_node(disk), SIZE, {**luks.FAST, "preallocation": "metadata"})
    with luks.opened(disk) as node:
        node.resize(2 * SIZE, Preallocation.FULL)
        node.preallocate(0, SIZE)
        assert node.length == 2 * SIZE


def test_both_versions_are_told_by_their_magic() -> None:
    for version in (1, 2):
        assert probe.detect(b"LUKS\xba\xbe" + version.to_bytes(2, "big") + bytes(504), "disk") == "luks"
    assert probe.detect(b"LUKS\xba\xbe\0\7" + bytes(504), "disk") == "raw"


def test_version_2_is_refused_by_name(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "disk")
    with open(path, "wb") as stream:
        stream.write(b"LUKS\xba\xbe\0\2" + bytes(8192))
    with pytest.raises(UnsupportedFeature, match="LUKS version 2 is not supported"):
        graph.open(path, options={"key-secret": "first"})


def test_plain_images_are_opened_without_a_thought_of_encryption(tmp_path: os.PathLike[str]) -> None:
    script = (
        "import sys\nfrom hostel.cli.main import run_tool\n"
        f"path = {os.path.join(tmp_path, 'disk')!r}\n"
        "assert not run_tool('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M'])\n"
        "assert not run_tool('qemu-img', ['check', '-q', path])\n"
        "loaded = [name for name in ('cryptography', 'numpy', 'hostel.block.crypto') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_write_to_a_part_of_a_sector_does_not_undo_another(
    disk: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_read, has_written = threading.Event(), threading.Event()
    read = LuksDriver._read

    def slowly(self: LuksDriver, offset: int, buf: memoryview) -> None:
        read(self, offset, buf)
        has_read.set()
        has_written.wait(0.2)  # who may write now does; who must wait for us is not waited for

    with luks.opened(disk) as node:
        monkeypatch.setattr(LuksDriver, "_read", slowly)
        first = threading.Thread(target=node.pwrite, args=(0, b"a" * 100))
        first.start()
        assert has_read.wait(10)
        node.pwrite(0, b"b" * 512)
        has_written.set()
        first.join(10)
        assert node.read(100, 412) == b"b" * 412


def test_ctrl_c_ends_the_wait_for_a_key_of_too_many_iterations(disk: MemoryDriver, tmp_path: Path) -> None:
    costly = bytearray(disk.data)
    costly[SLOT_ITERATIONS : SLOT_ITERATIONS + 4] = (2**31 - 1).to_bytes(4, "big")  # hours, and no signal is heard
    image, target = tmp_path / "costly", tmp_path / "target"
    image.write_bytes(costly)
    options = f"driver=luks,key-secret=s,file.filename={image}"
    words = [
        "qemu-img",
        "convert",
        "--object",
        "secret,id=s,data=first",
        "--image-opts",
        options,
        "-O",
        "raw",
        str(target),
    ]
    with subprocess.Popen([sys.executable, "-m", "hostel", *words], stderr=subprocess.PIPE) as process:
        try:
            tasks, deadline = Path(f"/proc/{process.pid}/task"), time.monotonic() + PATIENCE
            while len(list(tasks.iterdir())) < 2:  # the key is made in a thread of its own
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "nobody waits for the key where a signal could end the wait"
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, err) == (INTERRUPTED, b"\n")
    assert not target.exists()
