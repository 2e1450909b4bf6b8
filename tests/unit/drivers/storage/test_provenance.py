"""Uploads: stored byte for byte, and what their headers name is not followed until somebody vouches for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, VolumeRef, VolumeResizeFlag
from hostel.drivers.qemu import source
from hostel.drivers.storage import provenance
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.units import MiB
from support import qcow2

NAMING = {
    "backing file": {"backing_file": "/etc/shadow", "backing_fmt": "raw"},
    "pseudo-protocol": {"backing_file": "json:{}", "backing_fmt": "raw"},
    "data file": {"data_file": "/etc/shadow"},
}


def image(**options: object) -> bytes:
    return qcow2.create(0 if "data_file" in options else MiB, options)  # type: ignore[arg-type]


@pytest.fixture
def volume(driver: SessionStorageDriver, started: PoolRef) -> VolumeRef:
    xml = "<volume><name>disk</name><capacity>1048576</capacity></volume>"
    return driver.storage_vol_create_xml(started, xml)


def domain(path: Path, kind: str) -> Domain:
    return Domain.parse(
        "<domain type='qemu'><name>g</name><memory>1024</memory><os><type>hvm</type></os><devices><disk>"
        f"<driver name='qemu' type='{kind}'/><source file='{path}'/><target dev='vda'/></disk></devices></domain>"
    )


@pytest.mark.parametrize("options", NAMING.values(), ids=NAMING)
def test_an_upload_is_stored_as_it_is_and_what_it_names_is_not_followed(
    driver: SessionStorageDriver, started: PoolRef, place: Path, volume: VolumeRef, options: dict[str, object]
) -> None:
    data = image(**options)
    driver.storage_vol_upload(volume, [data[:100], data[100:]])
    assert (place / "disk").read_bytes()[: len(data)] == data
    with pytest.raises(VirtError, match=r"was uploaded and names .*'virsh vol-upload --trust'") as refusal:
        source.prepare(domain(place / "disk", "qcow2"), driver)
    assert refusal.value.code == ErrorCode.OPERATION_INVALID
    clone = "<volume><name>clone</name><capacity>1</capacity><target><format type='raw'/></target></volume>"
    with pytest.raises(VirtError, match="was uploaded and names"):
        driver.storage_vol_create_xml_from(started, clone, volume)
    with pytest.raises(VirtError, match="was uploaded and names"):
        driver.storage_vol_resize(volume, 2 * MiB, VolumeResizeFlag.NONE)
    # As raw bytes it names nothing.
    source.prepare(domain(place / "disk", "raw"), driver)


def test_whoever_vouches_for_an_upload_has_it_followed(
    driver: SessionStorageDriver, place: Path, volume: VolumeRef
) -> None:
    (place / "base").write_bytes(bytes(MiB))
    data = image(backing_file="base", backing_fmt="raw")
    driver.storage_vol_upload(volume, [data])
    assert provenance.is_marked(str(place / "disk"))
    driver.storage_vol_upload(volume, [data], trusted=True)
    source.prepare(domain(place / "disk", "qcow2"), driver)


@pytest.mark.parametrize("data", [bytes(512), b"bytes", qcow2.create(MiB)], ids=["zeroes", "bytes", "qcow2"])
def test_an_upload_that_names_nothing_is_as_good_as_any_file(
    driver: SessionStorageDriver, place: Path, volume: VolumeRef, data: bytes
) -> None:
    driver.storage_vol_upload(volume, [image(backing_file="/etc/shadow", backing_fmt="raw")])
    driver.storage_vol_upload(volume, [data])
    assert not provenance.is_marked(str(place / "disk"))


def test_an_upload_in_pieces_is_judged_by_what_it_is_in_the_end(
    driver: SessionStorageDriver, place: Path, volume: VolumeRef
) -> None:
    data = image(backing_file="/etc/shadow", backing_fmt="raw")
    driver.storage_vol_upload(volume, [data[4:]], offset=4)
    assert not provenance.is_marked(str(place / "disk"))
    driver.storage_vol_upload(volume, [data[:4]])
    assert provenance.is_marked(str(place / "disk"))


def test_an_upload_that_breaks_off_is_not_trusted(driver: SessionStorageDriver, place: Path, volume: VolumeRef) -> None:
    def broken() -> object:
        yield image(backing_file="/etc/shadow", backing_fmt="raw")
        raise OSError(errno.ECONNRESET, "the other side is gone")

    with pytest.raises(VirtError):
        driver.storage_vol_upload(volume, broken())  # type: ignore[arg-type]
    assert provenance.is_marked(str(place / "disk"))


def test_where_the_mark_cannot_be_kept_the_upload_fails_and_says_so(
    driver: SessionStorageDriver, volume: VolumeRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no attributes here")

    monkeypatch.setattr(os, "setxattr", without)
    with pytest.raises(VirtError, match=r"cannot record .* --trust"):
        driver.storage_vol_upload(volume, [image(backing_file="/etc/shadow", backing_fmt="raw")])
    driver.storage_vol_upload(volume, [bytes(512)])
