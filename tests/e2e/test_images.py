"""Guests boot from our images, read what we wrote, and we read what they wrote; the real qemu-img finds no fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel import guest
from support import image, qemu
from support.guest import Oracle, report_of

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
SIZE = 8 * MIB
HALF = SIZE // 2


class Disk(NamedTuple):
    """An image that a recipe made; ``base`` is what it stands on and must never change."""

    path: Path
    fmt: str
    base: Path | None = None


def raw(work: Path, before: bytes) -> Disk:
    path = work / "disk.raw"
    image.qemu_img("create", "-q", "-f", "raw", path, SIZE)
    image.write(path, "raw", (0, before))
    return Disk(path, "raw")


def written(*options: str) -> Callable[[Path, bytes], Disk]:
    """A qcow2 image that is created with options and then written through the block layer."""

    def make(work: Path, before: bytes) -> Disk:
        path = work / "disk.qcow2"
        image.qemu_img("create", "-q", "-f", "qcow2", *options, path, SIZE)
        with_data = [at for at in range(0, SIZE, 4096) if any(before[at : at + 4096])]
        image.write(path, "qcow2", *((at, before[at : at + 4096]) for at in with_data))
        return Disk(path, "qcow2")

    return make


def converted(*options: str) -> Callable[[Path, bytes], Disk]:
    """A qcow2 image that is converted from a raw one."""

    def make(work: Path, before: bytes) -> Disk:
        source, path = work / "source.raw", work / "disk.qcow2"
        source.write_bytes(before)
        image.qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, source, path)
        return Disk(path, "qcow2")

    return make


def overlay(base_format: str, *options: str) -> Callable[[Path, bytes], Disk]:
    """An overlay with the second half of the disk on a base with the first; the base is wrong where it is hidden."""

    def make(work: Path, before: bytes) -> Disk:
        source, base, path = work / "source.raw", work / f"base.{base_format}", work / "disk.qcow2"
        source.write_bytes(before[:HALF] + b"\xa5" * HALF)
        image.qemu_img("convert", "-f", "raw", "-O", base_format, *options, source, base)
        image.qemu_img("create", "-q", "-f", "qcow2", "-b", base.name, "-F", base_format, path)
        image.write(path, "qcow2", (HALF, before[HALF:]))
        return Disk(path, "qcow2", base)

    return make


def theirs(work: Path, before: bytes) -> Disk:
    """An overlay of the real qemu-img on a base of the real qemu-img, into which we write."""
    source, base, path = work / "source.raw", work / "base.qcow2", work / "disk.qcow2"
    source.write_bytes(before[:HALF] + b"\xa5" * HALF)
    image.real_qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", source, base)
    image.real_qemu_img("create", "-f", "qcow2", "-b", base.name, "-F", "qcow2", path)
    image.write(path, "qcow2", (HALF, before[HALF:]))
    return Disk(path, "qcow2", base)


RECIPES: dict[str, Callable[[Path, bytes], Disk]] = {
    "raw": raw,
    "qcow2": written(),
    "qcow2-v2": written("-o", "compat=0.10"),
    "qcow2-512-byte-clusters": written("-o", "cluster_size=512"),
    "qcow2-one-bit-refcounts": written("-o", "refcount_bits=1"),
    "qcow2-lazy-refcounts": written("-o", "lazy_refcounts=on"),
    "qcow2-metadata-preallocated": written("-o", "preallocation=metadata"),
    "qcow2-converted": converted(),
    "qcow2-compressed-zlib": converted("-c"),
    "qcow2-compressed-zstd": converted("-c", "-o", "compression_type=zstd"),
    "qcow2-on-raw": overlay("raw"),
    "qcow2-on-compressed-qcow2": overlay("qcow2", "-c"),
    "theirs": theirs,
}


def boot(disk: Disk, bus: str, boots: int) -> None:
    """Boot from a disk: the guest finds everything as expected."""
    report = report_of(qemu.boot(qemu.disk(disk.path, disk.fmt, bus)))
    assert report.ok, report
    assert (report.medium, report.boot, report.drive.size) == ("disk", boots, SIZE)
    assert {outcome.result for outcome in report.outcomes} == {"ok"}


@pytest.mark.parametrize("bus", ["virtio", "ide", "scsi"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_guest_and_block_layer_read_what_the_other_wrote(tmp_path: Path, recipe: str, bus: str) -> None:
    oracle = Oracle(SIZE, seed=len(recipe) * len(bus))
    before = oracle.image("oracle")
    disk = RECIPES[recipe](tmp_path, before)
    base = disk.base.read_bytes() if disk.base else None
    boot(disk, bus, 1)
    assert image.content(disk.path, disk.fmt) == oracle.after(before, 1)
    image.assert_clean(disk.path, disk.fmt)
    if disk.base is not None:
        assert disk.base.read_bytes() == base


@pytest.mark.parametrize(
    "options", ["zeroed_grain=on", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "overlay"]
)
def test_guest_runs_from_vmware_disks(tmp_path: Path, options: str) -> None:
    oracle = Oracle(SIZE, seed=len(options))
    before = oracle.image("vmdk")
    source, path = tmp_path / "source.raw", tmp_path / "disk.vmdk"
    source.write_bytes(before)
    words = () if options == "overlay" else ("-o", options)
    image.qemu_img("convert", "-f", "raw", "-O", "vmdk", *words, source, path)
    if options == "overlay":
        base, path = path, tmp_path / "over.vmdk"
        image.qemu_img("create", "-q", "-f", "vmdk", "-b", base.name, "-F", "vmdk", path)
        below = base.read_bytes()
    boot(Disk(path, "vmdk"), "ide", 1)
    assert image.content(path, "vmdk") == oracle.after(before, 1)
    image.assert_clean(path, "vmdk")
    if options == "overlay":
        assert base.read_bytes() == below


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("vdi", "static=off"),
        ("vdi", "static=on"),
        ("vpc", "force_size=on"),
        ("vpc", "force_size=on,subformat=fixed"),
        ("vhdx", "block_size=1M"),
        ("vhdx", "subformat=fixed"),
    ],
)
def test_guest_runs_from_disks_of_other_hypervisors(tmp_path: Path, fmt: str, options: str) -> None:
    oracle = Oracle(SIZE, seed=len(options))
    before = oracle.image(fmt)
    source, path = tmp_path / "source.raw", tmp_path / f"disk.{fmt}"
    source.write_bytes(before)
    image.qemu_img("convert", "-f", "raw", "-O", fmt, "-o", options, source, path)
    boot(Disk(path, fmt), "ide", 1)
    assert image.content(path, fmt) == oracle.after(before, 1)
    if fmt != "vpc":  # which has no checks
        image.assert_clean(path, fmt)


@pytest.mark.parametrize(
    ("fmt", "words"),
    [
        ("qed", ()),
        ("qed", ("-o", "cluster_size=4k,table_size=2")),
        ("qcow", ()),
        ("qcow", ("-c",)),
        ("parallels", ()),
        ("parallels", ("-o", "cluster_size=32256")),
    ],
)
@pytest.mark.parametrize("over", [False, True])
def test_guest_runs_from_disks_without_reference_counts(
    tmp_path: Path, fmt: str, words: tuple[str, ...], over: bool
) -> None:
    if over and fmt == "parallels":
        pytest.skip("parallels images have no backing files")
    oracle = Oracle(SIZE, seed=len(fmt) + len(words))
    before = oracle.image(fmt)
    source, path = tmp_path / "source.raw", tmp_path / f"disk.{fmt}"
    source.write_bytes(before)
    image.qemu_img("convert", "-f", "raw", "-O", fmt, *words, source, path)
    below = path.read_bytes()
    if over:
        base, path = path, tmp_path / f"over.{fmt}"
        image.qemu_img("create", "-q", "-f", fmt, "-b", base.name, "-F", fmt, path)
    boot(Disk(path, fmt), "ide", 1)
    assert image.content(path, fmt) == oracle.after(before, 1)
    if fmt != "qcow":  # which has no checks
        image.assert_clean(path, fmt)
    if over:
        assert base.read_bytes() == below


@pytest.mark.parametrize("bus", ["virtio", "ide", "scsi"])
def test_guest_is_back_at_the_snapshot_that_is_applied(tmp_path: Path, bus: str) -> None:
    oracle = Oracle(SIZE, seed=7)
    before = oracle.image("snapshot")
    disk = RECIPES["qcow2-on-compressed-qcow2"](tmp_path, before)
    image.qemu_img("snapshot", "-c", "fresh", disk.path)
    boot(disk, bus, 1)
    image.qemu_img("snapshot", "-c", "booted", disk.path)
    boot(disk, bus, 2)
    assert image.content(disk.path, "qcow2") == oracle.after(before, 2)
    image.qemu_img("snapshot", "-a", "booted", disk.path)
    assert image.content(disk.path, "qcow2") == oracle.after(before, 1)
    boot(disk, bus, 2)
    image.qemu_img("snapshot", "-a", "fresh", disk.path)
    image.qemu_img("snapshot", "-d", "booted", disk.path)
    assert image.content(disk.path, "qcow2") == before
    image.assert_clean(disk.path, "qcow2")
    boot(disk, bus, 1)
    image.qemu_img("snapshot", "-d", "fresh", disk.path)
    assert image.content(disk.path, "qcow2") == oracle.after(before, 1)
    image.assert_clean(disk.path, "qcow2")


def test_snapshots_of_qemu_are_applied_and_deleted_by_us(tmp_path: Path) -> None:
    oracle = Oracle(SIZE, seed=8)
    before = oracle.image("theirs")
    disk = RECIPES["qcow2-converted"](tmp_path, before)
    image.real_qemu_img("snapshot", "-c", "real", disk.path)
    boot(disk, "virtio", 1)
    image.qemu_img("snapshot", "-a", "real", disk.path)
    assert image.content(disk.path, "qcow2") == before
    boot(disk, "virtio", 1)
    image.qemu_img("snapshot", "-d", "real", disk.path)
    image.assert_clean(disk.path, "qcow2")


def test_guest_boots_from_a_disk_that_was_resized_and_writes_in_what_was_added(tmp_path: Path) -> None:
    oracle = Oracle(SIZE, seed=9)
    small = Oracle(SIZE, seed=9).image("resized")[:HALF]
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, HALF)
    image.write(path, "qcow2", (0, small))
    image.qemu_img("resize", "-q", path, SIZE)
    before = oracle.image("resized")
    image.write(path, "qcow2", (HALF, before[HALF:]))
    boot(Disk(path, "qcow2"), "virtio", 1)
    assert image.content(path, "qcow2") == oracle.after(before, 1)
    image.assert_clean(path, "qcow2")


def test_image_that_a_machine_uses_is_refused_to_us_with_the_holder_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", disk, MIB)
    image.write(disk, "qcow2", (0, guest.image(mode=guest.Mode.STAY)))
    with qemu.machine(qemu.disk(disk, "qcow2")) as running:
        running.wait_for("mode=stay\r\n")
        capsys.readouterr()
        with pytest.raises(AssertionError, match="exit code 1"):
            image.qemu_img("snapshot", "-c", "no", disk)
        said = capsys.readouterr().err
        assert f"qemu-img: Could not open '{disk}': Failed to get" in said
        assert f"process {running.process.pid} (" in said
    assert guest.read_state(image.content(disk, "qcow2")[guest.state_offset() :][:512]) == guest.State(1, True)
    image.assert_clean(disk, "qcow2")
