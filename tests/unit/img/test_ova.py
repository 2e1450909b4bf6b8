"""OVAs: their disks by place, their digests, and archives that are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.blockdev import from_options
from hostel.block.options import split_options
from hostel.errors import InvalidImage
from hostel.img.inspect import inspect
from hostel.img.inspection import Inspection, Level
from hostel.img.ova import read_ova, wrong_digests
from support import hostile
from support.formats import good, ours
from support.ova import archive, description, manifest, ova

RANDOM = random.Random("ova")
DISK = RANDOM.randbytes(300 * 512) + bytes(200 * 512)


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    (tmp_path / "raw").write_bytes(DISK)
    options = ("-o", "subformat=streamOptimized")
    good(ours("convert", "-f", "raw", "-O", "vmdk", *options, tmp_path / "raw", tmp_path / "d.vmdk"))
    return (tmp_path / "d.vmdk").read_bytes()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def codes(found: Inspection, level: Level = Level.UNSAFE) -> list[str]:
    return [each.code for each in found.findings if each.level is level]


def test_disks_are_opened_where_they_lie(tmp_path: Path, image: bytes) -> None:
    path = write(tmp_path / "a,b.ova", ova({"d.vmdk": image, "e.vmdk": image}))
    found = inspect(path)
    assert found.disks is not None
    assert [(each.disk.name, each.format, each.virtual_size) for each in found.disks] == [
        ("d.vmdk", "vmdk", len(DISK)),
        ("e.vmdk", "vmdk", len(DISK)),
    ]
    assert not codes(found)
    for each in found.disks:
        assert each.disk.capacity == len(image)
        with graph.open(from_options(split_options(each.options(path)))) as node:
            assert (node.format, bytes(node.read(0, len(DISK)))) == ("vmdk", DISK)


def test_the_command_lists_them(tmp_path: Path, image: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    from hostel.cli.main import main

    path = write(tmp_path / "a.ova", ova({"d.vmdk": image}))
    assert main(["hostel", "inspect", "--check-digests", path]) == 3
    assert (
        "disk: d.vmdk (vmdk), of 250 KiB: --image-opts driver=vmdk,file.driver=raw,file.offset="
        in capsys.readouterr().out
    )
    assert main(["hostel", "inspect", "--output=json", path]) == 3
    (disk,) = json.loads(capsys.readouterr().out)["disks"]
    assert (disk["filename"], disk["format"], disk["virtual-size"]) == ("d.vmdk", "vmdk", len(DISK))


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_digests_are_held_against_the_files(tmp_path: Path, algorithm: str) -> None:
    files = {"m.ovf": description({"d": 512}), "d": bytes(512)}
    whole = archive(files | {"m.mf": manifest(files, algorithm)})
    assert "digest" not in codes(inspect(write(tmp_path / "a", whole), check_digests=True))
    changed = archive(files | {"m.mf": manifest(files, algorithm), "d": b"x" + bytes(511)})
    assert codes(inspect(write(tmp_path / "b", changed), check_digests=True)) == ["digest"]
    assert not codes(inspect(write(tmp_path / "b", changed)))


def test_files_without_digests_and_digests_without_files_are_told() -> None:
    files = {"m.ovf": description({"d": 512})}
    data = archive(files | {"m.mf": manifest({"gone": b""}), "d": bytes(512)})

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    found = read_ova(read, len(data))
    assert found is not None
    assert wrong_digests(found, read) == [
        "The manifest names 'gone', which is not in the archive",
        "The manifest does not name 'm.ovf'",
        "The manifest does not name 'd'",
    ]


def test_an_archive_without_a_manifest_is_a_warning_where_digests_are_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "a", ova({"d": bytes(512)}, digests=False))
    assert "no-manifest" in codes(inspect(path, check_digests=True), Level.WARNING)
    assert "no-manifest" not in codes(inspect(path), Level.WARNING)


def test_what_a_disk_names_makes_the_archive_unsafe(tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "a", ova({"d": hostile.naming(b"/etc/shadow")})))
    assert "backing-file" in codes(found)
    assert [each.filename for each in found.names] == ["/etc/shadow"]


def test_a_file_that_lies_elsewhere_makes_the_archive_unsafe(tmp_path: Path) -> None:
    for name in ("/etc/shadow", "../disk", "http://host/disk", "gone.vmdk"):
        text = description({"d": 512}, extra=f'<File ovf:href="{name}" ovf:id="x"/>')
        found = inspect(write(tmp_path / "a", archive({"m.ovf": text, "d": bytes(512)})))
        assert "extent" in codes(found)
        assert [each.filename for each in found.names] == [name]


def test_a_disk_larger_than_allowed_is_unsafe(tmp_path: Path, image: bytes) -> None:
    path = write(tmp_path / "a", ova({"d.vmdk": image}))
    assert "virtual-size" in codes(inspect(path, max_virtual_size=len(DISK) - 1))
    assert not codes(inspect(path, max_virtual_size=1 << 20))


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><Envelope>&a;</Envelope>'
HOSTILE = {
    "a description that is no XML": ({"m.ovf": b"nonsense"}, "The description cannot be read"),
    "a document type": ({"m.ovf": BOMB}, "a document type is not allowed"),
    "a description in another encoding": ({"m.ovf": b"\xff\xfe"}, "'m.ovf' is no UTF-8"),
    "a description of megabytes": ({"m.ovf": bytes(5 << 20)}, "4194304 are the most"),
    "a disk of no file": (
        {"m.ovf": description({}).replace(b"<DiskSection>", b'<DiskSection><Disk fileRef="x"/>')},
        "refers to a file that it does not list: 'x'",
    ),
    "a compressed disk": ({"m.ovf": description({"d": 1}, compression="gzip"), "d": b""}, r"is compressed \(gzip\)"),
    "a manifest that is none": ({"m.ovf": description({}), "m.mf": b"MD5(x)= 00\n"}, "A line of the manifest is none"),
    "a manifest that says it twice": (
        {"m.ovf": description({}), "m.mf": manifest({"x": b""}) * 2},
        "The manifest names 'x' twice",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str) -> None:
    files, message = HOSTILE[case]
    data = archive(files)
    with pytest.raises(InvalidImage, match=message):
        read_ova(lambda offset, length: data[offset : offset + length], len(data))
    assert codes(inspect(write(tmp_path / "a", data))) == ["malformed"]


def test_a_file_that_is_there_twice_is_refused() -> None:
    data = archive({"m.ovf": description({})})
    twice = data[:1024] + data
    with pytest.raises(InvalidImage, match=r"holds 'm\.ovf' twice"):
        read_ova(lambda offset, length: twice[offset : offset + length], len(twice))


def test_another_archive_is_none(tmp_path: Path) -> None:
    data = archive({"x.txt": b"x"})
    assert read_ova(lambda offset, length: data[offset : offset + length], len(data)) is None
    found = inspect(write(tmp_path / "a.tar", data), expected="raw")
    assert (found.disks, codes(found, Level.WARNING)) == (None, ["packed"])
