"""Encrypted qcow2 images: what the guest wrote is read again wherever it lies, and the file does not show it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hostel.block import objects
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import COPIED, OFFSET_MASK, ExtensionType, Header
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Preallocation, Repair
from hostel.errors import BlockError, CorruptImage, InvalidImage, UnsupportedFeature
from support import luks, qcow2
from support.memory import MemoryDriver, memory_node

SIZE = 512 * 1024
LUKS: dict[str, Value] = {"encrypt.format": "luks", "encrypt.key-secret": "first", "encrypt.iter-time": 1}
AES: dict[str, Value] = {"encrypt.format": "aes", "encrypt.key-secret": "first"}
SMALL: dict[str, Value] = {"encrypt.cipher-alg": "aes-128", "encrypt.cipher-mode": "cbc"}
IMAGES: dict[str, dict[str, Value]] = {
    "LUKS": LUKS | SMALL | {"cluster_size": 4096},
    "LUKS, version 2": LUKS | SMALL | {"cluster_size": 4096, "compat": "0.10"},
    "LUKS, subclusters": LUKS | SMALL | {"cluster_size": 16384, "extended_l2": True},
    "AES": AES | {"cluster_size": 4096},
    "AES, clusters of a sector": AES | {"cluster_size": 512},
}

pytestmark = pytest.mark.usefixtures("secrets")


@pytest.fixture
def secrets() -> Iterator[None]:
    """The passphrases."""
    with luks.secrets():
        yield


@pytest.fixture(params=IMAGES)
def disk(request: pytest.FixtureRequest) -> MemoryDriver:
    """An empty image of each kind."""
    return new(IMAGES[request.param])


def new(options: dict[str, Value], size: int = SIZE) -> MemoryDriver:
    """A new image."""
    driver = MemoryDriver()
    Qcow2Driver.create(memory_node(driver), size, options)
    return driver


def opened(
    disk: MemoryDriver, secret: str = "first", *, read_only: bool = False, backing: bytes | None = None
) -> BlockNode:
    """Open an image with a passphrase."""
    mode = OpenMode(read_only=read_only, options={"encrypt.key-secret": secret})
    driver = Qcow2Driver.open(memory_node(disk, read_only=read_only), mode)
    if backing is not None:
        driver.children["backing"] = qcow2.disk(backing)
    return BlockNode(driver, "memory", read_only=read_only)


def assert_clean(disk: MemoryDriver) -> None:
    """A check finds nothing: no corruption, and no leak."""
    lines: list[str] = []
    with opened(disk, read_only=True) as node:
        result = qcow2.driver_of(node).check(Repair.NOTHING, lines.append)
    assert (qcow2.faults(result), result.leaks) == ((0, 0), 0), lines


def pieces(rng: random.Random, size: int) -> tuple[int, int]:
    """A place and a length, of which many end inside a sector."""
    offset = rng.randrange(size)
    return offset, min(rng.choice([1, 300, 511, 512, 700, 4096, 5000, 40_000]), size - offset)


@pytest.mark.parametrize("backed", [False, True])
def test_any_sequence_of_writes_is_read_again(disk: MemoryDriver, backed: bool) -> None:
    rng = random.Random(11)
    below = rng.randbytes(SIZE) if backed else None
    shadow = bytearray(below or bytes(SIZE))
    kept = b""
    node = opened(disk, backing=below)
    for step in range(150):
        offset, length = pieces(rng, SIZE)
        action = rng.random()
        if action < 0.6:
            data = rng.randbytes(length)
            node.pwrite(offset, data)
            shadow[offset : offset + length] = data
        elif action < 0.85:
            node.write_zeroes(offset, length, unmap=action < 0.7)
            shadow[offset : offset + length] = bytes(length)
        elif action < 0.9:
            node.close()
            node = opened(disk, backing=below)
        offset, length = pieces(rng, SIZE)
        assert node.read(offset, length) == shadow[offset : offset + length], step
        if step == 60:
            qcow2.driver_of(node).snapshot_create("middle", date=(0, 0))
            kept = bytes(shadow)
    assert node.read(0, SIZE) == shadow
    qcow2.driver_of(node).snapshot_apply("middle")
    assert node.read(0, SIZE) == kept
    node.close()
    assert_clean(disk)


def test_the_file_shows_nothing_of_the_data(disk: MemoryDriver) -> None:
    with opened(disk) as node:
        node.pwrite(0, b"plain text " * 3000)
        node.pwrite(100_000, b"x")
        qcow2.driver_of(node).snapshot_create("kept", date=(0, 0))
        node.pwrite(500, b"plain text")
    assert b"plain text" not in disk.data


def test_extents_do_not_point_into_the_file(disk: MemoryDriver) -> None:
    with opened(disk) as node:
        node.pwrite(0, bytes(range(256)) * 64)
        data = [extent for extent in node.extents(0) if extent.status & Status.DATA]
    assert data
    assert all(extent.host_offset is None for extent in data)


def test_luks_encrypts_for_the_place_on_the_host_and_aes_for_the_guests() -> None:
    for options, same in ((LUKS | SMALL, False), (AES, True)):
        disk = new({**options, "cluster_size": 4096})
        with opened(disk) as node:
            node.pwrite(8192, bytes(4096))
            first = places(node)
            qcow2.driver_of(node).snapshot_create("kept", date=(0, 0))
            node.pwrite(8192, bytes(4096))
            second = places(node)
        assert first != second
        one, other = (disk.data[place : place + 4096] for place in (first, second))
        assert (one == other) is same


def places(node: BlockNode) -> int:
    """Where the guest's cluster at 8192 lies."""
    (extent,) = qcow2.driver_of(node)._extents(8192, 4096)
    assert extent.host_offset is not None
    return extent.host_offset


