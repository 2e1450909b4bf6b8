"""Images of which a header or a table cannot be read, through ``blkdebug``: refused in the words of real ``qemu-img``.

What QEMU reads and does not need keeps ours from nothing; :data:`NEEDLESS` has such sectors.
"""

from __future__ import annotations

import json

import pytest

from support import luks
from support.dmg import RAW, dmg, part
from support.memory import MemoryDriver
from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img")]
KEY = ("--object", f"secret,id=first,data={luks.SECRETS['first'].decode()}")
# How an image is made, and the sectors of its file with what it is opened with.
SECTORS = {
    "qed": ("create -q -f qed {name} 2M", (0, 128)),
    "qed, overlay": ("create -q -f qed -u -b below -F raw {name} 2M", (0, 128)),
    "vdi": ("create -q -f vdi {name} 2M", (0, 1)),
    "vdi of 40 GiB": ("create -q -f vdi {name} 40G", (0, 1, 300)),
    "vpc": ("create -q -f vpc {name} 2M", (0, 1, 2, 3)),
    "vpc, fixed": ("create -q -f vpc -o subformat=fixed {name} 2M", (0,)),
    "vhdx": ("create -q -f vhdx {name} 2M", (0, 128, 256, 384, 4096)),
    "vmdk": ("create -q -f vmdk {name} 2M", (0, 1, 20)),
    "vmdk of 1 TiB": ("create -q -f vmdk {name} 1T", (0, 1, 20)),
    "vmdk in files": ("create -q -f vmdk -o subformat=monolithicFlat {name} 2M", (0,)),
    "parallels": ("create -q -f parallels {name} 2M", (0,)),
    "qcow": ("create -q -f qcow {name} 2M", (0,)),
}
NEEDLESS = {
    "qed": (129, 639),
    "vmdk": (21, 22, 127),
    "vhdx": (4352, 5888),
}


def unreadable(format: str, name: str, sector: int) -> str:
    """The name of an image of which a sector cannot be read; its format is left to a guess where that is empty."""
    fault = {"event": "none", "iotype": "read", "errno": 5, "once": False, "sector": sector}
    file = {"driver": "blkdebug", "image": {"driver": "file", "filename": name}, "inject-error": [fault]}
    secret = {"key-secret": "first"} if format == "luks" else {}
    driver = {"driver": format} if format else {}
    return "json:" + json.dumps({**driver, **secret, "file": file}, separators=(",", ":"))


@pytest.mark.parametrize("kind", SECTORS)
def test_what_an_image_is_opened_with_cannot_be_read(twins: Twins, kind: str) -> None:
    command, sectors = SECTORS[kind]
    twins.prepare(f"qemu-img {command.format(name='image')}")
    for sector in sectors:
        for verb in ("info", "check"):
            _refused_alike(twins, verb, kind.split()[0].rstrip(","), sector)


def test_a_luks_header_cannot_be_read(twins: Twins) -> None:
    driver = MemoryDriver()
    with luks.many_volumes():
        luks.new_volume(driver)
    twins.write("image", bytes(driver.data))
    for verb, sector in (("info", 0), ("info", 1), ("check", 0), ("check", 8)):
        _refused_alike(twins, verb, "luks", sector)


