"""What is uploaded to volumes of directory pools, and downloaded from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import Hole, PoolRef
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.errors import ErrorCode, VirtError
from hostel.units import MiB
from support.refusal import refused
from support.volumes import xml


def test_what_is_uploaded_is_downloaded(driver: Storage, started: PoolRef) -> None:
    data = random.Random(3).randbytes(3 * MiB + 5)
    volume = driver.storage_vol_create_xml(started, xml("disk", 8 * MiB))
    driver.storage_vol_upload(volume, [data[:MiB], data[MiB:]], offset=1000)
    found = b"".join(bytes(piece) for piece in driver.storage_vol_download(volume) if not isinstance(piece, Hole))
    assert found == bytes(1000) + data + bytes(8 * MiB - 1000 - len(data))
    part = b"".join(
        bytes(piece) for piece in driver.storage_vol_download(volume, 1001, 7) if not isinstance(piece, Hole)
    )
    assert part == data[1:8]
    assert list(driver.storage_vol_download(volume, 9 * MiB)) == []


def test_sparse_download_tells_holes_and_sparse_upload_makes_them_zeroes(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 8 * MiB))
    driver.storage_vol_upload(volume, [b"a" * MiB], offset=2 * MiB)
    pieces = list(driver.storage_vol_download(volume, sparse=True))
    assert [piece.length for piece in pieces if isinstance(piece, Hole)] == [2 * MiB, 5 * MiB]
    driver.storage_vol_upload(volume, [Hole(MiB), b"b", Hole(2 * MiB)], offset=2 * MiB)
    found = b"".join(bytes(piece) for piece in driver.storage_vol_download(volume) if not isinstance(piece, Hole))
    assert found == bytes(3 * MiB) + b"b" + bytes(5 * MiB - 1)


def test_upload_beyond_the_end_grows_the_file_and_a_hole_there_takes_no_space(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))
    driver.storage_vol_upload(volume, [Hole(64 * MiB)])
    status = (place / "disk").stat()
    assert (status.st_size, status.st_blocks) == (64 * MiB, 0)


def test_upload_of_more_than_was_announced_is_refused_after_so_much(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))
    with refused(
        ErrorCode.OPERATION_FAILED,
        "operation failed: upload to volume 'disk': the data is longer than the 3 bytes announced",
    ):
        driver.storage_vol_upload(volume, [b"abcdef"], length=3)
    assert (place / "disk").read_bytes()[:6] == b"abc\0\0\0"


def test_volume_that_is_there_whole_may_be_used_before_the_upload_ends(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 4096))

    def send(last: bytes) -> Iterator[bytes]:
        yield b"abc"
        with pytest.raises(VirtError, match="still in use"):
            driver.storage_vol_wipe_pattern(volume)
        yield b"def"
        assert (place / "disk").read_bytes()[:7] == b"abcdef\0"
        driver.storage_vol_wipe_pattern(volume)
        yield last

    driver.storage_vol_upload(volume, send(b""), length=6)
    with refused(
        ErrorCode.OPERATION_FAILED,
        "operation failed: upload to volume 'disk': the data is longer than the 6 bytes announced",
    ):
        driver.storage_vol_upload(volume, send(b"g"), length=6)


@pytest.mark.parametrize(("offset", "length"), [(-1, 0), (0, -1), (2**63, 0), (1, 2**63 - 1)])
def test_ranges_that_are_none_are_refused(driver: Storage, started: PoolRef, offset: int, length: int) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    for call in (
        lambda: driver.storage_vol_upload(volume, [b""], offset, length),
        lambda: driver.storage_vol_download(volume, offset, length),
    ):
        with pytest.raises(VirtError) as caught:
            call()
        assert caught.value.code is ErrorCode.INVALID_ARG