@pytest.mark.parametrize("mode", list(Preallocation))
def test_preallocated_space_reads_as_zeroes(disk: MemoryDriver, mode: Preallocation) -> None:
    with opened(disk) as node:
        node.pwrite(SIZE - 512, b"end".ljust(512, b"."))
        node.resize(2 * SIZE, mode)
        assert node.read(SIZE, SIZE) == bytes(SIZE)
        node.pwrite(SIZE + 1000, b"within")
        assert node.read(SIZE, 4096) == bytes(1000) + b"within" + bytes(4096 - 1006)
        assert node.read(SIZE - 512, 3) == b"end"
    with opened(disk, read_only=True) as node:
        assert node.read(SIZE + 4096, SIZE - 4096) == bytes(SIZE - 4096)
    assert_clean(disk)


def test_zero_clusters_stay_zero_in_version_2() -> None:
    disk, below = new(LUKS | SMALL | {"cluster_size": 4096, "backing_file": "below", "backing_fmt": "raw"}), b"b" * SIZE
    with opened(disk, backing=below) as node:
        node.pwrite(0, b"d" * 8192)
        node.write_zeroes(4096, 4096)
        node.write_zeroes(65536, 8192)
        expected = bytes(node.read(0, SIZE))
        qcow2.driver_of(node).amend({"compat": "0.10"}, force=False, report=lambda done, total: None)
        assert node.read(0, SIZE) == expected
    assert qcow2.header(disk.data).version == 2
    with opened(disk, backing=below, read_only=True) as node:
        assert node.read(0, SIZE) == expected
    assert_clean(disk)


def test_machine_state_is_encrypted_too(disk: MemoryDriver) -> None:
    with opened(disk) as node:
        qcow2.driver_of(node).save_vm_state(700, memoryview(b"machine state" * 100))
        buf = bytearray(1300)
        qcow2.driver_of(node).load_vm_state(700, memoryview(buf))
        assert buf == b"machine state" * 100
    assert b"machine state" not in disk.data


def test_bitmaps_record_writes_as_ever() -> None:
    disk = new(AES | {"cluster_size": 4096})
    with opened(disk) as node:
        qcow2.driver_of(node).bitmap_add("changes", 4096)
        node.pwrite(8192, b"x")
    with opened(disk, read_only=True) as node:
        dirty = [found[:2] for found in qcow2.driver_of(node).bitmap("changes").ranges(0, SIZE) if found[2]]
    assert dirty == [(8192, 4096)]
    assert_clean(disk)


