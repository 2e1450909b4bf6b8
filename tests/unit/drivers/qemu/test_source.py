"""Disk sources before QEMU sees them."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.base import PoolRef, VolumeInfo, VolumeRef, VolumeType
from hostel.drivers.qemu import source
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.volumes import name_volume


def domain(disk: str) -> Domain:
    head = "<domain type='qemu'><name>g</name><memory>1024</memory><os><type>hvm</type></os><devices>"
    return Domain.parse(f"{head}{disk}</devices></domain>")


def qcow2(path: Path, backing: str = "", fmt: str = "") -> Path:
    extension = struct.pack(">II", 0xE2792ACA, len(fmt)) + fmt.encode().ljust(8, b"\0") if fmt else b""
    extension += bytes(8)
    offset = 104 + len(extension) if backing else 0
    head = b"QFI\xfb" + struct.pack(">IQI", 3, offset, len(backing)) + bytes(80) + struct.pack(">I", 104)
    path.write_bytes(head + extension + backing.encode())
    return path


def disk(path: Path) -> str:
    return f"<disk><driver type='qcow2'/><source file='{path}'/><target dev='vda'/></disk>"


class Volumes:
    """A storage driver with one pool."""

    def __init__(self, path: Path, *, active: bool = True, kind: VolumeType = VolumeType.FILE) -> None:
        self.path = path
        self.active = active
        self.kind = kind

    def storage_pool_lookup_by_name(self, name: str) -> PoolRef:
        return PoolRef(name, "u")

    def storage_pool_is_active(self, pool: PoolRef) -> bool:
        return self.active

    def storage_vol_lookup_by_name(self, pool: PoolRef, name: str) -> VolumeRef:
        return VolumeRef(pool.name, name, name)

    def storage_vol_get_path(self, volume: VolumeRef) -> str:
        return str(self.path / volume.name)

    def storage_vol_get_info(self, volume: VolumeRef) -> VolumeInfo:
        return VolumeInfo(self.kind, 0, 0)

    def storage_pool_get_xml_desc(self, pool: PoolRef) -> str:
        return f"<pool type='dir'><name>{pool.name}</name><target><path>{self.path}</path></target></pool>"


VOLUME = "<disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk>"


def test_volume_becomes_its_file(tmp_path: Path) -> None:
    (tmp_path / "v").touch()
    document = domain(VOLUME)
    storage: Any = Volumes(tmp_path)
    source.prepare(document, storage)
    found = document.devices.disks[0].source
    assert found is not None
    assert found.file == str(tmp_path / "v")


def test_volume_that_is_a_device_becomes_a_device(tmp_path: Path) -> None:
    (tmp_path / "v").touch()
    document = domain(VOLUME)
    storage: Any = Volumes(tmp_path, kind=VolumeType.BLOCK)
    source.prepare(document, storage)
    found = document.devices.disks[0]
    assert found.source is not None
    assert (found.type, found.source.dev, found.source.file) == ("block", str(tmp_path / "v"), None)


@pytest.mark.parametrize("kind", [VolumeType.NETWORK, VolumeType.NETDIR])
def test_volume_of_a_server_is_refused_with_where_it_is(kind: VolumeType, tmp_path: Path) -> None:
    storage: Any = Volumes(tmp_path, kind=kind)
    with pytest.raises(VirtError, match=f"is on a server, '{tmp_path}/v'") as caught:
        source.prepare(domain(VOLUME), storage)
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED


def test_volume_of_an_inactive_pool_is_refused(tmp_path: Path) -> None:
    storage: Any = Volumes(tmp_path, active=False)
    with pytest.raises(VirtError, match="storage pool 'p' containing volume 'v' is not active") as caught:
        source.prepare(domain(VOLUME), storage)
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED


def test_backing_file_without_a_recorded_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").touch()
    top = qcow2(tmp_path / "top", "base")
    with pytest.raises(VirtError, match="does not record the format of its backing file") as caught:
        source.prepare(domain(disk(top)), None)
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


def test_backing_file_that_is_missing_is_named(tmp_path: Path) -> None:
    top = qcow2(tmp_path / "top", "base", "raw")
    with pytest.raises(VirtError, match=r"base' of disk 'vda': No such file"):
        source.prepare(domain(disk(top)), None)
    (tmp_path / "base").touch()
    assert source.prepare(domain(disk(top)), None) == []


def test_loop_in_the_backing_chain_is_refused(tmp_path: Path) -> None:
    top = qcow2(tmp_path / "top", "base", "qcow2")
    qcow2(tmp_path / "base", "top", "qcow2")
    with pytest.raises(VirtError, match="loops"):
        source.prepare(domain(disk(top)), None)


def test_part_of_a_file_is_found_behind_an_overlay(tmp_path: Path) -> None:
    box = tmp_path / "box"
    qcow2(tmp_path / "inner", "base", "raw")
    box.write_bytes(bytes(512) + (tmp_path / "inner").read_bytes())
    (tmp_path / "base").touch()
    window = f'"driver":"raw","offset":512,"size":65536,"file":{{"driver":"file","filename":"{box}"}}'
    top = qcow2(tmp_path / "top", f'json:{{"file":{{{window}}}}}', "qcow2")
    document = domain(disk(top))
    assert source.prepare(document, None) == []
    below = document.devices.disks[0].backing_store
    assert below is not None
    assert below.source is not None
    assert below.source.slice is not None
    assert (below.source.file, below.source.slice.offset, below.source.slice.size) == (str(box), 512, 65536)
    assert below.backing_store is not None
    assert below.backing_store.source is not None
    assert below.backing_store.source.file == str(tmp_path / "base")


@pytest.mark.parametrize(
    "name",
    [
        "json:" + "[" * 20000,
        'json:{"file":{"driver":"raw","offset":-1,"size":1,"file":{"driver":"file","filename":"/f"}}}',
        'json:{"file":{"driver":"raw","offset":true,"size":1,"file":{"driver":"file","filename":"/f"}}}',
        'json:{"file":{"driver":"raw","offset":0,"size":1,"file":{"driver":"file","filename":["/f"]}}}',
        'json:{"file":{"driver":"raw","offset":0,"size":1,"file":{"driver":"nbd","filename":"/f"}}}',
        'json:{"file":3}',
    ],
)
def test_what_else_qemu_reads_of_a_backing_file_is_left_to_it(tmp_path: Path, name: str) -> None:
    document = domain(disk(qcow2(tmp_path / "top", name, "raw")))
    assert source.prepare(document, None) == []
    assert document.devices.disks[0].backing_store is None


def test_backing_file_with_a_zero_byte_in_its_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="Cannot access storage file"):
        source.prepare(domain(disk(qcow2(tmp_path / "top", "a\0b", "raw"))), None)


def test_truncated_header_is_left_to_qemu(tmp_path: Path) -> None:
    top = qcow2(tmp_path / "top", "base", "raw")
    top.write_bytes(top.read_bytes()[:80])
    assert source.prepare(domain(disk(top)), None) == []


BACKED = "<disk><driver type='qcow2'/><source file='{top}'/><backingStore type='file'><format type='{fmt}'/>"
BACKED += "<source file='{base}'/>{end}</backingStore><target dev='vda'/></disk>"


def test_backing_images_of_the_document_are_checked_in_place_of_the_headers(tmp_path: Path) -> None:
    top, base = qcow2(tmp_path / "top", "elsewhere"), tmp_path / "base"
    xml = BACKED.format(top=top, base=base, fmt="raw", end="<backingStore/>")
    with pytest.raises(VirtError, match=r"base' of disk 'vda': No such file"):
        source.prepare(domain(xml), None)
    base.touch()
    assert source.prepare(domain(xml), None) == []


@pytest.mark.parametrize(("end", "refused"), [("", True), ("<backingStore/>", False)])
def test_chain_behind_the_last_image_of_the_document_is_checked(tmp_path: Path, end: str, refused: bool) -> None:
    top, base = qcow2(tmp_path / "top"), qcow2(tmp_path / "base", "unnamed")
    (tmp_path / "unnamed").touch()
    xml = BACKED.format(top=top, base=base, fmt="qcow2", end=end)
    if refused:
        with pytest.raises(VirtError, match="does not record the format"):
            source.prepare(domain(xml), None)
    else:
        assert source.prepare(domain(xml), None) == []


def test_optional_image_that_is_missing_is_dropped_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    disks = "".join(
        f"<disk device='{device}'><source file='{tmp_path}/{name}' startupPolicy='optional'/>"
        f"<target dev='{dev}'/></disk>"
        for device, name, dev in (("disk", "a", "vda"), ("cdrom", "b", "sda"), ("disk", "there", "vdb"))
    )
    document = domain(disks)
    dropped = source.prepare(document, None)
    assert [(each.path, each.whole) for each in dropped] == [(f"{tmp_path}/b", False), (f"{tmp_path}/a", True)]
    left = {disk.target.dev: disk.source is not None for disk in document.devices.disks}
    assert left == {"sda": False, "vdb": True}


def test_relative_path_is_refused() -> None:
    with pytest.raises(VirtError, match="must be absolute"):
        source.prepare(domain("<disk><source file='d'/><target dev='vda'/></disk>"), None)


POOL = """<pool type='{type}'><name>p</name><source><host name='h' port='3261'/><device path='iqn.2020-01.org:t'/>
<auth type='chap' username='u'><secret usage='x'/></auth></source>
<target><path>/dev/disk/by-path</path></target></pool>"""


class Units(Volumes):
    """A storage driver with one pool of iSCSI units."""

    type = "iscsi"

    def storage_pool_get_xml_desc(self, pool: PoolRef) -> str:
        return POOL.format(type=self.type)


def translated(volume: str, storage: Volumes, mode: str = "") -> Any:
    text = f"<disk type='volume'><source pool='p' volume='{volume}'{mode}/><target dev='vda'/></disk>"
    (found,) = domain(text).devices.disks
    assert found.source is not None
    source.translate(found, storage)  # type: ignore[arg-type]
    return found


def test_a_unit_is_opened_by_qemu_itself_where_the_document_says_so(tmp_path: Path) -> None:
    found = translated("unit:0:0:7", Units(tmp_path, kind=VolumeType.BLOCK), " mode='direct'")
    assert (found.type, found.source.protocol, found.source.name) == ("network", "iscsi", "iqn.2020-01.org:t/7")
    assert [(host.name, host.port) for host in found.source.hosts] == [("h", "3261")]
    assert found.source.auth.username == "u"
    assert (found.source.pool, found.source.volume, found.source.mode) == ("p", "unit:0:0:7", "direct")
    name_volume(found)
    text = "<disk type='volume' device='disk'><source pool='p' volume='unit:0:0:7' mode='direct'/><target dev='vda'/>"
    assert re.sub(r"\n *", "", found.format()) == f"{text}</disk>"


def test_a_unit_of_the_host_is_its_device(tmp_path: Path) -> None:
    found = translated("unit:0:0:7", Units(tmp_path, kind=VolumeType.BLOCK), " mode='host'")
    assert (found.type, found.source.dev, found.source.mode) == ("block", str(tmp_path / "unit:0:0:7"), "host")


def test_a_volume_that_is_a_directory_stays_one(tmp_path: Path) -> None:
    found = translated("d", Volumes(tmp_path, kind=VolumeType.DIR))
    assert (found.type, found.source.dir) == ("dir", str(tmp_path / "d"))


@pytest.mark.parametrize(("type", "volume"), [("dir", "unit:0:0:7"), ("iscsi", "seven")])
def test_only_numbered_units_of_iscsi_are_opened_directly(type: str, volume: str, tmp_path: Path) -> None:
    storage = Units(tmp_path, kind=VolumeType.BLOCK)
    storage.type = type
    with pytest.raises(VirtError, match=r"disk source mode is only valid|the number of a unit"):
        translated(volume, storage, " mode='direct'")