def test_the_grain_directory_cannot_be_read(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f vmdk image 2T")
    with (twins.real / "image").open("rb") as file:
        sector = int.from_bytes(file.read(64)[56:], "little")
    assert sector > 2048, "QEMU says the same of all that lies in the first MiB"
    _refused_alike(twins, "info", "vmdk", sector)


def test_the_trailer_of_a_dmg_cannot_be_read(twins: Twins) -> None:
    data = dmg([part(RAW, 0, b"a" * 8192)], 8192)
    twins.write("image", data)
    _refused_alike(twins, "info", "dmg", len(data) // 512)


def test_what_tells_the_format_cannot_be_read(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 image 2M")
    for verb in ("info", "check", "map"):
        _refused_alike(twins, verb, "", 0)


@pytest.mark.parametrize("format", NEEDLESS)
def test_what_is_not_needed_need_not_be_readable(twins: Twins, format: str) -> None:
    twins.prepare(f"qemu-img create -q -f {format} image 2M")
    for sector in NEEDLESS[format]:
        words = ["info", unreadable(format, "image", sector)]
        assert twins.run_real(words).code == 1
        assert twins.run_ours(words).code == 0


def _refused_alike(twins: Twins, verb: str, format: str, sector: int) -> None:
    """Both tools must refuse the image in the same words; ours may add why."""
    words = [verb, *(KEY if format == "luks" else ()), unreadable(format, "image", sector)]
    expected, found = twins.run_real(words), twins.run_ours(words)
    assert expected.code == 1, f"sector {sector}"
    assert (found.code, found.out) == (expected.code, expected.out), f"sector {sector}"
    line = _unnamed(next(each for each in expected.err.splitlines() if not each.startswith("qemu: module ")))
    lines = [_unnamed(each) for each in found.err.splitlines()]
    assert lines[0] == line, f"sector {sector}"
    assert lines[1:] in ([], ["Input/output error."]), f"sector {sector}"


def _unnamed(line: str) -> str:
    """A line without the names of images, whose options the two write in another order."""
    first, *rest = line.split("json:{")
    return "NAME".join([first, *(each.rpartition("}")[2] if "}" in each else each for each in rest)])


# ---- qcow2, which is checked as far as it can be read


def _qcow2(twins: Twins) -> dict[str, int]:
    """An image with a snapshot, a bitmap and two refcount blocks; the host offsets of its tables by their names."""
    twins.prepare("qemu-img create -q -f qcow2 -o cluster_size=1k image 4M")
    twins.prepare("qemu-io -f qcow2 -c 'write -P 7 0 600k' image")
    twins.prepare("qemu-img snapshot -c kept image")
    twins.prepare("qemu-io -f qcow2 -c 'write -P 8 100k 100k' image")
    twins.prepare("qemu-img bitmap --add -g 64k image marks")
    twins.share("image")
    data = (twins.real / "image").read_bytes()

    def number(offset: int, length: int = 8) -> int:
        return int.from_bytes(data[offset : offset + length], "big") & 0xFFFFFFFFFFFE00

    table, snapshots = number(48), number(64)
    extension = data.index(bytes.fromhex("23852875")) + 8
    directory = number(extension + 16)
    return {
        "L1 table": number(40),
        "L2 table": number(number(40)),
        "refcount table": table,
        "first refcount block": number(table),
        "second refcount block": number(table + 8),
        "snapshot table": snapshots,
        "L1 table of a snapshot": number(snapshots),
        "L2 table of a snapshot": number(number(snapshots)),
        "bitmap directory": directory,
        "bitmap table": number(directory),
    }


def test_a_check_of_qcow2_says_what_it_could_not_read(twins: Twins) -> None:
    for what, offset in _qcow2(twins).items():
        words = ["check", unreadable("qcow2", "image", offset // 512)]
        expected, found = twins.run_real(words), twins.run_ours(words)
        assert (found.code, found.out) == (expected.code, expected.out) == (1, found.out), what
        # Ours has a line for all clusters that a refcount block counts.
        lines = [_unnamed(each) for each in found.err.splitlines() if not each.startswith("(nor for the")]
        real_lines = [_unnamed(each) for each in expected.err.splitlines()]
        assert lines == real_lines[:1] + [each for each in real_lines[1:] if not each.startswith("Can't get")], what


@pytest.mark.parametrize("repair", ["leaks", "all"])
def test_nothing_is_repaired_by_what_could_be_read(twins: Twins, repair: str) -> None:
    """QEMU's drops the snapshot."""
    places = _qcow2(twins)
    before = (twins.ours / "image").read_bytes()
    for what, offset in places.items():
        found = twins.run_ours(["check", "-r", repair, unreadable("qcow2", "image", offset // 512)])
        assert found.code == 1, what
        assert (twins.ours / "image").read_bytes() == before, what


def test_what_is_counted_elsewhere_is_repaired(twins: Twins) -> None:
    places = _qcow2(twins)
    cluster = places["L1 table of a snapshot"] // 1024
    assert cluster >= 512, "it is counted by the second block"
    twins.write("image", b"\0\7", places["second refcount block"] + cluster % 512 * 2)
    source = unreadable("qcow2", "image", places["first refcount block"] // 512)
    found = twins.run_ours(["check", "-r", "all", source])
    assert found.code == 1
    assert "    1 leaked clusters\n" in found.out
    assert "\n512 internal errors have occurred during the check.\n" in found.out
    assert "qemu-img: Check failed" in found.err
    twins.real.joinpath("image").write_bytes(twins.ours.joinpath("image").read_bytes())
    assert twins.run_real(["check", "image"]).code == 0


@pytest.mark.parametrize("verb", ["info", "map", "snapshot -l"])
def test_what_qcow2_is_opened_with_cannot_be_read(twins: Twins, verb: str) -> None:
    places = _qcow2(twins)
    for what in ("snapshot table", "bitmap directory"):
        words = [*verb.split(), unreadable("qcow2", "image", places[what] // 512)]
        expected, found = twins.run_real(words), twins.run_ours(words)
        assert (found.code, _unnamed(found.err)) == (expected.code, _unnamed(expected.err)), what
    for what in ("refcount table", "bitmap table"):  # nobody needs them who only reads
        words = [*verb.split(), unreadable("qcow2", "image", places[what] // 512)]
        assert twins.run_real(words).code == 1
        assert twins.run_ours(words).code == 0, what