def test_compressed_clusters_are_refused(disk: MemoryDriver) -> None:
    with opened(disk) as node, pytest.raises(UnsupportedFeature, match="would not be encrypted"):
        qcow2.driver_of(node).pwrite_compressed(0, b"abc")


def test_passphrases_are_amended_as_those_of_a_volume() -> None:
    disk = new(LUKS | SMALL)
    options: dict[str, Value] = {"encrypt.state": "active", "encrypt.new-secret": "second", "encrypt.iter-time": 1}
    with opened(disk) as node:
        node.pwrite(0, b"kept")
        qcow2.driver_of(node).amend(options, force=False, report=lambda done, total: None)
    removal: dict[str, Value] = {"encrypt.state": "inactive", "encrypt.old-secret": "first"}
    with opened(disk, "second") as node:
        qcow2.driver_of(node).amend(removal, force=False, report=lambda done, total: None)
        assert node.read(0, 4) == b"kept"
    with pytest.raises(BlockError, match="Invalid password, cannot unlock any keyslot"):
        opened(disk)
    with opened(new(AES)) as node, pytest.raises(UnsupportedFeature, match="Only LUKS encryption options"):
        qcow2.driver_of(node).amend(removal, force=False, report=lambda done, total: None)


def test_info_shows_the_scheme_without_a_passphrase() -> None:
    mode = OpenMode(no_io=True)
    for options, shown in ((AES, {"format": "aes"}), (LUKS, None)):
        info = Qcow2Driver.open(memory_node(new(options)), mode).info()
        assert info.encrypted
        assert info.specific is not None
        encrypt = info.specific["encrypt"]
        assert encrypt == shown or (shown is None and encrypt["cipher-alg"] == "aes-256" and len(encrypt["slots"]) == 8)


def test_size_is_told_beforehand() -> None:
    plain = Qcow2Driver.measure(1 << 30, {"cluster_size": 65536, "refcount_bits": 16}, None)
    encrypted = Qcow2Driver.measure(1 << 30, LUKS | {"cluster_size": 65536, "refcount_bits": 16}, None)
    assert encrypted.required - plain.required == encrypted.fully_allocated - plain.fully_allocated == 32 * 65536


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"encryption": True}, "Parameter 'encrypt.key-secret' is required for cipher"),
        ({"encrypt.format": "luks"}, "Parameter 'encrypt.key-secret' is required for cipher"),
        ({"encrypt.format": "luks", "encrypt.key-secret": "nobody"}, "No secret with id 'nobody'"),
        ({"encrypt.format": "rot13"}, "Parameter 'format' does not accept value 'rot13'"),
        ({"encrypt.key-secret": "first"}, "Parameter 'encrypt.format' is missing"),
        (AES | {"encryption": True}, "'encrypt.format' and its alias 'encryption' can't be used at the same time"),
        (AES | {"encrypt.iter-time": 1}, "Parameter 'encrypt.iter-time' is unexpected"),
        (LUKS | {"encrypt.cipher-alg": "serpent-256"}, "The cipher 'serpent-256' is not supported"),
        (
            LUKS | {"data_file": "d", "data_file_raw": True},
            "Encryption and data-file-raw cannot be used at the same time",
        ),
    ],
)
def test_image_that_cannot_be_is_refused(options: dict[str, Value], refusal: str) -> None:
    with pytest.raises(BlockError, match=refusal):
        new(options)


def poked(disk: MemoryDriver, method: int | None = None, pointer: bytes | None = None) -> MemoryDriver:
    """An image whose header says something else of encryption; an extension of another length is cut or filled."""
    data = bytearray(disk.data)
    if method is not None:
        place = Header.OFFSET["crypt_method"]
        data[place : place + 4] = method.to_bytes(4, "big")
    if pointer is not None:
        place = data.index(int(ExtensionType.CRYPTO_HEADER).to_bytes(4, "big"), 0, 4096)
        data[place + 4 : place + 8] = len(pointer).to_bytes(4, "big")
        data[place + 8 : place + 8 + len(pointer)] = pointer
    return MemoryDriver(data)


