"""The files that a VMDK descriptor names: what of them makes one disk, and where they may lie."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.trust import Trust
from hostel.errors import InvalidImage, UntrustedReference
from support import images, vmdk
from support.bounded import MIB
from support.opened import recorded
from support.vmdk import GRAIN, SECTOR, descriptor, make, opened, patched, refusal, write_files


def test_extents_of_several_kinds_make_one_disk(tmp_path: Path) -> None:
    rng = random.Random("kinds")
    grains = {number: rng.randbytes(4096) for number in (0, 1, 2, 7)}
    make(tmp_path / "s.vmdk", 3 * GRAIN + SECTOR)
    images.write(tmp_path / "s.vmdk", "vmdk", {GRAIN: b"s" * GRAIN})
    write_files(
        tmp_path,
        {
            "flat": b"-" * 1024 + b"f" * 4096,
            "cowd": vmdk.cowd(64, grains),
            "se": vmdk.sesparse(64, {**grains, 3: None}),
            "d": descriptor(
                "vmfsSparse",
                'RW 8 FLAT "flat" 2',
                'RW 64 VMFSSPARSE "cowd"',
                'RW 64 SESPARSE "se"',
                'RW 385 SPARSE "s.vmdk"',
            ),
        },
    )  # fmt: skip
    disk = bytearray(64 * SECTOR)
    for number, grain in grains.items():
        disk[number * 4096 : (number + 1) * 4096] = grain
    sparse = bytes(GRAIN) + b"s" * GRAIN + bytes(GRAIN + SECTOR)
    expected = b"f" * 4096 + disk + disk + sparse
    with opened(tmp_path / "d") as node:
        assert node.length == len(expected)
        assert node.read(0, node.length) == expected
        for _ in range(50):
            offset = rng.randrange(node.length)
            length = rng.randrange(node.length - offset)
            assert node.read(offset, length) == expected[offset : offset + length]
        names = {Path(each.file.filename).name for each in node.extents() if each.file is not None}
        assert names == {"flat", "cowd", "se", "s.vmdk"}
        for each in node.extents():
            if each.host_offset is not None and each.file is not None:
                assert each.file.read(each.host_offset, each.length) == expected[each.offset : each.end]


def test_names_are_paths_beside_the_descriptor_whatever_they_look_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ('json:{"driver":"null-co"}', "nbd:localhost:1", "file:x", "a b.vmdk")
    for name in names:
        quoted = name.replace('"', "'")
        write_files(tmp_path, {quoted: b"x" * 4096, "d": descriptor("vmfs", f'RW 8 VMFS "{quoted}"')})
        for place in (tmp_path / "d", Path("d")):
            with opened(place) as node:
                assert node.read(0, node.length) == b"x" * 4096


def test_an_untrusted_descriptor_makes_us_open_nothing_else(tmp_path: Path) -> None:
    write_files(tmp_path, {"x": bytes(4096), "secret": b"s" * 4096})
    for number, name in enumerate(("x", str(tmp_path / "secret"), "../../etc/passwd", "json:{}", "nbd://h/x")):
        path = tmp_path / f"d{number}"
        path.write_text(descriptor("vmfs", f'RW 8 VMFS "{name}"'))
        with recorded() as paths, pytest.raises(UntrustedReference, match="is not trusted and names"):
            opened(path, trust=Trust.UNTRUSTED)
        assert paths == {str(path)}


def test_an_untrusted_overlay_makes_us_open_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "base.vmdk", MIB)
    make(tmp_path / "over.vmdk", MIB, backing=tmp_path / "base.vmdk")
    with recorded() as paths, pytest.raises(UntrustedReference):
        opened(tmp_path / "over.vmdk", trust=Trust.UNTRUSTED)
    assert paths == {str(tmp_path / "over.vmdk")}


def test_a_missing_extent_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "gone"')})
    assert refusal(tmp_path / "d") == f"Could not open '{tmp_path / 'gone'}': No such file or directory"


def test_a_descriptor_that_is_its_own_sparse_extent_ends(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "d"')})
    assert refusal(tmp_path / "d") == "Image not in VMDK format"
    header = patched(vmdk.create(MIB), 12, "Q", 0)
    text = descriptor("twoGbMaxExtentSparse", 'RW 8 SPARSE "h"').encode()
    write_files(tmp_path, {"h": header[:SECTOR] + text.ljust(10240, b"\0") + header[SECTOR + 10240 :]})
    with opened(tmp_path / "h") as node:
        assert node.length == 0


def test_one_file_as_two_extents_cannot_be_written(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "x"', 'RW 8 VMFS "x"'), "x": bytes(4096)})
    with opened(tmp_path / "d") as node:
        assert node.length == 8192
    assert "lock" in refusal(tmp_path / "d", read_only=False)


def test_so_many_extents_of_one_file_under_several_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "MAX_PARTS_OF_ONE_FILE", 20)  # as many files as may be open are not everywhere 1,024
    (tmp_path / "x").write_bytes(bytes(4096))
    (tmp_path / "link").symlink_to("x")
    names = ("x", "./x", f"../{tmp_path.name}/x", str(tmp_path / "x"), "link")
    for count in (20, 21):
        lines = [f'RW 8 FLAT "{names[index % len(names)]}" 0' for index in range(count)]
        write_files(tmp_path, {f"d{count}": descriptor("twoGbMaxExtentFlat", *lines)})
    with opened(tmp_path / "d20") as node:
        assert node.length == 20 * 4096
    assert refusal(tmp_path / "d21").startswith("More than 20 extents lie in '")


def test_a_descriptor_that_no_directory_is_known_of_names_no_relative_extents(tmp_path: Path) -> None:
    write_files(tmp_path, {name: descriptor("vmfs", 'RW 8 VMFS "x"') for name in ("a", "b")} | {"x": bytes(4096)})
    children = [{"driver": "file", "filename": str(tmp_path / name)} for name in ("a", "b")]
    name = "json:" + json.dumps(
        {"driver": "vmdk", "file": {"driver": "quorum", "children": children, "vote-threshold": 1}}
    )
    with pytest.raises(InvalidImage, match=r"Cannot use relative paths with VMDK descriptor file .* quorum nodes"):
        graph.open(name)