@pytest.mark.parametrize(
    ("method", "pointer", "refusal"),
    [
        (0, None, "CRYPTO header extension only expected with LUKS encryption method"),
        (1, None, "CRYPTO header extension only expected with LUKS encryption method"),
        (3, None, "Unsupported encryption method 3"),
        (None, bytes(24), "CRYPTO header extension size 24, but expected size 16"),
        (None, (4097).to_bytes(8, "big") + bytes(8), "Encryption header offset '4097' is not a multiple of"),
        (None, (1 << 40).to_bytes(8, "big") + (4096).to_bytes(8, "big"), "Volume is not in LUKS format"),
        (None, bytes(16), "outside of the encryption header"),
    ],
)
def test_header_that_contradicts_itself_is_refused(method: int | None, pointer: bytes | None, refusal: str) -> None:
    disk = poked(new(LUKS | SMALL | {"cluster_size": 4096}), method, pointer)
    with pytest.raises(InvalidImage, match=refusal):
        opened(disk, read_only=True)


def test_luks_image_without_its_header_is_refused() -> None:
    with pytest.raises(InvalidImage, match="Missing CRYPTO header for crypt method 2"):
        opened(poked(new(AES), 2), read_only=True)


def test_another_encryption_than_was_asked_for_is_refused() -> None:
    def look(disk: MemoryDriver, format: str) -> None:
        options: dict[str, Value] = {"encrypt.key-secret": "first", "encrypt.format": format}
        Qcow2Driver.open(memory_node(disk, read_only=True), OpenMode(options=options))

    with pytest.raises(BlockError, match="No encryption in image header, but options specified format 'luks'"):
        look(new({}), "luks")
    with pytest.raises(BlockError, match="Header reported 'aes' encryption format but options specify 'luks'"):
        look(new(AES), "luks")
    look(new(AES), "aes")


def test_passphrase_is_missing_or_wrong() -> None:
    disk = new(LUKS | SMALL)
    with pytest.raises(BlockError, match=r"Parameter 'encrypt\.key-secret' is required for cipher"):
        Qcow2Driver.open(memory_node(disk), OpenMode(read_only=False))
    with pytest.raises(BlockError, match="Invalid password, cannot unlock any keyslot"):
        opened(disk, "third")
    objects.clear()
    with pytest.raises(BlockError, match="No secret with id 'first'"):
        opened(disk)


def test_a_new_image_whose_refcount_table_grows_for_the_header_is_sound() -> None:
    driver = new(LUKS | {"cluster_size": 512, "refcount_bits": 64})
    lines: list[str] = []
    image = Qcow2Driver.open(memory_node(driver, read_only=True), OpenMode(check=True, no_io=True))
    result = image.check(Repair.NOTHING, lines.append)
    assert lines == []
    assert not result.leaks


@pytest.mark.parametrize("how", ["refcounts", "entry"])
def test_key_material_is_never_written_over(how: str) -> None:
    """A refcount of 0, or an L2 entry, that leads there: the guest's data would take the place of the only keys."""
    disk = new(IMAGES["LUKS"])
    with opened(disk) as node:
        node.pwrite(0, b"kept" * 1024)
    start, length = headers.parse(bytes(disk.data[:4096])).encryption_header
    header = Header.unpack(bytes(disk.data))
    if how == "entry":
        table = int.from_bytes(disk.data[header.l1_table_offset :][:8], "big") & OFFSET_MASK
        disk.data[table + 16 : table + 24] = (start + 4096 | COPIED).to_bytes(8, "big")
    else:
        block = int.from_bytes(disk.data[header.refcount_table_offset :][:8], "big")
        disk.data[block + start // 2048 : block + (start + length) // 2048] = bytes(length // 2048)
    before = bytes(disk.data[start : start + length])
    with pytest.raises(CorruptImage, match="encryption header"), opened(disk) as node:
        node.pwrite(2 * 4096, b"data" * 1024)
        node.flush()
    assert disk.data[start : start + length] == before
    with opened(disk, read_only=True) as node:
        assert node.read(0, 4) == b"kept"
